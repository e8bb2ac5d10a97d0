"""`apiflux process` killed, and without room on the disk: what arrived upstream against what the output says."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for
from tests.e2e.commands import COMMAND, ENVIRON, Rows, indexes, rows_of, run, running, wait_for_rows, write_lines
from tests.e2e.house import KEYS, House
from tests.e2e.test_process_files import NOBODY, mixed
from tests.e2e.test_process_stop import number_of, posts

MS: Final = 1_000_000
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


def check(calls: list[dict[str, Any]], rows: Rows, arrived: Counter[str] | dict[str, int]) -> int:
    """One result for each call, and what arrived is what it says. Returns how many results are in doubt."""
    assert indexes(rows) == list(range(len(calls)))
    left = dict(arrived)
    doubtful = 0
    for row in rows:
        call = calls[row["index"]]
        times = left.pop(f"{call['method']} {call['path']}", 0)
        assert row.get("id") == call.get("id")
        if "error" in row:
            assert (row["error"]["reason"], row["error"]["mayHaveRun"]) == ("UNKNOWN", True)
            assert not may_run_twice(call)
            doubtful += 1
        else:
            assert row["response"]["statusCode"] == 200
            assert times >= 1
        assert times <= 1 or may_run_twice(call)
    assert left == {}
    return doubtful


def assert_sent_again(calls: list[dict[str, Any]], rows: Rows, before: dict[str, int], after: dict[str, int]) -> None:
    """Every call that was in doubt arrived once more, and no other."""
    names = {f"{calls[row['index']]['method']} {calls[row['index']]['path']}" for row in rows if "error" in row}
    assert {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)} == (
        dict.fromkeys(names, 1)
    )


# -- killed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [True, False])
def test_a_killed_job_goes_on(tmp_path: Path, house: House, ids: bool) -> None:
    """After SIGKILL and a cut last line every call has one result; no POST ran twice, each that is in doubt says so."""
    calls = mixed(100, ids=ids)
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    house.upstream.hold(lambda name: number_of(name) >= 40)
    arguments = (source, "--output", output, "--window", "20")
    with house.processing(*arguments, cwd=tmp_path) as process:
        wait_for_rows(output, 40)
        house.upstream.wait_for(60)
        process.kill()
        process.wait()
    house.upstream.release()
    with output.open("a") as file:
        file.write('{"index":99,"id":"call-9')
    done = house.process(*arguments, cwd=tmp_path)
    rows = rows_of(output)
    assert check(calls, rows, house.upstream.arrived) == 10
    assert [row["index"] for row in rows if "error" in row] == list(range(41, 60, 2))
    assert done.returncode == 3, done.stderr
    assert "10: UNKNOWN 10" in done.stderr
    assert run("process", *arguments, *NOBODY, cwd=tmp_path).returncode == 3  # with nothing to send it needs no server


def test_ordered_results_stay_in_order_over_a_restart(tmp_path: Path, house: House) -> None:
    """Those in doubt are in their place, too."""
    source, output = write_lines(tmp_path / "calls.jsonl", mixed(100, ids=False)), tmp_path / "out.jsonl"
    house.upstream.hold(lambda name: number_of(name) >= 40)
    arguments = (source, "--output", output, "--ordered", "--window", "20")
    with house.processing(*arguments, cwd=tmp_path) as process:
        wait_for_rows(output, 40)
        house.upstream.wait_for(60)
        process.kill()
        process.wait()
    house.upstream.release()
    assert house.process(*arguments, cwd=tmp_path).returncode == 3
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert indexes(rows) == list(range(100))
    assert [row["index"] for row in rows if "error" in row] == list(range(41, 60, 2))


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
    ("count", "kills"), [(800, 3), pytest.param(20_000, 10, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_killed_at_random_moments_every_call_has_one_result(tmp_path: Path, count: int, kills: int) -> None:
    """And no call that must not run twice reached the judge twice; each that may have run without a result says so, and
    is sent once more when that is asked for."""
    calls = every_kind(count)
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    dice = random.Random(20_241)
    moments = sorted(dice.sample(range(count // 50, count * 3 // 4), kills))
    window = count // 40
    slowly = f"max_in_flight = {max(2, count // 1_000)}"  # so that it isn't over before the last kill
    options = JudgeOptions(KEYS, (WIDE,), latency_ns=(1 * MS, 20 * MS))
    with JudgeProcess(options) as judge:
        config = config_for(judge.url, [(WIDE.max, WIDE.per_ns)], list(KEYS), slowly)
        with ServedProcess(config, secrets_for(KEYS)) as served:
            arguments = ("process", "--target", served.target, source, "--output", output, "--window", str(window))
            for moment in moments:
                with running(*arguments, cwd=tmp_path) as process:
                    assert wait_for_lines(process, output, moment)
                    time.sleep(dice.uniform(0.0, 0.05))
                    process.send_signal(signal.SIGKILL)
                    assert process.wait() == -signal.SIGKILL
            done = run(*arguments, cwd=tmp_path)
            before, arrived = rows_of(output), judge.calls()
            doubtful = check(calls, before, arrived)
            again = run(*arguments, "--retry-unknown", cwd=tmp_path)
        assert judge.report().rejected == 0
        assert_sent_again(calls, before, arrived, judge.calls())
    assert 0 < doubtful <= kills * window
    assert done.returncode == 3, done.stderr
    assert f"{doubtful:,} calls may have run and must not run twice: --retry-unknown sends them again" in done.stderr
    assert again.returncode == 0, again.stderr
    rows = rows_of(output)
    assert indexes(rows) == list(range(count))
    assert {row["response"]["statusCode"] for row in rows} == {200}


# -- no room ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [700, 20_000, 20_001, 50_000])
def test_a_full_disk_ends_a_run_and_the_next_one_goes_on(tmp_path: Path, house: House, most: int) -> None:
    """Exit code 4, where it can't write and how to go on; whole lines are there, and room completes the job."""
    calls = mixed(300, ids=True)
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    arguments = (source, "--output", output, "--window", "20")
    cut = house.process(*arguments, cwd=tmp_path, most=most)
    assert (cut.returncode, cut.stdout) == (4, "")
    assert f"can't write to {output}: File too large" in cut.stderr
    assert f"once there is room, run the same command with --output {output} again to continue" in cut.stderr
    assert "Traceback" not in cut.stderr
    data = output.read_bytes()
    assert data.endswith(b"\n")
    assert 0 < most - len(data) < 600  # whole lines, as many as there is room for
    assert f"{len(rows_of(output))} of 300 results were written" in cut.stderr
    done = house.process(*arguments, cwd=tmp_path)
    doubtful = check(calls, rows_of(output), house.upstream.arrived)
    assert doubtful <= 20
    assert done.returncode == (3 if doubtful else 0), done.stderr
    assert output.read_bytes().startswith(data)


