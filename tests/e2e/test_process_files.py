"""`apiflux process` on files: killed and gone on with, interrupted, retried, fed from CSV and from pipes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from apiflux_grpc.judge.ledger import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for

KEYS = {"key-1": "canary-5c0d-one", "key-2": "canary-5c0d-two"}
COMMAND = (sys.executable, "-m", "apiflux_grpc", "process")
ENVIRON = os.environ | {"COLUMNS": "300"}
MS = 1_000_000
Done = subprocess.CompletedProcess[str]
Rows = list[dict[str, Any]]


@contextmanager
def pair(*limits: Limit, latency: tuple[int, int] = (1, 5), extra: str = "") -> Iterator[tuple[JudgeProcess, str]]:
    """A judge that answers within so many ms, and the address of a server in front of it."""
    options = JudgeOptions(KEYS, limits, latency_ns=(latency[0] * MS, latency[1] * MS))
    with (
        JudgeProcess(options) as judge,
        ServedProcess(config_for(judge.url, limits, list(KEYS), extra), secrets_for(KEYS)) as served,
    ):
        yield judge, served.target


def run(target: str, *args: str | Path, stdin: str = "", cwd: Path) -> Done:
    return subprocess.run(
        [*COMMAND, "--target", target, *map(str, args)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        cwd=cwd,
        env=ENVIRON,
    )


@contextmanager
def running(target: str, *args: str | Path, cwd: Path, stdin: int | None = None) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    command = [*COMMAND, "--target", target, *map(str, args)]
    with subprocess.Popen(command, stdin=stdin, stdout=pipe, stderr=pipe, text=True, cwd=cwd, env=ENVIRON) as process:
        try:
            yield process
        finally:
            process.kill()


def write_lines(path: Path, calls: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(call) + "\n" for call in calls))
    return path


def rows_of(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_for_rows(path: Path, count: int) -> None:
    for _ in range(600):
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{count} results never came")


def mixed(count: int, *, ids: bool) -> list[dict[str, Any]]:
    """Every other call isn't idempotent."""
    calls: list[dict[str, Any]] = [
        {"method": "POST" if number % 2 else "GET", "path": f"/n/{number}"} for number in range(count)
    ]
    if ids:
        for number, call in enumerate(calls):
            call["id"] = f"call-{number}"
    return calls


@pytest.mark.parametrize("ids", [True, False])
def test_a_killed_job_is_gone_on_with(tmp_path: Path, ids: bool) -> None:
    """After SIGKILL and a cut last line every call has one result; no POST ran twice, each that is in doubt says so."""
    calls = mixed(400, ids=ids)
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    with pair(Limit(40, 1_000 * MS), latency=(20, 60)) as (judge, target):
        arguments = (source, "--output", output, "--window", "60")
        with running(target, *arguments, cwd=tmp_path) as process:
            wait_for_rows(output, 100)
            process.send_signal(signal.SIGKILL)
            process.wait()
        with output.open("a") as file:
            file.write('{"index":399,"id":"call-3')
        done = run(target, *arguments, cwd=tmp_path)
        arrived = judge.calls()
        report = judge.report()
        assert (report.rejected, report.worst) == (0, 1.0)
    rows = rows_of(output)
    assert sorted(row["index"] for row in rows) == list(range(len(calls)))
    if ids:
        assert all(row["id"] == f"call-{row['index']}" for row in rows)
    doubtful = [row["index"] for row in rows if "error" in row]
    assert all(row["error"]["reason"] == "UNKNOWN" and row["error"]["mayHaveRun"] for row in rows if "error" in row)
    assert all(calls[index]["method"] == "POST" for index in doubtful)
    assert 0 < len(doubtful) <= 60
    assert all(row["response"]["statusCode"] == 200 for row in rows if row["index"] not in doubtful)
    for number, call in enumerate(calls):
        times = arrived.get(f"{call['method']} {call['path']}", 0)
        assert times <= 1 if call["method"] == "POST" else times >= 1
        assert times == 1 or number in doubtful or call["method"] == "GET"
    assert done.returncode == 3, done.stderr
    assert f"{len(doubtful)}: UNKNOWN {len(doubtful)}" in done.stderr
    assert run(target, *arguments, cwd=tmp_path).returncode == 3  # nothing is left to send: it needs no server


