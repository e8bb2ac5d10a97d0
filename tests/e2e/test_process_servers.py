"""`apiflux process` and servers that die, drain, come later or never: what a run survives, and what it says."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from apiflux_grpc.testing.served import ServedProcess, secrets_for
from tests.client.scripted import free_port
from tests.e2e.commands import indexes, read_until, rows_in, rows_of, run, running, wait_for_rows, write_lines
from tests.e2e.house import KEYS, House, Upstream, pool, upstream_served
from tests.e2e.test_process_files import NOBODY, mixed
from tests.e2e.test_process_stop import number_of, posts


def served(url: str, port: int) -> ServedProcess:
    """A server of pool `default` on this port."""
    return ServedProcess(pool("default", url), secrets_for(KEYS), port=port)


def wait_until_it_drains(port: int) -> None:
    """Until the server's health says so."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its stub file names no methods
        for answer in stub.Watch(health_pb2.HealthCheckRequest()):
            if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                return


@pytest.fixture
def upstream() -> Iterator[tuple[Upstream, str]]:
    with upstream_served() as served:
        yield served


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_outlives_its_server(tmp_path: Path, upstream: tuple[Upstream, str], signum: signal.Signals) -> None:
    """A killed server costs the POSTs that were handed over; one that drains costs none. Nothing else is lost. One line
    says that it goes, and one that it is back.
    """
    calls = mixed(100, ids=False)
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    own, url = upstream
    own.hold(lambda name: number_of(name) >= 40)
    port = free_port()
    arguments = ("process", "--target", f"127.0.0.1:{port}", source, "--output", output, "--window", "20")
    with served(url, port) as server, running(*arguments, cwd=tmp_path) as process:
        wait_for_rows(output, 40)
        own.wait_for(60)
        if signum == signal.SIGKILL:
            server.kill()
        else:
            os.kill(server.pid, signum)
            wait_until_it_drains(port)
        own.release()
        server.terminate()
        with served(url, port):
            _, err = process.communicate(timeout=50)
    rows = rows_of(output)
    assert indexes(rows) == list(range(100))
    goes = "is shutting down" if signum == signal.SIGTERM else "is gone"
    assert f"the server {goes}; waiting for it to come back\nthe server is back after " in err
    doubtful = [row["index"] for row in rows if "error" in row]
    in_flight = range(40, 60)
    if signum == signal.SIGTERM:
        assert (doubtful, process.returncode) == ([], 0), err
        assert set(own.arrived.values()) == {1}
    else:
        assert doubtful == [index for index in in_flight if calls[index]["method"] == "POST"]
        assert process.returncode == 3, err
        assert own.arrived == {
            f"{call['method']} {call['path']}": 1 + (index in in_flight and call["method"] == "GET")
            for index, call in enumerate(calls)
        }


def test_what_a_drained_server_never_sent_is_not_in_doubt(tmp_path: Path, upstream: tuple[Upstream, str]) -> None:
    """Interrupted while the server is away, the next run sends every call that has no result: all are POSTs."""
    source, output = write_lines(tmp_path / "calls.jsonl", posts(100)), tmp_path / "out.jsonl"
    own, url = upstream
    own.hold(lambda name: number_of(name) >= 20)
    port = free_port()
    arguments = ("process", "--target", f"127.0.0.1:{port}", source, "--output", output, "--window", "40")
    with served(url, port) as server, running(*arguments, cwd=tmp_path) as process:
        own.wait_for(60)
        os.kill(server.pid, signal.SIGTERM)
        wait_until_it_drains(port)
        own.release()
        server.terminate()
        wait_for_rows(output, 60)  # what was executed is known: this test is of the rest
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)  # at whatever moment: of the run, or of the interpreter's end
        _, err = process.communicate(timeout=50)
    assert process.returncode == 4, err
    assert 60 <= len(rows_of(output)) < 100
    with served(url, port):
        done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert own.arrived == {f"POST /n/{number}": 1 for number in range(100)}
    assert indexes(rows_of(output)) == list(range(100))