def test_without_room_for_its_notes_nothing_more_is_handed_over(tmp_path: Path, house: House) -> None:
    """A note that can't be written is of a call that is not sent: the next run sends it, though none may run twice."""
    source, output = write_lines(tmp_path / "calls.jsonl", posts(1_000)), tmp_path / "out.jsonl"
    upstream = house.upstream
    # Only 20 calls may be sent, so that the output never gets as long as the notes.
    cut = house.process(source, "--output", output, "--pool", "notes", cwd=tmp_path, most=8_100)
    assert cut.returncode == 4
    assert f"can't write to {output}.state: File too large" in cut.stderr
    assert "again to continue" in cut.stderr
    handed = ((tmp_path / "out.jsonl.state").stat().st_size - 8) // 16
    assert 500 <= handed < 508  # so many there would be room for
    early = set(indexes(rows_of(output)))
    assert house.process(source, "--output", output, cwd=tmp_path).returncode == 3
    rows = rows_of(output)
    assert indexes(rows) == list(range(1_000))
    assert {row["index"] for row in rows if "error" in row} == set(range(handed)) - early
    # What the server had begun when the first run ended may still have come, but no call came twice.
    assert set(upstream.arrived.values()) == {1}
    sent = {number_of(name) for name in upstream.arrived}
    assert sent >= set(range(handed, 1_000))
    assert len(sent & set(range(handed))) <= 20


