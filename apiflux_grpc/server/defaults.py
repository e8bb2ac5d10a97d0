"""What holds for every request, whatever pool it is for; tests make it smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Mode = Literal["test", "production"]

HOST: Final = "127.0.0.1"
PORT: Final = 50051
MOST_CONNECTIONS: Final = 10_000  # of callers, where so many files may be open


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the service tells of itself and applies unless a request says otherwise."""

    mode: Mode = "test"
    repeat_count: int = 50
    max_batch_calls: int = 50_000
    max_batch_bytes: int = 32 << 20
    batch_size: int = 100  # results per message at most
    write_timeout: float = 300.0  # seconds that a reader may leave a message unread
    progress_every: float = 1.0  # seconds
    window: int = 10_000  # calls of one ProcessStream without a result, at most
    worker: int = 0  # which of the workers on one port, from 1; 0: there are none
    workers: int = 1
    held: int = 64 << 20  # bytes of such calls, at most and one slice more
