"""A judge's connection in memory: what a client sends, and the bytes that it gets."""

import asyncio
import json
import struct
from collections.abc import Callable
from typing import Any, Final

from apiflux_grpc.judge.backlog import Step
from apiflux_grpc.judge.connection import Connection
from apiflux_grpc.judge.judge import Judge
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions

SECRET: Final = "canary-0b9e"
BETA: Final = "canary-c7d1"
SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
RST: Final = struct.pack("ii", 1, 0)
OK: Final = (200, b'{"ok":true}')


class Wire(asyncio.Transport):
    """A connection to a judge; the judge's clock is `now`, its date half a second past 10^9."""

    def __init__(self, *limits: Limit, soon: Callable[[Step], object] | None = None, **options: Any) -> None:
        super().__init__()
        self.now = 0
        self.sent = bytearray()
        self.half_closed = self.aborted = self.paused = False
        self.options: list[tuple[int, int, bytes]] = []
        keys = {"alpha": SECRET, "beta": BETA}
        self.judge = Judge(JudgeOptions(keys, limits, **options), lambda: self.now, lambda: 1e9 + 0.5, soon)
        self.connection = Connection(self.judge)
        self.connection.connection_made(self)

    def send(self, data: bytes) -> list[tuple[int, bytes]]:
        """The answers, status and body, that come at once."""
        self.sent.clear()
        self.connection.data_received(data)
        return self.answers()

    async def exchange(self, data: bytes) -> list[tuple[int, bytes]]:
        """The answers that come within 20 ms of virtual time: those of faults are written by timers."""
        self.send(data)
        await asyncio.sleep(0.02)
        return self.answers()

    async def ask(self, method: str, what: str) -> tuple[int, Any]:
        """A control request: its status, and its body from JSON."""
        [(status, body)] = await self.exchange(request(f"/_judge/{what}", method=method))
        return status, json.loads(body)

    def answers(self) -> list[tuple[int, bytes]]:
        """What was sent since the last request, as whole answers."""
        return answers(bytes(self.sent))

    @property
    def faults(self) -> dict[str, int]:
        return self.judge.report().faults

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def setsockopt(self, level: int, name: int, value: bytes) -> None:
        self.options.append((level, name, value))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.aborted
        self.sent += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            self.connection.connection_lost(None)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def answers(data: bytes) -> list[tuple[int, bytes]]:
    """Whole answers, status and body, from their bytes."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split()[0])
        found.append((int(head.split()[1]), data[:size]))
        data = data[size:]
    return found


def request(target: str = "/", *headers: str, fault: str = "", method: str = "GET", key: str = SECRET) -> bytes:
    """A request without a body, with `key` unless it is empty, and asking for `fault` in its last header."""
    key_field = [f"X-API-Key: {key}"] if key else []
    fault_field = [f"X-Judge-Fault: {fault}"] if fault else []
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *key_field, *headers, *fault_field, "", ""]).encode()


def statuses(answers: list[tuple[int, bytes]]) -> list[int]:
    return [status for status, _ in answers]