def test_a_retry_without_room_changes_nothing(tmp_path: Path, house: House) -> None:
    """The failed results are still there, and it can be asked for again."""
    calls = mixed(40, ids=False)
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    row = {"response": {"statusCode": 200, "headers": {"filler": "x" * 300}}}
    before: Rows = [row | {"index": index} for index in range(39)]
    before.append({"index": 39, "failure": "HTTP_5XX", "response": {"statusCode": 500}})
    write_lines(output, before)
    arguments = (source, "--output", output, "--retry-failed")
    cut = house.process(*arguments, cwd=tmp_path, most=4_000)
    assert cut.returncode == 4
    assert "can't write to " in cut.stderr
    assert "File too large" in cut.stderr
    assert rows_of(output) == before
    assert house.upstream.arrived.total() == 0
    assert house.process(*arguments, cwd=tmp_path).returncode == 0
    assert house.upstream.arrived == {"POST /n/39": 1}
    assert indexes(rows_of(output)) == list(range(40))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["calls.jsonl", "out.jsonl", "out.jsonl.state"]


def test_standard_output_without_room_is_told(tmp_path: Path, house: House) -> None:
    """Exit code 4 and one message, whether the file is too large or the device is full."""
    source = write_lines(tmp_path / "calls.jsonl", mixed(200, ids=False))
    with (tmp_path / "out").open("wb") as file:
        cut_off = house.process(source, cwd=tmp_path, stdout=file.fileno(), most=5_000)
    command = [*COMMAND, "process", "--target", house.target, str(source)]
    with open("/dev/full", "wb") as device:  # in a process, for it must also end without a word about its buffer
        full = subprocess.run(command, stdout=device, stderr=subprocess.PIPE, text=True, env=ENVIRON, check=False)
    for done in (cut_off, full):
        assert done.returncode == 4
        assert "can't write to standard output: " in done.stderr
        assert "the last line may be incomplete" in done.stderr
        assert "--output" in done.stderr
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
    whole, _, cut = (tmp_path / "out").read_bytes().rpartition(b"\n")
    assert len(whole) + 1 + len(cut) == 5_000
    assert all("index" in json.loads(line) for line in whole.splitlines())
    full = house.process(source, "--output", "/dev/full", cwd=tmp_path)
    assert full.returncode == 4
    assert "can't write to /dev/full: No space left on device" in full.stderr


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("ids", [True, False])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, house: House, ids: bool) -> None:
    """200,000 calls of 1 KB, with results of earlier runs to skip, in less than 60 MB above where it began."""
    count = 200_000
    source, output = tmp_path / "calls.jsonl", tmp_path / "out.jsonl"
    filler = "x" * 1_000
    with source.open("w") as file:
        for number in range(count):
            id = f'"id": "call-{number}", ' if ids else ""
            file.write(f'{{{id}"path": "/{number}", "headers": {{"X-Filler": "{filler}"}}}}\n')
    for _ in range(2):  # the second one skips them all
        with house.processing(source, "--output", output, "--pool", "simulated", cwd=tmp_path) as process:
            watched = psutil.Process(process.pid)
            low, high = 1 << 60, 0
            while process.poll() is None:
                try:
                    # Its modules are loaded when it has its output open.
                    is_begun = any(file.path == str(output) for file in watched.open_files())
                    now = watched.memory_info().rss
                except psutil.NoSuchProcess:
                    break
                if is_begun and now:  # 0: it is over
                    low, high = min(low, now), max(high, now)
                time.sleep(0.1)
            assert process.returncode == 0, process.stderr and process.stderr.read()
        assert high > 0
        assert high - low < 60 << 20
    seen = bytearray(count)
    with output.open() as file:
        for line in file:
            seen[json.loads(line)["index"]] += 1
    assert set(seen) == {1}
