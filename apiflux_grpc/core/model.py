"""What is configured: pools, their keys and groups, limits, the retry policy.

Rule: frozen, each default stands beside its field. Lengths of time are integer nanoseconds. A secret never shows in a
repr.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.outcome import Reason
from apiflux_grpc.core.units import MILLISECOND, SECOND, format_limit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apiflux_grpc.core.fields import Field
    from apiflux_grpc.core.rules import AnswerRule, CallRule, CostOfCall


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
    """At most `max` per `per` (ns). `burst`: the most at once; None: `max`.

    `paths`: only calls whose decoded path begins with one of these count; empty: all do.
    """

    max: int
    per: int
    counts: Counts = Counts.CALLS
    kind: Kind = Kind.WINDOW
    burst: int | None = None
    paths: tuple[str, ...] = ()

    @property
    def depth(self) -> int:
        """The most at once."""
        return self.max if self.burst is None else self.burst

    def __str__(self) -> str:
        """In words: `1000 calls per 60s`, `10 calls per 1s (a bucket of 20)`, `30 calls per 60s for /search/`."""
        text = format_limit(self.max, self.per, self.counts.value)
        if self.paths:
            text += f" for {', '.join(self.paths)}"
        if self.kind is Kind.BUCKET:
            return f"{text} (a bucket of {self.depth})"
        return text if self.burst is None else f"{text} (bursts of {self.burst})"


@dataclass(frozen=True, slots=True)
class Key:
    """One API credential. Everything outside adapters knows it by its label alone."""

    label: str
    secret: str = field(repr=False)
    limits: tuple[Limit, ...]
    max_in_flight: int | None = None
    budget: str = ""  # the name under which a store has what its limits allow; "": its pool's and its label


@dataclass(frozen=True, slots=True)
class HeaderKey:
    """The key goes into the request header `name`, after `prefix`."""

    name: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class QueryKey:
    """The key goes into the query parameter `name`."""

    name: str


DEFAULT_POOL: Final = "default"
# What holds unless a pool says otherwise:
X_API_KEY: Final = HeaderKey("X-API-Key")
MAX_CONNECTIONS: Final = 1000
BODY_CAP: Final = 1 << 20  # bytes; a result stays far below the 4 MiB that gRPC clients take by default
# Node, uvicorn and Apache close a connection that was idle for 5 s.
IDLE_TIMEOUT: Final = 4 * SECOND


@dataclass(frozen=True, slots=True)
class Group:
    """Limits that several keys share, for instance those of one organisation. `keys` are labels."""

    keys: tuple[str, ...]
    limits: tuple[Limit, ...]


RETRY_REASONS: Final = frozenset(
    {
        Reason.NOT_SENT,
        Reason.LIMITED,
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
    max_connections: int = MAX_CONNECTIONS
    # How long calls wait for a key while none can be used, before they fail.
    patience: int = 60 * SECOND
    # How long one call may wait in all since an upstream first refused it for a limit, or asked it to wait.
    longest_wait: int = 24 * 3600 * SECOND
    cost_from: Field | None = None  # where an answer tells what it really cost
    cost: CostOfCall | None = None  # what a call costs that doesn't say so; None: 1
    is_unmasked: bool = False  # answers may have a key's secret in them
    answers: tuple[AnswerRule, ...] = ()  # the first that matches holds; then HTTP's own meaning
    # Which calls may run twice if they don't say so, beside those of idempotent methods.
    idempotent: tuple[CallRule, ...] = ()
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
    begins_spent: bool = False  # nobody knows what was spent before, so all of it counts as spent


def default_of(pools: Mapping[str, object]) -> str:
    """The pool of a request that names none: the one called `default`, else the only one; "": it must name one."""
    if DEFAULT_POOL in pools:
        return DEFAULT_POOL
    return next(iter(pools)) if len(pools) == 1 else ""
