"""What the hostile server is told to do, step by step, and what it read of a request.

Rule: a step is bytes to send, seconds to wait, or a Do; there is nothing between a step and the kernel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

TOKEN: Final = re.compile(rb"n=(\d{6})")  # a call's number, in its query


class Do(Enum):
    """What a script does besides sending bytes and waiting."""

    ECHO = "answer 200 with the call's number"
    WHOLE = "wait until the request has come whole"
    TAKEN = "wait until the client has taken in what was sent"
    GATE = "wait until the test opens the gate"
    HANG = "do nothing until the client ends the connection"
    DEAF = "read nothing any more"
    FIN = "end the sending side, in TLS with its goodbye"
    CUT = "end the sending side, in TLS without its goodbye"
    CLOSE = "close the socket in order"
    RST = "end the connection by RST"


ECHO, WHOLE, TAKEN, GATE, HANG, DEAF = Do.ECHO, Do.WHOLE, Do.TAKEN, Do.GATE, Do.HANG, Do.DEAF
FIN, CUT, CLOSE, RST = Do.FIN, Do.CUT, Do.CLOSE, Do.RST

Step = bytes | float | Do  # bytes are sent; a number waits for so many seconds


@dataclass(slots=True)
class Request:
    """A request of which at least the head has come; `at` is the instant of its first byte."""

    at: int
    head: bytes
    length: int
    body: bytearray = field(default_factory=bytearray)

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def path(self) -> str:
        return self.target.split("?", 1)[0]

    @property
    def number(self) -> str:
        found = TOKEN.search(self.head)
        return found[1].decode() if found else ""

    @property
    def whole(self) -> bool:
        return len(self.body) >= self.length


def length_of(head: bytes) -> int:
    found = re.search(rb"\r\nContent-Length: *(\d+)\r\n", head, re.IGNORECASE)
    assert b"\r\ntransfer-encoding" not in head.lower(), "chunked requests aren't understood here"
    return int(found[1]) if found else 0
