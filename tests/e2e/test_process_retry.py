"""`apiflux process` run once more: which calls are sent again, by their lines, their pool, and what was asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from apiflux_grpc.jobs.calls import call_of
from apiflux_grpc.jobs.known import Known, digest_of, key_of
from apiflux_grpc.jobs.output import Output
from tests.e2e.commands import indexes, lines_of, rows_of, run, wait_for_rows, write_lines
from tests.e2e.house import House
from tests.e2e.test_process_files import NOBODY, mixed
from tests.e2e.test_process_stop import number_of
from tests.jobs.outputs import hand_over

IN_DOUBT = "10 calls may have run and must not run twice: --retry-unknown sends them again"


def killed(tmp_path: Path, house: House, calls: list[dict[str, Any]], *options: str) -> tuple[Path, Path]:
    """A job that was killed when 40 of its calls had their result and 20 were in flight: its input and output."""
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    house.upstream.hold(lambda name: number_of(name) >= 40)
    with house.processing(source, "--output", output, "--window", "20", *options, cwd=tmp_path) as process:
        wait_for_rows(output, 40)
        house.upstream.wait_for(60)
        process.kill()
        process.wait()
    house.upstream.release()
    return source, output


def arrivals(calls: list[dict[str, Any]], twice: set[int]) -> dict[str, int]:
    return {f"{call['method']} {call['path']}": 1 + (number in twice) for number, call in enumerate(calls)}


@pytest.mark.parametrize("ids", [True, False])
def test_what_somebody_looked_at_is_sent_again(tmp_path: Path, house: House, ids: bool) -> None:
    """--retry-unknown sends the POSTs that a crash left in doubt, at once or after they got their result as UNKNOWN;
    nothing else is sent twice but the GETs that were in flight."""
    calls = mixed(100, ids=ids)
    source, output = killed(tmp_path, house, calls)
    arguments = (source, "--output", output)
    gets, posts = set(range(40, 60, 2)), set(range(41, 60, 2))
    if ids:
        told = house.process(*arguments, cwd=tmp_path)
        assert told.returncode == 3
        assert f"in doubt   {IN_DOUBT}" in told.stderr
        assert "10 calls without a result are sent again: they may run twice" in told.stderr
        nothing = house.process(*arguments, "--retry-failed", cwd=tmp_path)
        assert (nothing.returncode, IN_DOUBT in nothing.stderr) == (3, True)
        assert house.upstream.arrived == arrivals(calls, gets)
    done = house.process(*arguments, "--retry-unknown", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"10 {'failed calls' if ids else 'calls without a result'} are sent again" in done.stderr
    assert "in doubt" not in done.stderr
    assert house.upstream.arrived == arrivals(calls, gets | posts)
    rows = rows_of(output)
    assert indexes(rows) == list(range(100))
    assert all(row["response"]["statusCode"] == 200 for row in rows)


def test_the_pool_says_what_may_run_twice(tmp_path: Path, house: House) -> None:
    """After a crash its rule sends POSTs again that were in flight, without being asked."""
    calls = mixed(100, ids=False)
    source, output = killed(tmp_path, house, calls, "--pool", "twice")
    done = house.process(source, "--output", output, "--pool", "twice", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert house.upstream.arrived == arrivals(calls, set(range(40, 60)))


def test_without_a_server_what_is_in_doubt_is_not_decided(tmp_path: Path, house: House) -> None:
    """Its pool may say that it may run twice, as it does here; a result UNKNOWN would keep it from being sent."""
    call = {"method": "POST", "path": "/n/1"}
    source, output = write_lines(tmp_path / "calls.jsonl", [call]), tmp_path / "out.jsonl"
    with Output(output, Known()) as there:
        hand_over(there, [(key_of("", 0), digest_of(call_of(call)))])
    arguments = (source, "--output", output, "--pool", "twice")
    lost = run("process", *arguments, *NOBODY, cwd=tmp_path)
    assert (lost.returncode, rows_of(output)) == (4, []), lost.stderr
    done = house.process(*arguments, cwd=tmp_path)
    assert (done.returncode, dict(house.upstream.arrived)) == (0, {"POST /n/1": 1})


def in_doubt(index: int, reason: str, idempotent: bool) -> dict[str, Any]:
    error = {"code": 2, "reason": reason, "message": "", "mayHaveRun": True, "idempotent": idempotent}
    return {"index": index, "failure": reason, "error": error}


CALLS: list[dict[str, Any]] = [
    {"method": "POST", "path": "/n/0"},
    {"method": "POST", "path": "/n/1", "idempotent": True},
    {"method": "GET", "path": "/n/2"},
    {"method": "GET", "path": "/n/3", "idempotent": False},
    {"method": "POST", "path": "/n/4"},
    {"method": "POST", "path": "/n/5"},
    {"method": "POST", "path": "/n/6"},
]
RESULTS = [
    in_doubt(0, "TIMEOUT", True),
    in_doubt(1, "BODY_CUT", False),
    in_doubt(2, "UNKNOWN", False),
    in_doubt(3, "UNKNOWN", True),
    in_doubt(4, "INTERNAL", False),
    {"index": 5, "failure": "HTTP_5XX", "response": {"statusCode": 500}},
    {"index": 6, "response": {"statusCode": 200}},
]


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize(
    ("options", "pool", "sent", "told"),
    [
        (["--retry-failed"], "default", {1, 2, 5}, "2 calls may have run and must not run twice: --retry-unknown"),
        (["--retry-failed"], "twice", {0, 1, 2, 4, 5}, "1 call may have run and must not run twice: --retry-unknown"),
        (["--retry-unknown"], "default", {0, 1, 2, 3}, "2 of them a failure; --retry-failed sends 1 again\n"),
        (
            ["--retry-failed", "--retry-unknown"],
            "default",
            {0, 1, 2, 3, 5},
            "in doubt 1 call may have run before it failed",
        ),
        ([], "twice", set(), "6 of them a failure; --retry-failed sends 5 again\nin doubt 1 call"),
        ([], "default", set(), "--retry-failed sends 3 again\nin doubt 2 calls may have run and must not run twice"),
    ],
)
def test_the_line_decides_and_not_the_result(
    tmp_path: Path, house: House, options: list[str], pool: str, sent: set[int], told: str, piped: bool
) -> None:
    """What an earlier run thought may run twice doesn't count. Through a pipe, too, what stays keeps its result."""
    output = tmp_path / "out.jsonl"
    write_lines(output, RESULTS)
    source = "-" if piped else write_lines(tmp_path / "calls.jsonl", CALLS)
    arguments = (source, "--output", output, "--pool", pool, *options)
    done = house.process(*arguments, cwd=tmp_path, stdin=lines_of(*CALLS) if piped else "")
    assert {number_of(name) for name in house.upstream.arrived} == sent, done.stderr
    assert house.upstream.arrived.total() == len(sent)
    rows = rows_of(output)
    assert indexes(rows) == list(range(7))
    assert [rows[index] for index in range(7) if index not in sent] == [
        RESULTS[index] for index in range(7) if index not in sent
    ]
    assert all(rows[index]["response"]["statusCode"] == 200 for index in sent)
    assert done.returncode == 3
    assert told in re.sub(" +", " ", done.stderr)


