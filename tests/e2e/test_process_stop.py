"""`apiflux process` ended early, by a signal, by --timeout, or because nobody reads: what becomes of its calls."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import indexes, read_until, rows_in, rows_of, wait_for_rows, write_lines
from tests.e2e.house import House
from tests.e2e.test_process_files import mixed

SIGNALS = {"sigint": signal.SIGINT, "sigterm": signal.SIGTERM, "ordered": signal.SIGINT}
# The command with a grace that no test outlives, so that an end before it is no matter of time.
PATIENT = "import apiflux_grpc.jobs.run as run; run.GRACE = 3600.0; from apiflux_grpc.__main__ import main; main()"


def posts(count: int) -> list[dict[str, Any]]:
    return [{"method": "POST", "path": f"/n/{number}"} for number in range(count)]


def number_of(name: str) -> int:
    """Of a call "METHOD /n/NUMBER"."""
    return int(name.rpartition("/")[2])


@pytest.mark.parametrize("how", ["sigint", "sigterm", "timeout", "ordered"])
def test_what_was_never_sent_is_sent_by_the_next_run(tmp_path: Path, house: House, how: str) -> None:
    """200 POSTs are in the server, which may send 20 of them: nothing is in doubt, and each runs once."""
    source, output = write_lines(tmp_path / "calls.jsonl", posts(200)), tmp_path / "out.jsonl"
    options = {"timeout": ["--timeout", "1"], "ordered": ["--ordered"]}.get(how, [])
    arguments: list[str | Path] = [source, "--output", output, "--pool", how, *options]
    if how == "timeout":
        done = house.process(*arguments, cwd=tmp_path)
        code, err = done.returncode, done.stderr
    else:
        with house.processing(*arguments, cwd=tmp_path) as process:
            wait_for_rows(output, 20)
            process.send_signal(SIGNALS[how])
            _, err = process.communicate(timeout=50)
        code = process.returncode
    rows = rows_of(output)
    assert code == 4, err
    assert f"{len(rows)} of 200 results were written" in err
    assert ("--timeout has passed" in err) == (how == "timeout")
    assert ("interrupted: " in err) == (how != "timeout")
    assert f"--output {output} again to continue" in err
    assert len(rows) == 20 if how != "timeout" else len(rows) <= 20
    assert house.upstream.arrived == {f"POST /n/{index}": 1 for index in indexes(rows)}
    assert all(row["response"]["statusCode"] == 200 for row in rows)
    done = house.process(source, "--output", output, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert house.upstream.arrived == {f"POST /n/{number}": 1 for number in range(200)}
    assert indexes(rows_of(output)) == list(range(200))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_what_is_in_flight_at_a_signal_is_waited_for(tmp_path: Path, house: House, signum: signal.Signals) -> None:
    """Exit code 4, with how to go on; the calls in flight have their results, so the next run has nothing in doubt."""
    source, output = write_lines(tmp_path / "calls.jsonl", mixed(60, ids=False)), tmp_path / "out.jsonl"
    house.upstream.hold(lambda name: number_of(name) >= 20)
    arguments = (source, "--output", output, "--window", "10")
    with house.processing(*arguments, cwd=tmp_path) as process:
        wait_for_rows(output, 20)
        house.upstream.wait_for(30)
        process.send_signal(signum)
        early = read_until(process.stderr, "waiting up to 5 s for calls in flight")
        house.upstream.release()
        out, err = process.communicate(timeout=50)
    assert (process.returncode, out) == (4, "")
    assert "Traceback" not in early + err
    assert "interrupted: 30 of 60 results were written" in err
    assert f"--output {output} again to continue" in err
    done = house.process(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(house.upstream.arrived.values()) == {1}
    assert indexes(rows_of(output)) == list(range(60))


def test_what_is_in_flight_when_the_time_is_over_is_waited_for(tmp_path: Path, house: House) -> None:
    """Its answers are written, and if nothing is left to do the run ends as if it had had the time."""
    source, output = write_lines(tmp_path / "calls.jsonl", posts(4)), tmp_path / "out.jsonl"

    def heard(line: str) -> None:
        if "--timeout has passed" in line:
            house.upstream.release()

    house.upstream.hold()
    done = house.process(source, "--output", output, "--timeout", "1", cwd=tmp_path, heard=heard)
    assert "--timeout has passed: waiting up to 5 s for calls in flight" in done.stderr
    assert done.returncode == 0, done.stderr
    assert house.upstream.arrived.total() == 4
    assert [row["response"]["statusCode"] for row in rows_of(output)] == [200] * 4


def test_a_job_that_is_complete_by_then_still_says_that_it_was_interrupted(tmp_path: Path, house: House) -> None:
    """From the first signal on the exit code is 4, also if every call in flight was the rest of the job."""
    source, output = write_lines(tmp_path / "calls.jsonl", posts(4)), tmp_path / "out.jsonl"
    house.upstream.hold()
    with house.processing(source, "--output", output, cwd=tmp_path) as process:
        house.upstream.wait_for(4)
        process.send_signal(signal.SIGINT)
        read_until(process.stderr, "waiting up to")
        house.upstream.release()
        _, err = process.communicate(timeout=50)
    assert process.returncode == 4
    assert "interrupted: 4 of 4 results were written" in err
    assert "again to continue" not in err
    assert house.process(source, "--output", output, cwd=tmp_path).returncode == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path, house: House) -> None:
    """Calls in flight are not waited for; the next run says of a POST that it may have run, and sends a GET again."""
    source, output = write_lines(tmp_path / "calls.jsonl", mixed(4, ids=False)), tmp_path / "out.jsonl"
    house.upstream.hold()
    command = [sys.executable, "-c", PATIENT, "process", "--target", house.target, str(source), "--output", str(output)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path) as process:
        try:
            house.upstream.wait_for(4)
            process.send_signal(signal.SIGINT)
            read_until(process.stderr, "waiting up to 3600 s for calls in flight; press Ctrl-C again to end at once")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=50)
        finally:
            process.kill()
    assert process.returncode == 4
    assert "0 of 4 results" in err
    house.upstream.release()
    done = house.process(source, "--output", output, cwd=tmp_path)
    assert done.returncode == 3
    assert house.upstream.arrived == {"GET /n/0": 2, "POST /n/1": 1, "GET /n/2": 2, "POST /n/3": 1}
    assert ["error" in row for row in rows_of(output)] == [False, True, False, True]


def test_without_an_output_what_came_before_a_signal_is_written(tmp_path: Path, house: House) -> None:
    """Each result is on standard output as soon as it is there; nothing else is, and no traceback."""
    source = write_lines(tmp_path / "calls.jsonl", [{"path": "/n/0"}, {"path": "/n/1"}])
    house.upstream.hold(lambda name: number_of(name) == 1)
    with house.processing(source, cwd=tmp_path) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        house.upstream.wait_for(2)
        process.send_signal(signal.SIGINT)
        read_until(process.stderr, "waiting up to")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=50)
    assert json.loads(first)["index"] == 0
    assert (process.returncode, out) == (4, "")
    assert "Traceback" not in err


def test_ctrl_c_ends_the_wait_for_a_pipe(tmp_path: Path, house: House) -> None:
    """A pipe that gives nothing doesn't hold it."""
    with house.processing("-", cwd=tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write('{"path": "/1"}\n')
        process.stdin.flush()
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(50) == 4
        assert process.stderr is not None
        err = process.stderr.read()
    assert "Traceback" not in err
    assert "interrupted: 1 result was written" in err


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path, house: House) -> None:
    """As with `| head -1`: exit code 4 and no traceback."""
    calls = tmp_path / "calls.jsonl"
    calls.write_text("{}\n" * 5_000)
    with house.processing(calls, "--pool", "simulated", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["attempts"] == 1
        process.stdout.close()
        err = process.stderr.read()
        process.wait(50)
    assert "Traceback" not in err
    assert process.returncode == 4


def test_the_time_is_over_without_an_output(tmp_path: Path, house: House) -> None:
    """Exit code 4 and how many results there are; the call in flight has its own."""
    house.upstream.hold(lambda name: name == "GET /n/1")
    source = write_lines(tmp_path / "calls.jsonl", [{"path": f"/n/{number}"} for number in range(3)])

    def heard(line: str) -> None:
        if "--timeout has passed" in line:
            house.upstream.release()

    arguments = (source, "--timeout", "1", "--window", "1")
    done = house.process(*arguments, cwd=tmp_path, heard=heard)
    assert done.returncode == 4
    assert indexes(rows_in(done.stdout)) == [0, 1]
    assert "--timeout has passed: 2 of 3 results were written" in done.stderr
    assert "with --output" in done.stderr
