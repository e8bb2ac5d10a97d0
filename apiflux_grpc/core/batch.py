"""The calls of one request, from its admission to its last result.

Rule: a call is known by its place, 0 to total - 1: the request message stays packed until the call's turn comes. A
batch that is fed keeps what it was fed by place, and only until the call has its result.

After a batch was made, every field has one writer:

    what was asked   nobody, once it is made
    the scheduler    total, started, in_flight, again, due, retrying, laned
    the fair queue   queued, parked, finish, owed
    the outbox       reach, edge
    the standings    eta, rate, held_by, waits_for
    the dispatcher   the rest
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from apiflux_grpc.core.model import RetryPolicy
from apiflux_grpc.core.outcome import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.call import Call
    from apiflux_grpc.core.held import Held
    from apiflux_grpc.core.outcome import Result

_UNBOUNDED: Final = 1 << 60
_DEFAULT: Final = RetryPolicy()


class Ending(Enum):
    """Why a batch ended."""

    COMPLETE = "complete"
    CANCELLED = "cancelled"
    DRAINING = "draining"
    STOPPED = "stopped"  # the caller had enough: what waited ended as STOPPED
    INFEASIBLE = "infeasible"  # refused before anything was sent: it couldn't finish before its deadline
    GIVEN_UP = "given up"  # no key could be used for too long: what was never sent ended as NO_USABLE_KEY


# How a batch ends whose unsent calls end for this reason, and the other way round.
ENDINGS: Final = {
    Reason.DRAINING: Ending.DRAINING,
    Reason.NO_USABLE_KEY: Ending.GIVEN_UP,
    Reason.STOPPED: Ending.STOPPED,
}
REASONS: Final = {ending: reason for reason, ending in ENDINGS.items()}
CUT_SHORT: Final = frozenset({Reason.DRAINING, Reason.STOPPED})  # counted as cancelled, not as failed


class FedCall(NamedTuple):
    """A call of a batch that is fed: its index as the caller counts (`ordinal`), and what it costs."""

    ordinal: int
    call: Call
    cost: int


@dataclass(slots=True)
class Again:
    """A call that waits to be attempted again, and what it has behind it. Lengths of time are ns.

    `avoid` and `tried` have a bit (1 << its index) for each key: those that are the worse choice for it, and those that
    rejected it, which it is not made with again. `number` counts sends, `charged` the attempts that its policy counts.
    `waited` is how long it has waited until `since` after it was first refused for a limit or told to wait; below 0:
    it never was. `label` is its last key's, `path_class` is the call's.
    """

    place: int
    number: int
    queue_time: int
    avoid: int = 0
    tried: int = 0
    charged: int = 0
    waited: int = -1
    since: int = 0
    label: str = ""
    path_class: int = 0


class Costs(Protocol):
    """What each call of a batch costs, by its place."""

    def __getitem__(self, place: int, /) -> int: ...


@dataclass(slots=True)
class Tally:
    """What became of a batch's calls so far; the summary's figures. Times are ns."""

    total: int
    succeeded: int = 0
    cancelled: int = 0
    retries: int = 0
    time_waiting: int = 0
    time_in_calls: int = 0
    failed: dict[Reason, int] = field(default_factory=dict)
    calls_by_key: dict[str, int] = field(default_factory=dict)

    def attempted(self, key: str, number: int, length: int) -> None:
        """An attempt with this key is over; `length` is ns since its permit."""
        self.calls_by_key[key] = self.calls_by_key.get(key, 0) + 1
        self.time_in_calls += length
        if number > 1:
            self.retries += 1

    def ended(self, result: Result, *, cut_short: bool) -> None:
        """A call has its result; `cut_short`: it ended because its batch did."""
        self.time_waiting += result.queue_time
        if result.failure is None:
            self.succeeded += 1
        elif cut_short:
            self.cancelled += 1
        else:
            self.failed[result.failure] = self.failed.get(result.failure, 0) + 1


class Batch:
    """The calls of one Process request.

    `costs` is None if every call costs 1, `classes` has the path class of each call if its pool has any and they are
    known. First attempts go up to `reach`: for those the reader has room. Where calls of one class may pass those of
    another (lanes.py), only calls whose index is below `edge` may start.
    """

    number: Final = 0  # the path class of its calls, where it is queued itself

    __slots__ = (
        "_came",
        "_fed",
        "admitted_at",
        "again",
        "caller",
        "caller_weight",
        "calls",
        "classes",
        "closed",
        "costs",
        "deadline",
        "done",
        "due",
        "edge",
        "ending",
        "eta",
        "expected",
        "finish",
        "held_by",
        "id",
        "in_flight",
        "laned",
        "late",
        "mean_cost",
        "owed",
        "parked",
        "policy",
        "queued",
        "rate",
        "reach",
        "rejected",
        "retrying",
        "started",
        "tally",
        "total",
        "waits_for",
        "weight",
    )

    def __init__(
        self,
        id: int,
        caller: str,
        total: int,
        *,
        admitted_at: int,
        calls: Sequence[Call] = (),
        costs: Sequence[int] | None = None,
        fed: bool = False,
        expected: int = 0,
        policy: RetryPolicy = _DEFAULT,
        weight: float = 1.0,
        caller_weight: float = 1.0,
        deadline: int | None = None,
        reach: int = _UNBOUNDED,
        classes: bytes | None = None,
    ) -> None:
        self.id = id
        self.caller = caller
        self.admitted_at = admitted_at
        self.calls = calls
        self.policy = policy
        self.weight = weight
        self.caller_weight = caller_weight
        self.deadline = deadline  # ns from admission
        self.classes = classes
        self.expected = expected  # calls that will be fed in all, as far as the caller knows; 0: it doesn't
        self.costs: Costs | None = {} if fed else costs
        self._fed: dict[int, FedCall] | None = {} if fed else None
        self._came: dict[int, int] = {}  # when each call was fed
        # The scheduler's:
        self.total = total
        self.started = 0  # first attempts; without lanes the place of the next one too
        self.in_flight = 0
        self.again: deque[Again] = deque()  # retries that are due, without lanes
        self.laned = False
        self.due = 0  # retries that are due, in lanes
        self.retrying = 0  # retries that are not due yet
        # The fair queue's:
        self.queued = False
        self.parked = False  # left out of the turns for now
        self.finish = 0.0
        self.owed = 0.0  # size that it took beyond what it was charged
        # The outbox's:
        self.reach = reach
        self.edge = _UNBOUNDED
        # The dispatcher's:
        self.done = 0
        self.rejected = 0  # calls that got their result without taking part
        self.late = 0  # attempts that were too late to be sent
        self.closed = not fed  # no more calls come
        self.ending: Ending | None = None  # set once nothing more is assigned
        self.mean_cost = 1.0 if costs is None else sum(costs) / max(1, len(costs))
        self.tally = Tally(total)
        # The standings':
        self.eta: int | None = None  # ns until its last result
        self.rate: float | None = None  # calls a second in the long run
        self.held_by: Sequence[Held] = ()  # why calls of it wait
        self.waits_for: Held | None = None  # the same in the ordinary course

    @property
    def next_cost(self) -> int:
        """What the call whose turn is next costs: a retry that is due, else the next first attempt."""
        if self.costs is None:
            return 1
        return self.costs[self.again[0].place if self.again else self.started]

    @property
    def next_path(self) -> str:
        """That call's path."""
        return self.call_at(self.again[0].place if self.again else self.started).path

    @property
    def has_work(self) -> bool:
        """Whether it has something to assign: a due retry, or a first attempt and room for its result."""
        return bool(self.again) or (self.started < self.reach and self.started < self.total)

    def start(self) -> int:
        """Its next first attempt is made. Returns the place of that call."""
        place = self.started
        self.started = place + 1
        return place

    def is_before_edge(self, place: int) -> bool:
        """Whether the result of this call may come before those of calls that were given earlier."""
        return (place if self._fed is None else self._fed[place].ordinal) < self.edge

    @property
    def waiting(self) -> int:
        """Calls without a permit and without a result, retries included."""
        return self.total - self.started + len(self.again) + self.due + self.retrying

    @property
    def to_come(self) -> int:
        """Calls that are still expected."""
        if self.closed or self.ending is not None:
            return 0
        return max(0, self.expected - self.total - self.rejected)

    @property
    def left(self) -> int:
        """Calls without a permit and without a result, those that are still expected included."""
        return self.waiting + self.to_come

    @property
    def finished(self) -> bool:
        """Every call has its result, or it was cancelled and nothing is in flight any more."""
        if self.ending is Ending.CANCELLED:
            return not self.in_flight
        return self.ending is Ending.INFEASIBLE or (self.closed and self.done == self.total)

    def call_at(self, place: int) -> Call:
        """The call at this place, when its turn has come."""
        return self.calls[place] if self._fed is None else self._fed[place].call

    def came_at(self, place: int) -> int:
        """When the call came: with the batch, or when it was fed."""
        return self.admitted_at if self._fed is None else self._came[place]

    def feed(self, calls: Sequence[FedCall], now: int) -> None:
        """More calls; their places go on from `total`, which the scheduler raises then."""
        assert self._fed is not None
        assert isinstance(self.costs, dict)
        for place, fed in enumerate(calls, self.total):
            self._fed[place] = fed
            self._came[place] = now
            self.costs[place] = fed.cost
            self.mean_cost += (fed.cost - self.mean_cost) / (place + 1)

    def take_off(self, place: int) -> int:
        """Forget the call, which has its result. Returns its index as the caller counts."""
        if self._fed is None:
            return place
        assert isinstance(self.costs, dict)
        del self._came[place], self.costs[place]
        return self._fed.pop(place).ordinal

    def let_go(self) -> None:
        """It is over: let go of the request, which may be of many megabytes."""
        self.calls, self.costs = (), None
        self._fed = None if self._fed is None else {}
        self._came = {}

    def __repr__(self) -> str:
        return f"<Batch {self.id} of {self.caller}: {self.done}/{self.total} done, {self.in_flight} in flight>"