def test_a_line_that_never_comes_leaves_its_result(tmp_path: Path, house: House) -> None:
    """Through a pipe a result is out of the file until its line comes; at the end it is back, whatever it says."""
    output = tmp_path / "out.jsonl"
    write_lines(output, RESULTS)
    done = house.process("-", "--output", output, "--retry-failed", cwd=tmp_path, stdin=lines_of(*CALLS[:2]))
    assert done.returncode == 3
    assert set(house.upstream.arrived) == {"POST /n/1"}
    rows = rows_of(output)
    assert indexes(rows) == list(range(7))
    assert [row for row in rows if row["index"] != 1] == [RESULTS[index] for index in (0, 2, 3, 4, 5, 6)]
    assert "up to 6 failed calls are sent again" in done.stderr


def test_what_a_limit_keeps_back_keeps_its_result(tmp_path: Path, house: House) -> None:
    """A few are tried; a later run without the option doesn't send the others, of which it is only known that they may
    have run."""
    source, output = write_lines(tmp_path / "calls.jsonl", CALLS), tmp_path / "out.jsonl"
    write_lines(output, RESULTS)
    arguments = (source, "--output", output)
    done = house.process(*arguments, "--retry-unknown", "--limit", "2", cwd=tmp_path)
    assert "2 failed calls are sent again" in done.stderr
    assert house.process(*arguments, cwd=tmp_path).returncode == 3
    assert {number_of(name) for name in house.upstream.arrived} == {0, 1}
    assert rows_of(output)[2:] == RESULTS[2:]


def test_a_retry_that_is_killed_asks_for_nothing_more(tmp_path: Path, house: House) -> None:
    """Calls that it hadn't sent may still have run before, so the next run sends them only if it is asked to."""
    calls = [{"method": "POST", "path": f"/n/{number}"} for number in range(4)]
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    write_lines(output, [in_doubt(number, "UNKNOWN", False) for number in range(4)])
    arguments = (source, "--output", output)
    house.upstream.hold()
    with house.processing(*arguments, "--retry-unknown", "--window", "1", cwd=tmp_path) as process:
        house.upstream.wait_for(1)
        process.kill()
        process.wait()
    house.upstream.release()
    told = house.process(*arguments, cwd=tmp_path)
    assert "4 calls may have run and must not run twice: --retry-unknown sends them again" in told.stderr
    assert house.upstream.arrived == {"POST /n/0": 1}
    assert house.process(*arguments, "--retry-unknown", cwd=tmp_path).returncode == 0
    assert house.upstream.arrived == arrivals(calls, {0})


def test_without_a_server_no_result_is_taken_out(tmp_path: Path) -> None:
    """Whether a call may run twice is its pool's to say as well, so nothing is done before that is known."""
    source, output = write_lines(tmp_path / "calls.jsonl", CALLS), tmp_path / "out.jsonl"
    write_lines(output, RESULTS)
    for option in ("--retry-failed", "--retry-unknown"):
        done = run("process", source, "--output", output, option, *NOBODY, cwd=tmp_path)
        assert done.returncode == 4
        assert rows_of(output) == RESULTS


@pytest.mark.parametrize("option", ["--retry-failed", "--retry-unknown"])
def test_a_retry_needs_the_output_of_an_earlier_run(tmp_path: Path, option: str) -> None:
    """Without one there is nothing to send again."""
    source = write_lines(tmp_path / "calls.jsonl", CALLS)
    done = run("process", source, option, *NOBODY, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{option} needs --output, the file of an earlier run" in done.stderr
