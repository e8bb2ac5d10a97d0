"""What a server says of itself, and how long a batch would take there. Seconds are floats.

Rule: every message of GetInfo and Estimate has one frozen dataclass here, made by its `of`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from apiflux_grpc.client.errors import ApifluxError
from apiflux_grpc.client.results import Held, seconds
from apiflux_grpc.client.words import word_of
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable


class KeyLimit(NamedTuple):
    """At most `max` per `per` seconds; `counts` is "calls" or "cost". `paths`: only calls whose decoded path begins
    with one of these count; empty: all do."""

    max: int
    per: float
    counts: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a pool. `headroom` is the free share of its tightest window, limits with paths left out; `held_by` is
    what holds it back, but for its limits; `state` is usable, blocked, rejected or paused, "": not known."""

    label: str
    headroom: float
    in_flight: int
    attempts: int
    blocked_for: float
    limits: tuple[KeyLimit, ...]
    held_by: tuple[Held, ...]
    state: str = ""

    @classmethod
    def of(cls, message: pb.KeyInfo) -> Key:
        return cls(
            label=message.label,
            headroom=message.headroom,
            in_flight=message.in_flight,
            attempts=message.attempts,
            blocked_for=seconds(message.blocked_for),
            held_by=tuple(map(Held.of, message.held_by)),
            limits=tuple(map(_limit, message.limits)),
            state=word_of(pb.KeyState.DESCRIPTOR, message.state).lower() if message.state else "",
        )


@dataclass(frozen=True, slots=True)
class BudgetStore:
    """The store through which a pool shares its limits with other servers. `silent_for` (seconds): so long it hasn't
    answered, `error` says why; None: it answers. `sent_late`: calls that went out after their lease had ended."""

    silent_for: float | None
    error: str
    sent_late: int


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool; `drain_time` is seconds until all that waits now is done, None: not known. `held_by` is why calls wait,
    as in Progress; `budget_store` None: it shares its limits with nobody."""

    name: str
    upstream: str
    base_url: str
    keys: tuple[Key, ...]
    waiting: int
    in_flight: int
    drain_time: float | None
    held_by: tuple[Held, ...]
    budget_store: BudgetStore | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a batch would take now (seconds; None: no key can be used), and which limit binds ("": none)."""

    makespan: float | None
    binding_limit: str

    @classmethod
    def of(cls, message: pb.EstimateResponse) -> Estimate:
        makespan = message.makespan.ToNanoseconds() / 1e9 if message.HasField("makespan") else None
        return cls(makespan, message.binding_limit)


def together(answers: Iterable[pb.EstimateResponse | ApifluxError], *, shared: bool) -> Estimate:
    """Of several servers that work at the same batch: of parts of it the slowest, of the whole of it the fastest, which
    would do it alone. Raises ApifluxError if none answered."""
    answers = list(answers)
    estimates = [Estimate.of(answer) for answer in answers if not isinstance(answer, ApifluxError)]
    if not estimates:
        raise next(answer for answer in answers if isinstance(answer, ApifluxError))
    one_of = min if shared else max
    return one_of(estimates, key=lambda one: math.inf if one.makespan is None else one.makespan)


@dataclass(frozen=True, slots=True)
class Info:
    """What the server is. `default_pool` is the pool of requests that name none; "": they have to name one.

    `worker` is which of its `workers` answered, from 1, and what is told of batches, calls and keys is how it stands
    there; 0: it has none.
    """

    mode: str
    version: str
    pools: tuple[Pool, ...]
    default_pool: str
    default_repeat_count: int
    max_batch_calls: int
    max_batch_bytes: int
    open_batches: int
    open_calls: int
    worker: int
    workers: int

    @classmethod
    def of(cls, message: pb.GetInfoResponse) -> Info:
        return cls(
            mode=word_of(pb.Mode.DESCRIPTOR, message.mode).lower(),
            version=message.version,
            pools=tuple(_pool(pool) for pool in message.pools),
            default_pool=message.default_pool,
            default_repeat_count=message.default_repeat_count,
            max_batch_calls=message.max_batch_calls,
            max_batch_bytes=message.max_batch_bytes,
            open_batches=message.open_batches,
            open_calls=message.open_calls,
            worker=message.worker,
            workers=message.workers,
        )


def _pool(message: pb.PoolInfo) -> Pool:
    return Pool(
        name=message.name,
        upstream=word_of(pb.UpstreamKind.DESCRIPTOR, message.upstream).lower(),
        base_url=message.base_url,
        keys=tuple(map(Key.of, message.keys)),
        waiting=message.waiting,
        in_flight=message.in_flight,
        drain_time=seconds(message.drain_time) if message.HasField("drain_time") else None,
        held_by=tuple(map(Held.of, message.held_by)),
        budget_store=_store(message.budget_store) if message.HasField("budget_store") else None,
    )


def _store(message: pb.BudgetStore) -> BudgetStore:
    silent_for = seconds(message.silent_for) if message.HasField("silent_for") else None
    return BudgetStore(silent_for, message.error, message.sent_late)


def _limit(message: pb.Limit) -> KeyLimit:
    counts = word_of(pb.LimitCounts.DESCRIPTOR, message.counts).lower()
    return KeyLimit(message.max, seconds(message.per), counts, tuple(message.paths))
