"""`apiflux process` that is ended early, and an output that belongs to another job: asked of the judge."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from apiflux_grpc.judge.ledger import Limit
from tests.e2e.test_process_files import MS, pair, rows_of, run, running, wait_for_rows, write_lines


def posts(count: int, *, ids: bool = False) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = [{"method": "POST", "path": f"/n/{number}"} for number in range(count)]
    for number, call in enumerate(calls if ids else ()):
        call["id"] = f"call-{number}"
    return calls


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "--timeout", "--ordered"])
def test_what_was_never_sent_is_sent_by_the_next_run(tmp_path: Path, how: str) -> None:
    """2,000 POSTs lie in the server, which may send 100 of them: nothing is in doubt, and each runs once."""
    source, output = write_lines(tmp_path / "calls.jsonl", posts(2_000)), tmp_path / "out.jsonl"
    with pair(Limit(50, 60_000 * MS), latency=(20, 60)) as (judge, target):
        options = ["--timeout", "3"] if how == "--timeout" else ["--ordered"] if how == "--ordered" else []
        with running(target, source, "--output", output, *options, cwd=tmp_path) as process:
            wait_for_rows(output, 100)
            if how != "--timeout":
                process.send_signal(signal.SIGTERM if how == "SIGTERM" else signal.SIGINT)
            _, err = process.communicate(timeout=40)
        assert process.returncode == 4, err
        assert "100 of 2000 results were written" in err
        assert ("--timeout is over" in err) == (how == "--timeout")
        assert set(judge.calls().values()) == {1}
        assert len(judge.calls()) == 100
    rows = rows_of(output)
    assert len(rows) == 100
    assert all(row["response"]["statusCode"] == 200 for row in rows)
    with pair() as (judge, target):
        done = run(target, source, "--output", output, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        had = {f"POST /n/{row['index']}" for row in rows}
        assert not had & judge.calls().keys()
        assert set(judge.calls().values()) == {1}
        assert len(judge.calls()) == 1_900
    assert sorted(row["index"] for row in rows_of(output)) == list(range(2_000))


def test_what_is_in_flight_when_the_time_is_over_is_waited_for(tmp_path: Path) -> None:
    """A call that answers within the grace has its answer; what hangs longer is in doubt."""
    source, output = write_lines(tmp_path / "calls.jsonl", posts(4)), tmp_path / "out.jsonl"
    with pair(latency=(2_500, 2_500)) as (judge, target):
        done = run(target, source, "--output", output, "--timeout", "1", cwd=tmp_path)
        assert done.returncode == 0, done.stderr  # nothing is left to do
        assert len(judge.calls()) == 4
    assert [row["response"]["statusCode"] for row in rows_of(output)] == [200] * 4


def test_another_job_is_refused_where_calls_have_ids(tmp_path: Path) -> None:
    """Nothing is sent, and the first call that isn't what it was is named; what is the same goes on."""
    output = tmp_path / "out.jsonl"
    first, second = tmp_path / "j1.csv", tmp_path / "j2.csv"
    first.write_text("id,addr\n1,a\n2,b\n3,c\n")
    second.write_text("id,addr\n1,a\n2,other\n3,c\n4,d\n")
    get, delete = '{"path": "/v1/{addr}"}', '{"method": "DELETE", "path": "/v2/{addr}"}'
    with pair() as (judge, target):
        assert run(target, first, "--template", get, "--output", output, cwd=tmp_path).returncode == 0
        before = output.read_bytes()
        for source, template, line in ((first, delete, 2), (second, get, 3), (second, delete, 2)):
            refused = run(target, source, "--template", template, "--output", output, cwd=tmp_path)
            assert (refused.returncode, refused.stdout) == (2, "")
            assert f"{source}:{line}: " in refused.stderr
            assert "belongs to other calls" in refused.stderr
            assert output.read_bytes() == before
        assert judge.report().accepted == 3
        first.write_text("id,addr\n4,d\n3,c\n1,a\n")
        again = run(target, first, "--template", get[:-1] + ', "timeout": "9s"}', "--output", output, cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        assert judge.report().accepted == 4


@pytest.mark.parametrize("ids", [True, False])
def test_another_job_is_refused_where_calls_come_through_a_pipe(tmp_path: Path, ids: bool) -> None:
    """It is found at its line; nothing after it is sent."""
    output = tmp_path / "out.jsonl"
    calls = posts(5, ids=ids)
    text = "".join(json.dumps(call) + "\n" for call in calls)
    with pair() as (judge, target):
        assert run(target, "-", "--output", output, stdin=text, cwd=tmp_path).returncode == 0
        assert run(target, "-", "--output", output, stdin=text, cwd=tmp_path).returncode == 0
        before = output.read_bytes()
        calls[2]["path"] = "/other"
        text = "".join(json.dumps(call) + "\n" for call in [*calls, {"path": "/more"}])
        refused = run(target, "-", "--output", output, "--skip-bad-lines", stdin=text, cwd=tmp_path)
        assert refused.returncode == 2, refused.stderr
        assert "<stdin>:3: " in refused.stderr
        assert "belongs to other calls" in refused.stderr
        assert output.read_bytes() == before
        assert judge.report().accepted == 5


def test_a_call_that_failed_may_be_mended_and_retried(tmp_path: Path) -> None:
    """With --retry-failed the line may say something else; without it, it may not."""
    source, output = tmp_path / "calls.jsonl", tmp_path / "out.jsonl"
    bad = {"path": "/1", "id": "a", "headers": {"X-Judge-Fault": "500"}}
    with pair(extra="retry = { max_attempts = 1 }") as (judge, target):
        write_lines(source, [bad])
        assert run(target, source, "--output", output, cwd=tmp_path).returncode == 3
        write_lines(source, [{"path": "/2", "id": "a"}])
        assert run(target, source, "--output", output, cwd=tmp_path).returncode == 2
        done = run(target, source, "--output", output, "--retry-failed", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "GET /2" in judge.calls()
        assert run(target, source, "--output", output, cwd=tmp_path).returncode == 0


def test_a_method_in_lower_case_is_told_its_name(tmp_path: Path) -> None:
    """The line, and what was meant."""
    source = write_lines(tmp_path / "calls.jsonl", [{"path": "/1", "method": "get"}])
    with pair() as (judge, target):
        done = run(target, source, cwd=tmp_path)
        assert (done.returncode, judge.report().arrivals) == (2, 0)
    assert f"{source}:1: method: 'get' is not a method that can be sent; did you mean 'GET'?" in done.stderr