def test_a_finished_job_sends_nothing_again(tmp_path: Path) -> None:
    """The same output is left as it is, and the exit code is that of the job; calls added to the file are sent."""
    source, output = write_lines(tmp_path / "calls.jsonl", mixed(20, ids=False)), tmp_path / "out.jsonl"
    with pair() as (judge, target):
        first = run(target, source, "--output", output, cwd=tmp_path)
        before = output.read_bytes()
        second = run(target, source, "--output", output, cwd=tmp_path)
        assert (first.returncode, second.returncode) == (0, 0), second.stderr
        assert "20 calls had their result" in second.stderr
        assert output.read_bytes() == before
        write_lines(source, mixed(25, ids=False))
        third = run(target, source, "--output", output, cwd=tmp_path)
        assert third.returncode == 0, third.stderr
        assert judge.report().accepted == 25
    assert sorted(row["index"] for row in rows_of(output)) == list(range(25))


def test_results_of_other_calls_are_not_gone_on_with(tmp_path: Path) -> None:
    """Nothing is sent and nothing lost; with --overwrite it begins anew. With ids the file may change."""
    source, output = write_lines(tmp_path / "calls.jsonl", mixed(10, ids=False)), tmp_path / "out.jsonl"
    with pair() as (judge, target):
        assert run(target, source, "--output", output, cwd=tmp_path).returncode == 0
        before = output.read_bytes()
        write_lines(source, [{"path": f"/other/{number}"} for number in range(10)])
        refused = run(target, source, "--output", output, cwd=tmp_path)
        assert refused.returncode == 2
        assert "other calls" in refused.stderr
        assert output.read_bytes() == before
        anew = run(target, source, "--output", output, "--overwrite", cwd=tmp_path)
        assert anew.returncode == 0, anew.stderr
        assert judge.report().accepted == 20
        judge.reset()
        named = mixed(10, ids=True)
        write_lines(source, named[:7])
        assert run(target, source, "--output", output, "--overwrite", cwd=tmp_path).returncode == 0
        write_lines(source, [named[9], *reversed(named[:9])])
        assert run(target, source, "--output", output, cwd=tmp_path).returncode == 0
        assert judge.report().accepted == 10
    assert {row["id"] for row in rows_of(output)} == {call["id"] for call in named}
    assert len(rows_of(output)) == 10


