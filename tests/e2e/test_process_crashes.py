"""`apiflux process` killed again and again, and without room on the disk: the judge's count against the output's."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from apiflux_grpc.judge.ledger import Limit
from apiflux_grpc.judge.process import JudgeProcess
from tests.e2e.test_process_files import (
    COMMAND,
    ENVIRON,
    MS,
    Done,
    Rows,
    mixed,
    pair,
    rows_of,
    run,
    running,
    write_lines,
)

WIDE: Final = Limit(100_000, 1_000 * MS)


def every_kind(count: int) -> list[dict[str, Any]]:
    """Methods that may run twice and such that may not, with and without saying so; every other call has an id."""
    kinds: list[dict[str, Any]] = [
        {"method": "GET"},
        {"method": "POST"},
        {"method": "POST", "idempotent": True},
        {"method": "DELETE", "idempotent": False},
        {"method": "PATCH"},
    ]
    calls = [kinds[number % len(kinds)] | {"path": f"/n/{number}"} for number in range(count)]
    return [call | ({"id": f"call-{number}"} if number % 2 else {}) for number, call in enumerate(calls)]


def may_run_twice(call: dict[str, Any]) -> bool:
    return bool(call.get("idempotent", call["method"] == "GET"))


def check(calls: list[dict[str, Any]], rows: Rows, judge: JudgeProcess) -> int:
    """One result for each call, and what the judge saw is what it says. Returns how many results are in doubt."""
    assert sorted(row["index"] for row in rows) == list(range(len(calls)))
    arrived = judge.calls()
    doubtful = 0
    for row in rows:
        call = calls[row["index"]]
        times = arrived.pop(f"{call['method']} {call['path']}", 0)
        assert row.get("id") == call.get("id")
        if "error" in row:
            assert (row["error"]["reason"], row["error"]["mayHaveRun"]) == ("UNKNOWN", True)
            assert not may_run_twice(call)
            doubtful += 1
        else:
            assert row["response"]["statusCode"] == 200
            assert times >= 1
        assert times <= 1 or may_run_twice(call)
    assert arrived == {}
    return doubtful


def wait_for_lines(process: subprocess.Popen[str], path: Path, count: int) -> bool:
    """Wait until the file has so many; False: the process ended first."""
    seen = at = 0
    while process.poll() is None:
        if path.exists():
            with path.open("rb") as file:
                file.seek(at)
                new = file.read()
            seen, at = seen + new.count(b"\n"), at + len(new)
            if seen >= count:
                return True
        time.sleep(0.01)
    return False


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("count", "kills"), [(1_500, 3), pytest.param(20_000, 10, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_killed_at_random_moments_every_call_has_one_result(tmp_path: Path, count: int, kills: int) -> None:
    """And no call that must not run twice reached the judge twice; each that may have run without a result says so."""
    calls = every_kind(count)
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    dice = random.Random(20_241)
    moments = sorted(dice.sample(range(count // 50, count * 3 // 4), kills))
    window = count // 40
    arguments = (source, "--output", output, "--window", str(window))
    slowly = f"max_in_flight = {max(4, count // 1_000)}"  # so that it isn't over before the last kill
    with pair(WIDE, latency=(1, 20), extra=slowly) as (judge, target):
        for moment in moments:
            with running(target, *arguments, cwd=tmp_path) as process:
                assert wait_for_lines(process, output, moment)
                time.sleep(dice.uniform(0.0, 0.05))
                process.send_signal(signal.SIGKILL)
                assert process.wait() == -signal.SIGKILL
        done = run(target, *arguments, cwd=tmp_path)
        doubtful = check(calls, rows_of(output), judge)
        assert judge.report().rejected == 0
    assert 0 < doubtful <= kills * window
    assert done.returncode == 3, done.stderr


# -- no room ---------------------------------------------------------------------------------------


def limited(most: int) -> Callable[[], None]:
    """No file may grow beyond so many bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def run_limited(most: int, target: str, *args: object, stdout: int | None = None, cwd: Path) -> Done:
    return subprocess.run(
        [*COMMAND, "--target", target, *map(str, args)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=55,
        check=False,
        cwd=cwd,
        env=ENVIRON,
        preexec_fn=limited(most),
    )


@pytest.mark.parametrize("most", [700, 20_000, 20_001, 50_000])
def test_a_full_disk_ends_a_run_and_the_next_one_goes_on(tmp_path: Path, most: int) -> None:
    """Exit code 4, where it can't write and how to go on; whole lines are there, and room completes the job."""
    calls = mixed(300, ids=True)
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    with pair(latency=(1, 20)) as (judge, target):
        arguments = (source, "--output", output, "--window", "20")
        cut = run_limited(most, target, *arguments, cwd=tmp_path)
        assert (cut.returncode, cut.stdout) == (4, "")
        assert f"can't write to {output}: File too large" in cut.stderr
        assert f"once there is room, the same command with --output {output} goes on from here" in cut.stderr
        assert "Traceback" not in cut.stderr
        data = output.read_bytes()
        assert data.endswith(b"\n")
        assert 0 < most - len(data) < 600  # whole lines, as many as there is room for
        assert f"{len(rows_of(output))} of 300 results were written" in cut.stderr
        done = run(target, *arguments, cwd=tmp_path)
        doubtful = check(calls, rows_of(output), judge)
    assert doubtful <= 20
    assert done.returncode == (3 if doubtful else 0), done.stderr
    assert output.read_bytes().startswith(data)


def test_without_room_for_its_notes_nothing_more_is_handed_over(tmp_path: Path) -> None:
    """A note that can't be written is of a call that is not sent: the next run sends it, though none may run twice."""
    calls = [{"method": "POST", "path": f"/n/{number}"} for number in range(1_000)]
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    with pair(Limit(2, 3_600_000 * MS)) as (judge, target):  # so that the output never gets as long as the notes
        cut = run_limited(8_100, target, source, "--output", output, cwd=tmp_path)
        assert cut.returncode == 4
        assert f"can't write to {output}.state: File too large" in cut.stderr
        assert "goes on from here" in cut.stderr
        assert judge.report().arrivals <= 4
        handed = ((tmp_path / "out.jsonl.state").stat().st_size - 8) // 16
        assert 500 <= handed < 508  # so many there would be room for
        early = {row["index"] for row in rows_of(output)}
    with pair(WIDE) as (judge, target):
        assert run(target, source, "--output", output, cwd=tmp_path).returncode == 3
        rows = rows_of(output)
        arrived = judge.calls()
    assert sorted(row["index"] for row in rows) == list(range(1_000))
    doubtful = {row["index"] for row in rows if "error" in row}
    assert doubtful == set(range(handed)) - early
    assert arrived == {f"POST /n/{number}": 1 for number in range(handed, 1_000)}


def test_a_retry_without_room_changes_nothing(tmp_path: Path) -> None:
    """The failed results are still there, and it can be asked for again."""
    calls = mixed(40, ids=False)
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    row = {"response": {"statusCode": 200, "headers": {"filler": "x" * 300}}}
    before = [row | {"index": index} for index in range(39)] + [
        {"index": 39, "failure": "HTTP_5XX", "response": {"statusCode": 500}}
    ]
    write_lines(output, before)
    with pair() as (judge, target):
        arguments = (source, "--output", output, "--retry-failed")
        cut = run_limited(4_000, target, *arguments, cwd=tmp_path)
        assert cut.returncode == 4
        assert "can't write to " in cut.stderr
        assert "File too large" in cut.stderr
        assert rows_of(output) == before
        assert judge.report().arrivals == 0
        assert run(target, *arguments, cwd=tmp_path).returncode == 0
        assert judge.calls() == {"POST /n/39": 1}
    assert sorted(row["index"] for row in rows_of(output)) == list(range(40))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["calls.jsonl", "out.jsonl", "out.jsonl.state"]


def test_standard_output_without_room_is_said(tmp_path: Path) -> None:
    """Exit code 4 and one message, whether the file is too large or the device is full; the judge's calls end too."""
    source = write_lines(tmp_path / "calls.jsonl", mixed(200, ids=False))
    with pair() as (judge, target):
        for name, most in ((tmp_path / "out", 5_000), (Path("/dev/full"), 1 << 30)):
            with name.open("wb") as file:
                done = run_limited(most, target, source, stdout=file.fileno(), cwd=tmp_path)
            assert done.returncode == 4
            assert "can't write to standard output: " in done.stderr
            assert "the last line that was written may be cut" in done.stderr
            assert "with --output it could be gone on with" in done.stderr
            assert "Traceback" not in done.stderr
            assert "Exception ignored" not in done.stderr
        assert judge.report().rejected == 0
    whole, _, cut = (tmp_path / "out").read_bytes().rpartition(b"\n")
    assert len(whole) + 1 + len(cut) == 5_000
    assert all("index" in json.loads(line) for line in whole.splitlines())
    with pair() as (_, target):
        full = run(target, source, "--output", "/dev/full", cwd=tmp_path)
    assert full.returncode == 4
    assert "can't write to /dev/full: No space left on device" in full.stderr
