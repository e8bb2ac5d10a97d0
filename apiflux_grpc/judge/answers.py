"""The answers of one connection: when they leave, and how the connection ends.

The rule: answers leave in the order of the requests, however long each one takes. Behind an answer that hangs, all
others wait until the client goes. A client that reads too little, or asks for too much at once, isn't read any further.

It owns the connection's writing side; it deliberately doesn't know requests, keys or limits.
"""

import asyncio
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import Final

from apiflux_grpc.judge.judge import Judge
from apiflux_grpc.judge.wire import Course

PIPELINE_CAP: Final = 1000  # answers waiting on one connection; then it isn't read until some are written
LINGER: Final = 1.0  # seconds that a refused client has to read why, before it is cut off
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


class Answers:
    """What waits to be written on `transport`, counted in the judge's `in_flight`.

    `closing`: the last answer is decided, so no further request is read.
    """

    __slots__ = (
        "_choked", "_course", "_due", "_ended", "_judge", "_ready", "_timer", "_transport", "_waiting", "closing",
    )  # fmt: skip

    def __init__(self, judge: Judge, transport: asyncio.Transport) -> None:
        self._judge = judge
        self._transport = transport
        self._ready: list[bytes] = []  # to be written when the chunk is parsed
        self._waiting: deque[bytes | Course] = deque()  # to be written one per timer
        self._due = 0  # timers that found a course under way
        self._course: Course | None = None  # the one under way
        self._timer: asyncio.TimerHandle | None = None  # of its next piece
        self._choked = False  # the transport's buffer is full
        self._ended = False  # the client has sent its end
        self.closing = False

    def send(self, answer: bytes | Course, latency: float, *, last: bool) -> None:
        """Behind all answers before it, `latency` seconds from now; without latency at the next `flush`."""
        if last:
            self.closing = True
        if latency or self._waiting or self._course or isinstance(answer, Course):
            # Every timer writes the oldest answer, not its own: that keeps the order.
            self._waiting.append(answer)
            judge = self._judge
            judge.in_flight += 1
            judge.most_in_flight = max(judge.most_in_flight, judge.in_flight)
            asyncio.get_running_loop().call_later(latency, self._answer_oldest)
        else:
            self._ready.append(answer)

    def flush(self) -> None:
        """Write what is ready; in one piece, for a chunk may have held many requests."""
        if self._ready:
            if not self._transport.is_closing():  # a request of the backlog may be parsed when its client is gone
                self._transport.write(b"".join(self._ready))
            self._ready.clear()
            if self.closing and not self._waiting and self._course is None:
                self._finish()
        if self._waiting or self._choked:
            self._throttle()

    def client_ended(self) -> bool:
        """The client sent its end. Returns whether answers are still due; a hung call isn't."""
        self._ended = self.closing = True
        if self._course is None:
            return bool(self._waiting)
        return self._course.end != "hang"

    def lost(self) -> None:
        """The connection is gone: nothing is in flight on it, and nothing more is written."""
        self._judge.in_flight -= len(self._waiting) + (self._course is not None)
        self._waiting.clear()
        self._course = None
        if self._timer is not None:
            self._timer.cancel()
        self.closing = True

    def choke(self) -> None:
        """The transport's buffer is full."""
        self._choked = True
        self._throttle()

    def unchoke(self) -> None:
        """There is room in it again."""
        self._choked = False
        self._throttle()
        if self._course and self._timer is None:
            self._go_on()

    def _answer_oldest(self) -> None:
        self._due += 1
        self._answer_due()

    def _answer_due(self) -> None:
        # A timer that finds a course under way leaves its turn in _due; after the end of the course this runs again.
        while self._due and self._waiting and self._course is None:
            self._due -= 1
            answer = self._waiting.popleft()
            if isinstance(answer, bytes):
                self._judge.in_flight -= 1
                self._ready.append(answer)
            else:
                self._course = answer
                if answer.begin:
                    self._ready.append(answer.begin)
                self._timer = asyncio.get_running_loop().call_later(answer.every, self._go_on)
        self.flush()

    def _go_on(self) -> None:
        """One step of the course under way; if the client doesn't read, `unchoke` takes it."""
        self._timer = None
        if self._course is None or self._choked:
            return
        piece = next(self._course.rest, None)
        if piece is None:
            self._end(self._course)
        else:
            self._timer = asyncio.get_running_loop().call_later(self._course.every, self._go_on)
            self._transport.write(piece)

    def _end(self, course: Course) -> None:
        if course.end == "hang":
            if self._ended:
                self._transport.abort()
            return
        self._course = None
        self._judge.in_flight -= 1
        if course.end == "reset":
            wire = self._transport.get_extra_info("socket")
            if wire is not None:
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._transport.abort()
        elif self.closing and not self._waiting:
            self._finish()
        else:
            self._answer_due()

    def _finish(self) -> None:
        """Half-close: closing at once, with input unread, makes the kernel send RST, which discards the answer."""
        asyncio.get_running_loop().call_later(LINGER, self._transport.abort)
        if self._transport.can_write_eof():
            with suppress(OSError):  # the client has sent its end before, and is gone now
                self._transport.write_eof()

    def _throttle(self) -> None:
        if self._transport.is_closing():
            return
        if self._course and self._course.end == "hang" and len(self._waiting) >= PIPELINE_CAP:
            self._transport.abort()  # a connection that isn't read never tells that its client is gone
            return
        if self._choked or len(self._waiting) >= PIPELINE_CAP:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