def test_an_output_that_is_none_of_ours_is_left_alone(tmp_path: Path) -> None:
    """Neither a file of something else nor the input itself is written to."""
    source = write_lines(tmp_path / "calls.jsonl", mixed(3, ids=False))
    other = tmp_path / "notes.txt"
    other.write_text("first\nsecond\n")
    for output, message in ((other, "notes.txt:1: is no result"), (source, "is the input")):
        before = output.read_bytes()
        done = run("127.0.0.1:1", source, "--output", output, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
        assert output.read_bytes() == before


def test_failed_calls_are_retried_when_asked(tmp_path: Path) -> None:
    """--retry-failed sends again what failed and replaces its line; the others stay, POSTs in doubt too."""
    source, output = tmp_path / "calls.jsonl", tmp_path / "out.jsonl"
    with pair(extra="retry = { max_attempts = 1 }") as (judge, target):
        judge.reject("key-1")
        judge.reject("key-2")
        write_lines(source, mixed(6, ids=True))
        failed = run(target, source, "--output", output, cwd=tmp_path)
        assert failed.returncode == 3, failed.stderr
        rows = rows_of(output)
        assert not any("response" in row and row["response"]["statusCode"] == 200 for row in rows)
        doubtful = {
            "index": 5,
            "id": "call-5",
            "failure": "UNKNOWN",
            "error": {"code": 2, "reason": "UNKNOWN", "message": "", "mayHaveRun": True, "idempotent": False},
        }
        write_lines(output, [*(row for row in rows if row["index"] != 5), doubtful])
        judge.accept("key-1")
        judge.accept("key-2")
        judge.reset()
        left = run(target, source, "--output", output, cwd=tmp_path)
        assert left.returncode == 3
        assert "--retry-failed sends 5 again" in left.stderr
        assert judge.report().arrivals == 0
        time.sleep(1.5)  # for the keys to be tried again
        done = run(target, source, "--output", output, "--retry-failed", cwd=tmp_path)
        assert judge.report().accepted == 5, done.stderr
        assert "POST /n/5" not in judge.calls()
    assert done.returncode == 3  # the one in doubt
    rows = sorted(rows_of(output), key=lambda row: int(row["index"]))
    assert [row["index"] for row in rows] == list(range(6))
    assert [row["response"]["statusCode"] for row in rows[:5]] == [200] * 5
    assert rows[5] == doubtful


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_keeps_what_it_has(tmp_path: Path, signum: signal.Signals) -> None:
    """Exit code 4 and how to go on; what was handed over is waited for, so the next run has nothing in doubt."""
    calls = mixed(300, ids=False)
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    with pair(Limit(40, 500 * MS), latency=(20, 60)) as (judge, target):
        arguments = (source, "--output", output, "--window", "20")
        with running(target, *arguments, cwd=tmp_path) as process:
            wait_for_rows(output, 50)
            process.send_signal(signum)
            out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (4, "")
        assert "Traceback" not in err
        assert "interrupted: " in err
        assert f"--output {output} goes on from here" in err
        assert 50 <= len(rows_of(output)) < 300
        done = run(target, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert set(judge.calls().values()) == {1}
    assert sorted(row["index"] for row in rows_of(output)) == list(range(300))


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Calls that hang are not waited for; the next run says of a POST that it may have run, and sends a GET again."""
    source, output = write_lines(tmp_path / "calls.jsonl", mixed(4, ids=False)), tmp_path / "out.jsonl"
    with pair(latency=(3_000, 3_000)) as (judge, target):
        with running(target, source, "--output", output, cwd=tmp_path) as process:
            for _ in range(200):
                if judge.live().arrivals == 4:
                    break
                time.sleep(0.05)
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert time.monotonic() - started < 2.5
        assert process.returncode == 4
        assert "0 of 4 results" in err
        done = run(target, source, "--output", output, cwd=tmp_path)
        assert done.returncode == 3
        calls = judge.calls()
    assert (calls["POST /n/1"], calls["POST /n/3"], calls["GET /n/0"], calls["GET /n/2"]) == (1, 1, 2, 2)
    rows = sorted(rows_of(output), key=lambda row: int(row["index"]))
    assert ["error" in row for row in rows] == [False, True, False, True]


def test_one_run_at_a_time_has_an_output(tmp_path: Path) -> None:
    """A second run is refused and changes nothing."""
    source, output = write_lines(tmp_path / "calls.jsonl", mixed(10, ids=False)), tmp_path / "out.jsonl"
    with pair(Limit(1, 3_000 * MS)) as (_, target), running(target, source, "--output", output, cwd=tmp_path):
        wait_for_rows(output, 1)
        second = run(target, source, "--output", output, cwd=tmp_path)
    assert second.returncode == 2
    assert "another run" in second.stderr


def test_csv_makes_calls_by_a_template(tmp_path: Path) -> None:
    """Columns go into path, query and body; ids come from their column; a row that doesn't fit is named by its line."""
    source, output = tmp_path / "places.csv", tmp_path / "out.jsonl"
    source.write_text(
        '\ufeffid,city,address\na,Köln/Süd,"Main ""street""\n5"\nb,Bonn,"{x} & y"\n\nc,too few\n', encoding="utf-8"
    )
    template = {"method": "POST", "path": "/in/{city}", "query": {"q": "{address}"}, "json": {"a": ["{address}"]}}
    arguments = (source, "--output", output, "--template", json.dumps(template))
    with pair() as (judge, target):
        refused = run(target, *arguments, cwd=tmp_path)
        assert refused.returncode == 2
        assert f"{source}:6: 2 columns; the header has 3" in refused.stderr
        assert judge.report().arrivals == 0
        done = run(target, *arguments, "--skip-bad-lines", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert judge.calls() == {
            "POST /in/K%C3%B6ln%2FS%C3%BCd?q=Main%20%22street%22%0A5": 1,
            "POST /in/Bonn?q=%7Bx%7D%20%26%20y": 1,
        }
        piped = run(target, "-", "--template", '{"path": "/{id}"}', stdin="id\nx\ny\n", cwd=tmp_path)
        assert piped.returncode == 0, piped.stderr
        assert {json.loads(line)["id"] for line in piped.stdout.splitlines()} == {"x", "y"}
    assert {row["id"] for row in rows_of(output)} == {"a", "b"}


def test_a_template_that_does_not_fit_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """An unknown column is named, with the one that was meant; and CSV needs a template."""
    source = tmp_path / "places.csv"
    source.write_text("id,address\n1,here\n")
    for template, message in (
        ('{"path": "/", "query": {"q": "{adress}"}}', "query.q has {adress}"),
        ('{"path": "/", "query": {"q": "{adress}"}}', "did you mean 'address'?"),
        ('{"pth": "/"}', "did you mean 'path'?"),
        ("{", "the template is no call: not JSON"),
        (None, "--template says"),
    ):
        option = () if template is None else ("--template", template)
        done = run("127.0.0.1:1", source, *option, "--output", "out", cwd=tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == ["places.csv"]
        assert done.returncode == 2
        assert message in done.stderr
        assert "UNAVAILABLE" not in done.stderr


def test_a_pipe_is_processed_as_it_comes(tmp_path: Path) -> None:
    """A result is there before the next line is; a bad line ends the reading with exit code 2."""
    with pair() as (judge, target), running(target, "-", cwd=tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(json.dumps({"path": f"/{number}"}) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["index"] == number
        process.stdin.write('{"path": "/3"}\nnonsense\n{"path": "/never"}\n')
        out, err = process.communicate(timeout=30)
        assert process.returncode == 2
        assert [json.loads(line)["index"] for line in out.splitlines()] == [3]
        assert "<stdin>:5: not JSON" in err
        assert judge.report().accepted == 4
        stdin = '{"path": "/a"}\nnonsense\n{"path": "/b", "id": "x"}\n{"path": "/c", "id": "x"}\n{"path": "/d"}'
        skipped = run(target, "-", "--skip-bad-lines", stdin=stdin, cwd=tmp_path)
        assert skipped.returncode == 0
        assert "<stdin>:4: the id 'x' was used before" in skipped.stderr
        assert sorted(json.loads(line)["index"] for line in skipped.stdout.splitlines()) == [0, 1, 2]


def test_ctrl_c_ends_the_wait_for_a_pipe(tmp_path: Path) -> None:
    """A pipe that gives nothing doesn't hold it."""
    with pair() as (_, target), running(target, "-", cwd=tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write('{"path": "/1"}\n')
        process.stdin.flush()
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 4
        assert process.stderr is not None
        err = process.stderr.read()
    assert "Traceback" not in err
    assert "interrupted: 1 of 1 results" in err


def test_ordered_results_stay_in_order_over_a_restart(tmp_path: Path) -> None:
    """Those in doubt stand in their place, too."""
    source, output = write_lines(tmp_path / "calls.jsonl", mixed(200, ids=False)), tmp_path / "out.jsonl"
    with pair(Limit(40, 500 * MS), latency=(1, 100)) as (_, target):
        arguments = (source, "--output", output, "--ordered", "--window", "40")
        with running(target, *arguments, cwd=tmp_path) as process:
            wait_for_rows(output, 60)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert run(target, *arguments, cwd=tmp_path).returncode == 3
    rows = rows_of(output)
    assert [row["index"] for row in rows] == list(range(200))
    assert any("error" in row for row in rows)


@contextmanager
def served_again(folder: Path, config: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """A server of this configuration on this port, until the block ends or it is killed."""
    (folder / "apiflux.toml").write_text(config)
    command = [sys.executable, "-m", "apiflux_grpc", "--log-level", "error", "serve"]
    options = ["--config", str(folder / "apiflux.toml"), "--bind", f"127.0.0.1:{port}"]
    environ = os.environ | secrets_for(KEYS)
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, text=True, cwd=folder, env=environ, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("listening on ")
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_outlives_its_server(tmp_path: Path, signum: signal.Signals) -> None:
    """A killed server costs the POSTs that were handed over; one that drains costs none. Nothing else is lost."""
    calls = mixed(300, ids=False)
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    limit = Limit(40, 500 * MS)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with JudgeProcess(JudgeOptions(KEYS, (limit,), latency_ns=(20 * MS, 60 * MS))) as judge:
        config = config_for(judge.url, (limit,), list(KEYS))
        with served_again(tmp_path, config, port) as server:
            arguments = (source, "--output", output, "--window", "50")
            with running(f"127.0.0.1:{port}", *arguments, cwd=tmp_path) as process:
                wait_for_rows(output, 100)
                server.send_signal(signum)
                server.wait()
                time.sleep(1.2)  # for the limits' windows: a server that died can't tell the next what it had sent
                with served_again(tmp_path, config, port):
                    _, err = process.communicate(timeout=40)
        arrived = judge.calls()
        assert judge.report().rejected == 0
    rows = rows_of(output)
    assert sorted(row["index"] for row in rows) == list(range(300))
    doubtful = [row["index"] for row in rows if "error" in row]
    assert all(calls[index]["method"] == "POST" for index in doubtful)
    assert all(times == 1 for name, times in arrived.items() if name.startswith("POST"))
    if signum == signal.SIGTERM:
        assert (doubtful, process.returncode) == ([], 0), err
        assert set(arrived.values()) == {1}
    else:
        assert 0 < len(doubtful) <= 50
        assert process.returncode == 3, err


def test_a_server_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    """With --wait it says so once and goes on when the server is there; everything is sent once."""
    source = write_lines(tmp_path / "calls.jsonl", mixed(20, ids=True))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    limit = Limit(1_000, 1_000 * MS)
    with JudgeProcess(JudgeOptions(KEYS, (limit,))) as judge:
        with running(f"127.0.0.1:{port}", source, "--wait", "40", cwd=tmp_path) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == f"waiting up to 40 s for a server at 127.0.0.1:{port}\n"
            with served_again(tmp_path, config_for(judge.url, (limit,), list(KEYS)), port):
                out, err = process.communicate(timeout=50)
        assert process.returncode == 0, err
        assert "waiting" not in err
        assert sorted(json.loads(line)["index"] for line in out.splitlines()) == list(range(20))
        assert set(judge.calls().values()) == {1}
        assert len(judge.calls()) == 20


def test_a_server_that_never_comes_is_said(tmp_path: Path) -> None:
    """At once, with a hint; with --wait after that time; and Ctrl-C ends the wait. Nothing is left behind."""
    source, output = write_lines(tmp_path / "calls.jsonl", mixed(3, ids=False)), tmp_path / "out.jsonl"
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = (source, "--output", output)
        at_once = run(target, *arguments, cwd=tmp_path)
        assert (at_once.returncode, at_once.stdout) == (4, "")
        assert "UNAVAILABLE" in at_once.stderr
        assert f"is a server running at {target}? --wait SECONDS waits for one" in at_once.stderr
        in_vain = run(target, *arguments, "--wait", "1.5", cwd=tmp_path)
        assert (in_vain.returncode, in_vain.stdout) == (4, "")
        assert in_vain.stderr.count("waiting up to 1.5 s") == 1
        assert f"no server answered at {target} within 1.5 s" in in_vain.stderr
        with running(target, *arguments, "--wait", "50", cwd=tmp_path) as process:
            assert process.stderr is not None
            assert "waiting" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (4, "interrupted: nothing was sent\n")
        for done in (at_once, in_vain):
            assert "Traceback" not in done.stderr
            assert "0 of 3 results were written" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["calls.jsonl"]


def test_what_a_drained_server_never_sent_is_not_in_doubt(tmp_path: Path) -> None:
    """Interrupted while the server is away, the next run sends every call that has no result: all are POSTs."""
    calls = [{"method": "POST", "path": f"/n/{number}"} for number in range(200)]
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    limit = Limit(40, 500 * MS)
    with pair(limit, latency=(20, 60)) as (judge, target):
        config = config_for(judge.url, (limit,), list(KEYS))
        with (
            ServedProcess(config, secrets_for(KEYS)) as other,
            running(other.target, source, "--output", output, "--window", "100", cwd=tmp_path) as process,
        ):
            wait_for_rows(output, 50)
            other.terminate()
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert process.returncode == 4, err
        before = len(rows_of(output))
        assert 50 <= before < 200
        time.sleep(1.0)  # for the limits' windows
        done = run(target, source, "--output", output, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert set(judge.calls().values()) == {1}
    assert sorted(row["index"] for row in rows_of(output)) == list(range(200))


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("ids", [True, False])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, ids: bool) -> None:
    """200,000 calls of 1 KB, with results of earlier runs to skip, in less than 60 MB above where it began."""
    count = 200_000
    source, output = tmp_path / "calls.jsonl", tmp_path / "out.jsonl"
    filler = "x" * 1_000
    with source.open("w") as file:
        for number in range(count):
            id = f'"id": "call-{number}", ' if ids else ""
            file.write(f'{{{id}"path": "/{number}", "headers": {{"X-Filler": "{filler}"}}}}\n')
    config = '[pools.default]\nlimits = []\nkeys = [{ label = "a", secret = "canary-5c0d" }]\n'
    environ = {"TEST_MIN_LATENCY": "0", "TEST_MAX_LATENCY": "0"}
    with ServedProcess(config, environ) as served:
        for _ in range(2):  # the second one skips them all
            with running(served.target, source, "--output", output, cwd=tmp_path) as process:
                watched = psutil.Process(process.pid)
                low, high = 1 << 60, 0
                began = time.monotonic()
                while process.poll() is None:
                    try:
                        now = watched.memory_info().rss
                    except psutil.NoSuchProcess:
                        break
                    if now and time.monotonic() - began > 1.0:  # 0: it is over; before that its modules are loaded
                        low, high = min(low, now), max(high, now)
                    time.sleep(0.1)
                assert process.returncode == 0, process.stderr and process.stderr.read()
            assert high - low < 60 << 20
    seen = bytearray(count)
    with output.open() as file:
        for line in file:
            seen[json.loads(line)["index"]] += 1
    assert set(seen) == {1}
