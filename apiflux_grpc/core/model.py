"""The nouns: what is configured (Pool, Key, Limit), what is asked (Call, Batch), what comes of it (Outcome, Result).

Rule: one noun per concept, here and everywhere. Times are integer nanoseconds of one monotonic clock, lengths of
time too. A secret never shows in a repr. Configuration and outcomes are frozen; Batch and Permit are changed by
the scheduler that owns them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apiflux_grpc.core.budget import Flight
    from apiflux_grpc.core.scheduler import KeyState, Share

MICROSECOND: Final = 1_000
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000


class Counts(Enum):
    """What a limit counts."""

    CALLS = "calls"
    COST = "cost"


class Kind(Enum):
    """How a limit is meant by the upstream."""

    WINDOW = "window"  # at most max in any window of length per
    BUCKET = "bucket"  # a token bucket of depth burst, refilled at max / per


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `max` per `per` (ns). `burst`: the most at once; None: `max`."""

    max: int
    per: int
    counts: Counts = Counts.CALLS
    kind: Kind = Kind.WINDOW
    burst: int | None = None

    @property
    def depth(self) -> int:
        """The most at once."""
        return self.max if self.burst is None else self.burst


@dataclass(frozen=True, slots=True)
class Key:
    """One API credential. Everything outside adapters knows it by its label alone."""

    label: str
    secret: str = field(repr=False)
    limits: tuple[Limit, ...]
    max_in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class HeaderKey:
    """The key goes into the request header `name`, after `prefix`."""

    name: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class QueryKey:
    """The key goes into the query parameter `name`."""

    name: str


X_API_KEY: Final = HeaderKey("X-API-Key")  # unless a pool says otherwise


@dataclass(frozen=True, slots=True)
class Group:
    """Limits that several keys share, for instance those of one organisation. `keys` are labels."""

    keys: tuple[str, ...]
    limits: tuple[Limit, ...]


class Reason(Enum):
    """Why an attempt failed; the words that users see in ErrorInfo.reason and in the summary."""

    NOT_SENT = "NOT_SENT"  # certainly not executed
    TIMEOUT = "TIMEOUT"  # no whole answer in time; may have been executed
    UNKNOWN = "UNKNOWN"  # the connection ended before an answer; may have been executed
    BODY_CUT = "BODY_CUT"  # an answer began and was cut
    HTTP_1XX = "HTTP_1XX"
    HTTP_2XX = "HTTP_2XX"  # only where the pool counts a 2xx as no success
    HTTP_3XX = "HTTP_3XX"
    HTTP_4XX = "HTTP_4XX"
    HTTP_429 = "HTTP_429"
    HTTP_5XX = "HTTP_5XX"
    KEY_REJECTED = "KEY_REJECTED"  # 401 or 403: our key was refused, or this call was
    INVALID_CALL = "INVALID_CALL"  # never sent: of a stream of calls, this one is wrong
    DRAINING = "DRAINING"  # never sent, or not again: the server shut down
    STOPPED = "STOPPED"  # never sent, or not again: the caller stopped
    NO_USABLE_KEY = "NO_USABLE_KEY"  # never sent, or not again: for too long no key could be used
    INTERNAL = "INTERNAL"  # a fault of ours


RETRY_REASONS: Final = frozenset(
    {
        Reason.NOT_SENT,
        Reason.HTTP_429,
        Reason.KEY_REJECTED,
        Reason.UNKNOWN,
        Reason.TIMEOUT,
        Reason.HTTP_5XX,
        Reason.BODY_CUT,
    }
)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is made again. Backoffs are ns."""

    max_attempts: int = 3
    initial_backoff: int = 200 * MILLISECOND
    max_backoff: int = 10 * SECOND
    reasons: frozenset[Reason] = RETRY_REASONS


@dataclass(frozen=True, slots=True)
class Pool:
    """The keys of one upstream, and what holds for all of them."""

    name: str
    keys: tuple[Key, ...]
    arrival_jitter: int = 250 * MILLISECOND
    timeout: int = 30 * SECOND
    retry: RetryPolicy = RetryPolicy()
    max_connections: int = 1000
    # How long calls wait for a key while none can be used, before they fail.
    patience: int = 60 * SECOND
    # Where an answer tells what it really cost: a header's name, or the path to a JSON field.
    cost_header: str | None = None
    cost_json: tuple[str, ...] | None = None
    allow_repeat: bool = False
    # Inclusive ranges of HTTP status codes.
    success: tuple[tuple[int, int], ...] = ((200, 299),)
    # Path prefixes that calls may use; empty: all.
    allow_paths: tuple[str, ...] = ()
    # Where the upstream expects the key; a call may not set that header or parameter itself.
    key_in: HeaderKey | QueryKey = X_API_KEY
    # For GetInfo: "simulated" or "http", and where calls go.
    upstream: str = "simulated"
    base_url: str = ""
    groups: tuple[Group, ...] = ()  # a key is in at most one

    def is_success(self, status: int) -> bool:
        return any(low <= status <= high for low, high in self.success)


# Set by the sender, or of the connection: neither a call nor a setting may set them.
SENDER_HEADERS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


@dataclass(frozen=True, slots=True)
class Call:
    """One outbound request. `timeout` is ns; None: the pool's."""

    method: str = "GET"
    path: str = "/"
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    timeout: int | None = None
    idempotent: bool = True
    id: str = ""


