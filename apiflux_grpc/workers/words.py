"""What the supervisor and a worker say to each other, over one socket that is the worker's standard input.

Rule: the supervisor says one thing, the Task, and then nothing: the end of the stream is its own end. A worker says
lines; one that can't be sent is dropped, since only a supervisor that stands still doesn't take it.
"""

from __future__ import annotations

import pickle
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from apiflux_grpc.settings import Settings

SERVES: Final = "serves"
BEAT: Final = "beat"
_FAILED: Final = "failed"
# Seconds. Ten of them may be lost, or late, before a worker is killed.
BEAT_EVERY: Final = 1.0
# Seconds in which a worker takes its Task. It may be longer than the socket holds, and the supervisor waits.
PATIENCE: Final = 5.0
_LENGTH: Final = 8  # bytes that say how long a Task is


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is to do. It has secrets in it: it goes through a socket and is nowhere else."""

    number: int
    of: int
    settings: Settings  # with the port that the supervisor holds
    log_level: str
    log_format: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a worker can't start: the exit code and the line of a server without workers."""

    code: int
    text: str


def give(connection: socket.socket, task: Task) -> None:
    """To the worker. Raises OSError: it doesn't take it."""
    connection.settimeout(PATIENCE)
    text = pickle.dumps(task)
    connection.sendall(len(text).to_bytes(_LENGTH) + text)


def take(connection: socket.socket) -> Task:
    """From the supervisor. Raises EOFError: it is gone."""
    with connection.makefile("rb") as file:
        length = int.from_bytes(file.read(_LENGTH))
        text = file.read(length)  # all of it first: what it names takes long to import, and the supervisor waits
    if not text or len(text) < length:
        raise EOFError
    task = pickle.loads(text)
    assert isinstance(task, Task)
    return task


def tell(connection: socket.socket, word: str) -> None:
    """SERVES or BEAT, to the supervisor. Never waits."""
    with suppress(OSError):
        connection.send(f"{word}\n".encode(), socket.MSG_DONTWAIT)


def tell_fault(connection: socket.socket, fault: Fault) -> None:
    """To the supervisor."""
    tell(connection, f"{_FAILED} {fault.code} {' '.join(fault.text.split())}")


def read(line: str) -> str | Fault:
    """SERVES, BEAT or a Fault."""
    word, _, rest = line.partition(" ")
    if word != _FAILED:
        return word
    code, _, text = rest.partition(" ")
    return Fault(int(code), text)
