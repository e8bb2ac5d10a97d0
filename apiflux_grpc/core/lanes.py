"""The calls of one batch, by path class.

Rule: a call waits for its own class only. Within a class calls go in the order in which their caller gave them, due
retries first; between the classes of a batch the earliest call that can be paid for goes next. The class of each call
is one byte in a row, so the next of a class is found by a search of bytes, and nothing is kept per waiting call.

Only pools whose limits have paths make lanes: everywhere else a batch is queued itself.

Owner: the scheduler.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias, Union

if TYPE_CHECKING:
    from apiflux_grpc.core.batch import Again, Batch

# What is queued: a batch, or in a pool with path classes a lane of one.
Turn: TypeAlias = Union["Batch", "Lane"]

NONE: Final = 1 << 62  # the place of a call that there isn't
_KEPT: Final = 1 << 16  # marks that are behind every lane are let go of in such pieces


class Marks:
    """The path class of each call of a batch, by place. What all lanes have passed is forgotten."""

    __slots__ = ("_behind", "_marks")

    def __init__(self, marks: bytes) -> None:
        self._marks = bytearray(marks)
        self._behind = 0  # places that were forgotten

    def find(self, number: int, start: int) -> int:
        """The first place from `start` on whose call is of this class; NONE: there is none."""
        at = self._marks.find(number, max(0, start - self._behind))
        return NONE if at < 0 else at + self._behind

    def count(self, number: int, start: int) -> int:
        """How many calls from this place on are of this class."""
        return self._marks.count(number, max(0, start - self._behind))

    def append(self, marks: bytes) -> None:
        """The marks of the calls that were fed next."""
        self._marks += marks

    def forget(self, before: int) -> None:
        """No place before this one will be asked for."""
        if before - self._behind >= _KEPT:
            del self._marks[: before - self._behind]
            self._behind = before

    @property
    def end(self) -> int:
        """The place of the call that is fed next."""
        return self._behind + len(self._marks)

    def __repr__(self) -> str:
        return f"<Marks of {self._behind} to {self.end}>"


class Lane:
    """The calls of one class of one batch. In the fair queue it is what a batch is in a pool without classes."""

    __slots__ = ("again", "batch", "marks", "next", "number", "parked", "queued", "waiting")

    def __init__(self, batch: Batch, number: int, marks: Marks) -> None:
        self.batch = batch
        self.number = number
        self.marks = marks
        self.next = marks.find(number, 0)  # the place of its next first attempt
        self.again: deque[Again] = deque()  # retries that are due
        self.waiting = marks.count(number, 0)  # calls of it without a permit and without a result, retries included
        # The fair queue's:
        self.queued = False
        self.parked = False

    @property
    def has_work(self) -> bool:
        """Whether it has something to assign: a due retry, or a first attempt and room for its result."""
        batch = self.batch
        if self.again:
            return True
        return self.next != NONE and batch.started < batch.reach and batch.is_before_edge(self.next)

    @property
    def next_place(self) -> int:
        """The place of the call whose turn is next."""
        return self.again[0].place if self.again else self.next

    @property
    def next_cost(self) -> int:
        """What that call costs."""
        costs = self.batch.costs
        return 1 if costs is None else costs[self.next_place]

    @property
    def next_path(self) -> str:
        """That call's path."""
        return self.batch.call_at(self.next_place).path

    def start(self) -> int:
        """Its next first attempt is made. Returns the place of that call."""
        place = self.next
        self.next = self.marks.find(self.number, place + 1)
        self.waiting -= 1
        self.batch.started += 1
        return place

    def grown(self, first: int) -> None:
        """The batch has got more calls, from this place on."""
        self.waiting += self.marks.count(self.number, first)
        if self.next == NONE:
            self.next = self.marks.find(self.number, first)

    def drop(self) -> list[int]:
        """Nothing more of it is to be assigned. Returns the places that were never attempted."""
        self.again.clear()
        self.waiting = 0
        places = []
        while self.next != NONE:
            places.append(self.next)
            self.next = self.marks.find(self.number, self.next + 1)
        return places

    def __repr__(self) -> str:
        return f"<Lane {self.number} of {self.batch!r}>"
