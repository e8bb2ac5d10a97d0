"""A worker: a server as without workers, that shares its port and tells the supervisor how it is.

Rule: it beats while its engine answers, and only then: on a port that many share no other probe reaches each of them.
It ends with its supervisor, at once, however that ended and whatever this process does: its calls in flight stay
charged. A worker that went on would keep the port from the next supervisor.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from apiflux_grpc.workers import words

if TYPE_CHECKING:
    from apiflux_grpc.server.lifecycle import Server


def main() -> int:
    """Serve until SIGTERM, and return the exit code."""
    _die_with_parent()
    connection = socket.socket(fileno=0)
    try:
        task = words.take(connection)
    except EOFError:
        return 1
    threading.Thread(target=_end_with, args=(connection,), name="apiflux-supervisor", daemon=True).start()
    from apiflux_grpc import logs

    logs.configure(task.log_level, task.log_format, alone=True, worker=task.number)
    from apiflux_grpc import bootstrap

    try:
        return bootstrap.serve(
            task.settings, bootstrap.Place(task.number, task.of), serves=lambda server: serves(connection, server)
        )
    except tuple(bootstrap.CANT_START) as error:
        fault = words.Fault(bootstrap.CANT_START[type(error)], str(error))
        words.tell_fault(connection, fault)
        return fault.code


def serves(connection: socket.socket, server: Server) -> None:
    """It serves; and from now on it beats, on the running loop."""
    words.tell(connection, words.SERVES)
    asyncio.get_running_loop().call_later(words.BEAT_EVERY, _beat, connection, server)


def _beat(connection: socket.socket, server: Server) -> None:
    if server.engine.healthy:
        words.tell(connection, words.BEAT)
    asyncio.get_running_loop().call_later(words.BEAT_EVERY, _beat, connection, server)


def _end_with(connection: socket.socket) -> None:
    """In a thread, for the loop may hang."""
    with suppress(OSError):  # it is reset if the supervisor ended before it had heard all
        connection.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


def _die_with_parent() -> None:
    """The kernel sees to it too, where it can: a process that is stopped reads nothing, but it can be killed."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    sys.exit(main())