# -- outcomes ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole, valid head came. `fault` says if the body didn't; `answered_at` is when the status came."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    answered_at: int
    truncated: bool = False
    fault: Reason | None = None


@dataclass(frozen=True, slots=True)
class NotSent:
    """Not one byte reached the kernel: certainly not executed."""

    detail: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Bytes may have gone out and no answer came: it may have been executed."""

    detail: str
    reason: Reason = Reason.UNKNOWN


Outcome = Answer | NotSent | Unknown

# What kept an attempt from being sent on our side. It says nothing of the upstream.
LATE: Final = NotSent("late")  # past its `send_by`
OUT_OF_TIME: Final = NotSent("not sent in time")
CANCELLED: Final = NotSent("cancelled")
CLOSED: Final = NotSent("the upstream is closed")
OURS: Final = frozenset({LATE, OUT_OF_TIME, CANCELLED, CLOSED})
NO_CONNECTION: Final = NotSent("no connection in time")  # and this does


@dataclass(slots=True)
class Result:
    """The final word on a call.

    `outcome` None means that the call ended while it waited, and `never_ran` that no earlier attempt can have been
    executed either. `key` is the label of the last attempt's key or "". `queue_time` and `latency` are ns; `ended_at`
    is on the engine's clock. `failure` is None for a success.
    """

    index: int
    outcome: Outcome | None
    failure: Reason | None
    key: str
    attempts: int
    queue_time: int
    latency: int
    ended_at: int
    detail: str = ""  # what is wrong with an INVALID_CALL
    never_ran: bool = False

    @property
    def size(self) -> int:
        """Bytes this result is counted as: body, headers and an allowance for the rest."""
        outcome = self.outcome
        if not isinstance(outcome, Answer):
            return 256
        return 256 + len(outcome.body) + 32 * len(outcome.headers)


# -- work ----------------------------------------------------------------------------------------


class Permit:
    """The right to make one call with one key now. Made by the scheduler alone, charged before it is handed out."""

    __slots__ = (
        "batch",
        "cost",
        "flight",
        "index",
        "key",
        "key_era",
        "number",
        "pool_era",
        "queue_time",
        "share",
        "taken_at",
    )

    def __init__(
        self, key: KeyState, batch: Batch, index: int, number: int, cost: int, taken_at: int, queue_time: int
    ) -> None:
        self.key = key
        self.batch = batch
        self.index = index
        self.number = number  # 1 for the first attempt
        self.cost = cost
        self.taken_at = taken_at
        self.queue_time = queue_time
        self.flight: Flight | None = None  # set when it was sent
        self.key_era = 0  # of the key's breaker, and of the pool's
        self.pool_era = 0
        self.share: Share | None = None  # what it takes of its key's group

    def __repr__(self) -> str:
        return f"<Permit {self.key.key.label} call {self.index} attempt {self.number} of {self.batch!r}>"


@dataclass(slots=True)
class Again:
    """A call that waits to be attempted again; with another key than `avoid`, if there is one."""

    index: int
    number: int
    queue_time: int
    avoid: KeyState | None = None


class Costs(Protocol):
    """What each call of a batch costs, by its place."""

    def __getitem__(self, place: int, /) -> int: ...


class Batch:
    """The calls of one Process request, as the scheduler sees them.

    `costs` is None where every call costs 1. `room` is how many first attempts may still be assigned before the
    reader has taken results; its outbox keeps it up to date. Calls are known by index only: the request message
    stays packed until a call's turn comes.
    """

    __slots__ = (
        "admitted_at",
        "again",
        "caller",
        "costs",
        "done",
        "finish",
        "id",
        "in_flight",
        "next_index",
        "owed",
        "parked",
        "queued",
        "retrying",
        "room",
        "since",
        "total",
        "weight",
    )

    def __init__(
        self,
        id: int,
        caller: str,
        total: int,
        *,
        admitted_at: int,
        weight: float = 1.0,
        costs: Costs | None = None,
        room: int = 1 << 60,
    ) -> None:
        self.id = id
        self.caller = caller
        self.total = total
        self.admitted_at = admitted_at
        self.weight = weight
        self.costs = costs
        self.since: Costs | None = None  # when each call came, where that is not when the batch did
        self.room = room
        self.next_index = 0
        self.in_flight = 0
        self.done = 0
        self.again: deque[Again] = deque()  # retries that are due
        self.retrying = 0  # retries that are not due yet
        # Written by the fair queue alone:
        self.queued = False
        self.parked = False  # left out of the turns for now
        self.finish = 0.0
        self.owed = 0.0  # size that it took beyond what it was charged

    @property
    def next_cost(self) -> int:
        """What the call whose turn is next costs: a retry that is due, else the next first attempt."""
        if self.costs is None:
            return 1
        return self.costs[self.again[0].index if self.again else self.next_index]

    @property
    def waiting(self) -> int:
        """Calls without a permit and without a result, retries included."""
        return self.total - self.next_index + len(self.again) + self.retrying

    def __repr__(self) -> str:
        return f"<Batch {self.id} of {self.caller}: {self.done}/{self.total} done, {self.in_flight} in flight>"


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
