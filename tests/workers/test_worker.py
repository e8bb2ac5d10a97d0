"""A real worker, with a test in the supervisor's place."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import grpc
import pytest

from apiflux_grpc.server.lifecycle import Server
from apiflux_grpc.settings import Settings, load
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc
from apiflux_grpc.workers import words
from apiflux_grpc.workers.__main__ import serves
from apiflux_grpc.workers.port import Port
from apiflux_grpc.workers.supervisor import COMMAND

NUMBER = 7


@contextmanager
def worker(settings: Settings, log: int | None = None) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """The process, and the supervisor's end. `log` is where it writes its log, all of it, as JSON."""
    ours, theirs = socket.socketpair()
    with closing(ours):
        with closing(theirs):
            process = subprocess.Popen([*COMMAND, str(NUMBER)], stdin=theirs.fileno(), stderr=log)
        try:
            how = ("warning", "console") if log is None else ("debug", "json")
            words.give(ours, words.Task(NUMBER, 9, settings, *how))
            ours.settimeout(None)
            yield process, ours
        finally:
            process.kill()
            process.wait()


def test_it_serves_beats_and_ends_with_its_supervisor(tmp_path: Path) -> None:
    """Though nobody signals it: the end of the stream is enough, also of one that didn't hear all. GetInfo and each
    line of its log tell its number."""
    with (
        Port("127.0.0.1", 0) as port,
        (tmp_path / "log").open("w+") as log,
        worker(replace(load(None, environ={}), port=port.number), log.fileno()) as (process, connection),
    ):
        assert words.read(connection.recv(100).decode().strip()) == words.SERVES
        with grpc.insecure_channel(f"127.0.0.1:{port.number}") as channel:
            info = apiflux_pb2_grpc.FluxServiceStub(channel).GetInfo(pb.GetInfoRequest())
        assert (info.worker, info.workers) == (NUMBER, 9)
        assert words.read(connection.recv(100, socket.MSG_PEEK).decode().strip()) == words.BEAT
        connection.close()
        assert process.wait() == -signal.SIGKILL
        log.seek(0)
        lines = [json.loads(line) for line in log]
    assert {line["worker"] for line in lines} == {NUMBER}


def test_a_task_that_is_cut_short_is_none() -> None:
    """The supervisor ended while it told it."""
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        words.give(ours, words.Task(NUMBER, 9, load(None, environ={}), "warning", "console"))
        told = theirs.recv(1 << 20)
    for length in (0, 3, 8, len(told) - 1):
        ours, theirs = socket.socketpair()
        with closing(theirs):
            with closing(ours):
                ours.sendall(told[:length])
            with pytest.raises(EOFError):
                words.take(theirs)


@pytest.mark.looptime
async def test_it_beats_while_its_engine_answers() -> None:
    """A process whose engine is stuck is no better than one that is gone."""
    ours, theirs = socket.socketpair()
    engine = SimpleNamespace(healthy=True)
    with closing(ours), closing(theirs):
        serves(theirs, cast("Server", SimpleNamespace(engine=engine)))
        await asyncio.sleep(2.5)
        assert ours.recv(1000).split() == [b"serves", b"beat", b"beat"]
        engine.healthy = False
        await asyncio.sleep(10)
        engine.healthy = True
        await asyncio.sleep(1)
        assert ours.recv(1000).split() == [b"beat"]


def test_it_says_why_it_cannot_serve() -> None:
    """To its supervisor alone, with the exit code that it ends with."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with worker(replace(load(None, environ={}), port=port)) as (process, connection):
            with connection.makefile("r", encoding="utf-8") as heard:
                fault = words.read(heard.readline().strip())
            assert process.wait() == 2
    assert fault == words.Fault(2, f"can't listen on 127.0.0.1:{port}; is another program using it?")
