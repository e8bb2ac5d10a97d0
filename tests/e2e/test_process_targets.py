"""`apiflux process` over several servers: real ones that die and drain, and targets that can't be used."""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiflux_grpc.client import servers as in_servers
from apiflux_grpc.testing.served import ServedProcess, secrets_for
from tests.client.scripted import free_port
from tests.e2e.commands import Rows, indexes, read_until, rows_of, run, running, wait_for_rows, write_lines
from tests.e2e.house import KEYS, House, Upstream, pool, upstream_served
from tests.e2e.test_process_files import mixed
from tests.e2e.test_process_servers import wait_until_it_drains
from tests.e2e.test_process_stop import number_of


@pytest.fixture
def upstream() -> Iterator[tuple[Upstream, str]]:
    with upstream_served() as served:
        yield served


def replica(url: str) -> ServedProcess:
    return ServedProcess(pool("default", url), secrets_for(KEYS))


def check_each_has_one_result(calls: Rows, rows: Rows, own: Upstream) -> list[int]:
    """And came no more often than it may. Returns the indexes of those that are in doubt."""
    assert indexes(rows) == list(range(len(calls)))
    doubtful = [row["index"] for row in rows if "error" in row]
    for call, row in zip(calls, rows, strict=True):
        came = own.arrived[f"{call['method']} {call['path']}"]
        assert came <= (1 if call["method"] == "POST" else 2), call
        assert came >= 1 or row["index"] in doubtful, call
    assert all(calls[index]["method"] == "POST" for index in doubtful)
    return doubtful


@pytest.mark.parametrize("signum", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_job_outlives_one_of_its_servers(
    tmp_path: Path, upstream: tuple[Upstream, str], signum: signal.Signals
) -> None:
    """Killed, it costs the POSTs that it had; one that drains costs none, though it never comes back. Each call has one
    result, the other server does the rest, and one line says so."""
    calls = mixed(100, ids=False)
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    own, url = upstream
    own.hold()
    with replica(url) as one, replica(url) as other:
        targets = ("--target", one.target, "--target", other.target)
        with running("process", *targets, source, "--output", output, "--window", "20", cwd=tmp_path) as process:
            own.wait_for(20)  # 10 at each, however late one connects: what one has done decides how many it gets
            own.hold(lambda name: number_of(name) >= 40)
            wait_for_rows(output, 40)
            own.wait_for(60)
            if signum == signal.SIGKILL:
                one.kill()
            else:
                os.kill(one.pid, signum)
                wait_until_it_drains(int(one.target.rpartition(":")[2]))
            own.hold(lambda name: number_of(name) >= 60)  # the job isn't over before it knows that one is lost
            err = read_until(process.stderr, f"{one.target} is ")
            own.release()
            err += process.communicate(timeout=50)[1]
    doubtful = check_each_has_one_result(calls, rows_of(output), own)
    assert f"{one.target} is {'shutting down' if signum == signal.SIGTERM else 'not there'}" in err
    assert "waiting for it to come back" not in err
    if signum == signal.SIGTERM:
        assert (doubtful, process.returncode, set(own.arrived.values())) == ([], 0, {1}), err
    else:
        assert process.returncode == 3, err
        assert 0 < len(doubtful) <= 10
        assert set(doubtful) <= set(range(40, 60))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_may_be_killed_at_any_moment(tmp_path: Path, upstream: tuple[Upstream, str]) -> None:
    """Whatever was sent by then, with any window, in order or not."""
    own, url = upstream
    for seed in range(12):
        dice = random.Random(seed)
        calls = mixed(60, ids=False)
        folder = tmp_path / str(seed)
        folder.mkdir()
        source, output = write_lines(folder / "calls.jsonl", calls), folder / "out.jsonl"
        options = ["--window", str(dice.choice((1, 3, 10, 2_000))), *(["--ordered"] if dice.random() < 0.4 else [])]
        kill_at = dice.randint(1, 50)
        own.begin()
        own.hold(lambda name, first=kill_at: number_of(name) >= first)  # type: ignore[misc]
        with replica(url) as one, replica(url) as other:
            targets = ("--target", f"{one.target},{other.target}")
            with running("process", *targets, source, "--output", output, *options, cwd=folder) as process:
                own.wait_for(kill_at + 1)
                one.kill()
                own.release()
                _, err = process.communicate(timeout=50)
        assert process.returncode in (0, 3), err
        doubtful = check_each_has_one_result(calls, rows_of(output), own)
        assert (process.returncode == 3) == bool(doubtful), err


def test_a_target_that_is_not_there_costs_a_line(tmp_path: Path, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether nobody listens there or nobody answers; the job is done by the server that is."""
    monkeypatch.setattr(in_servers, "OTHERS", 0.2)
    source = write_lines(tmp_path / "calls.jsonl", mixed(20, ids=False))
    nobody = f"127.0.0.1:{free_port()}"
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        silent = f"127.0.0.1:{deaf.getsockname()[1]}"
        done = run("process", source, "--target", f"{nobody},{silent}", "--target", house.target, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 20
    for target in (nobody, silent):
        assert done.stderr.count(f"{target} is not there") == 1, done.stderr
    assert f"{nobody}, {silent} and {house.target}, pool default" in done.stderr
    assert set(house.upstream.arrived.values()) == {1}


def test_servers_with_different_pools_are_refused(tmp_path: Path, house: House) -> None:
    """Before anything is sent, with what differs."""
    source = write_lines(tmp_path / "calls.jsonl", mixed(5, ids=False))
    with ServedProcess(pool("simulated", limits='{ max = 7, per = "1s" }'), secrets_for(KEYS)) as other:
        done = run(
            "process", source, "--target", house.target, "--target", other.target, "--pool", "simulated", cwd=tmp_path
        )
        also = run("process", source, "--target", f"{house.target},{other.target}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert (
        f"{house.target} and {other.target} don't have the same pool simulated: they differ in limits of the key"
        in done.stderr
    )
    assert (also.returncode, also.stdout) == (2, ""), also.stderr
    assert f"{house.target} has the default pool default, and {other.target} simulated" in also.stderr


def test_targets_none_of_which_is_there_end_as_one(tmp_path: Path) -> None:
    """At once, with a hint that names both."""
    source = write_lines(tmp_path / "calls.jsonl", mixed(5, ids=False))
    one, other = (f"127.0.0.1:{free_port()}" for _ in range(2))
    done = run("process", source, "--target", one, "--target", other, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert f"is a server running at {one} or {other}? --wait SECONDS waits for one" in done.stderr


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (("a:1", "a:1"), "the target a:1 is there twice; name each server once"),
        (("a:1", ""), "the target '' has no port"),
        ([f"a:{port}" for port in range(1, 102)], "there can be at most 100 targets"),
    ],
)
def test_targets_that_cannot_be_are_refused(tmp_path: Path, targets: list[str], words: str) -> None:
    """As usage, before the file is read."""
    done = run("process", "nowhere.jsonl", *(part for one in targets for part in ("--target", one)), cwd=tmp_path)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_a_name_without_an_address_is_told(tmp_path: Path) -> None:
    """As a server that isn't there."""
    source = write_lines(tmp_path / "calls.jsonl", mixed(5, ids=False))
    done = run("process", source, "--target", "dns:///nowhere.invalid:50051", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert "the name nowhere.invalid has no address" in done.stderr