def test_a_job_that_is_done_waits_for_no_server(tmp_path: Path, house: House) -> None:
    """With --wait it ends as without; one that isn't done waits, and its files stay as they are."""
    source, output = write_lines(tmp_path / "calls.jsonl", mixed(3, ids=False)), tmp_path / "out.jsonl"
    arguments = (source, "--output", output)
    assert house.process(*arguments, "--limit", "2", cwd=tmp_path).returncode == 0
    there = output.read_bytes()
    waited = run("process", *arguments, *NOBODY, "--wait", "1", cwd=tmp_path)
    assert (waited.returncode, output.read_bytes()) == (4, there)
    assert "no server answered at 127.0.0.1:1 within 1 s" in waited.stderr
    assert house.process(*arguments, cwd=tmp_path).returncode == 0
    done = run("process", *arguments, *NOBODY, "--wait", "3600", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 calls had their result" in done.stderr


def test_a_server_that_comes_later_is_waited_for(tmp_path: Path, upstream: tuple[Upstream, str]) -> None:
    """With --wait it says so once and goes on when the server is there; everything is sent once."""
    source = write_lines(tmp_path / "calls.jsonl", mixed(20, ids=True))
    own, url = upstream
    port = free_port()
    arguments = ("process", "--target", f"127.0.0.1:{port}", source, "--wait", "50")
    with running(*arguments, cwd=tmp_path) as process:
        read_until(process.stderr, f"waiting up to 50 s for a server at 127.0.0.1:{port}")
        with served(url, port):
            out, err = process.communicate(timeout=55)
    assert process.returncode == 0, err
    assert "waiting up to" not in err
    assert indexes(rows_in(out)) == list(range(20))
    assert set(own.arrived.values()) == {1}
    assert own.arrived.total() == 20


def test_calls_of_a_closed_loop_are_not_told_by_the_next_command(tmp_path: Path) -> None:
    """A test that left a call to its loop's end doesn't put a traceback into the output of a later test's command."""

    async def left(port: int) -> grpc.aio.Channel:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        method: Any = channel.unary_unary("/a/b")  # its type can't be known
        call = method(b"", wait_for_ready=True, timeout=0.3)
        ending = asyncio.ensure_future(call.code())
        await asyncio.sleep(0)
        assert not ending.done()
        return channel

    source = write_lines(tmp_path / "calls.jsonl", mixed(1, ids=False))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        loop = asyncio.new_event_loop()
        channel = loop.run_until_complete(left(port))
        loop.close()
        done = run("process", "--target", f"127.0.0.1:{port}", source, "--wait", "1", cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (4, False), done.stderr
    del channel


def test_a_server_that_never_comes_is_told(tmp_path: Path) -> None:
    """At once, with a hint; with --wait after that time; and Ctrl-C ends the wait. Nothing is left behind."""
    source, output = write_lines(tmp_path / "calls.jsonl", mixed(3, ids=False)), tmp_path / "out.jsonl"
    with socket.socket() as taken:  # bound, and nobody listens there
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        target = f"127.0.0.1:{port}"
        arguments = ("process", "--target", target, source, "--output", output)
        at_once = run(*arguments, cwd=tmp_path)
        assert (at_once.returncode, at_once.stdout) == (4, "")
        assert "UNAVAILABLE" in at_once.stderr
        assert f"is a server running at {target}? --wait SECONDS waits for one" in at_once.stderr
        in_vain = run(*arguments, "--wait", "0.6", cwd=tmp_path)
        assert (in_vain.returncode, in_vain.stdout) == (4, "")
        assert in_vain.stderr.count("waiting up to 0.6 s") == 1
        assert f"no server answered at {target} within 0.6 s" in in_vain.stderr
        with running(*arguments, "--wait", "50", cwd=tmp_path) as process:
            read_until(process.stderr, "waiting up to")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=50)
        assert (process.returncode, err) == (4, "interrupted: nothing was sent\n")
    for done in (at_once, in_vain):
        assert "Traceback" not in done.stderr
        assert "0 of 3 results were written" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["calls.jsonl"]
