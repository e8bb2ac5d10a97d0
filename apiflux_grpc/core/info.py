"""What a pool tells of itself.

Rule: frozen copies, which may cross to another thread; nobody outside sees live state. Keys appear by label. Lengths
of time are ns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apiflux_grpc.core.breaker import State
from apiflux_grpc.core.holding import of_key, of_pool
from apiflux_grpc.core.margin import advice, cost_of

if TYPE_CHECKING:
    from apiflux_grpc.core.borrowing import Borrowing
    from apiflux_grpc.core.held import Held
    from apiflux_grpc.core.keys import KeyState
    from apiflux_grpc.core.pulse import Pulse
    from apiflux_grpc.core.scheduler import Scheduler
    from apiflux_grpc.core.store_health import StoreSnapshot


@dataclass(frozen=True, slots=True)
class KeySnapshot:
    """`headroom` is the free share of the tightest window, `blocked_for` 0 if it isn't blocked."""

    label: str
    headroom: float
    in_flight: int
    attempts: int
    blocked_for: int
    state: str  # usable, blocked (the upstream said so) or rejected
    held_by: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """`drain_time` is how long until all that waits now is done; None: no key will ever have room."""

    name: str
    waiting: int
    in_flight: int
    drain_time: int | None
    keys: tuple[KeySnapshot, ...]  # empty unless details were asked for
    margin_cost: float  # the share of capacity that the arrival margin takes
    round_trips: tuple[int, int] | None  # median and 99th percentile; None: no answer yet
    upstream_fails: bool
    malformed: int
    advice: str
    held_by: tuple[Held, ...]  # empty unless details were asked for
    store: StoreSnapshot | None = None  # of its budgets; None: it shares them with nobody


def pool_snapshot(
    scheduler: Scheduler, pulse: Pulse, drain_time: int | None, connecting: int | None, now: int, *, detail: bool
) -> PoolSnapshot:
    """The state of a pool; with `detail` of every key too, which costs a microsecond for each.

    `connecting` is the longest that opening a connection took lately; None: not known.
    """
    pool = scheduler.pool
    borrowing = scheduler.keyring.borrowing
    median, most = pulse.round_trips.quantile(0.5), pulse.round_trips.quantile(0.99)
    jitter = pool.arrival_jitter
    margin = cost_of(jitter, scheduler.limits, jitter if most is None else most)
    return PoolSnapshot(
        pool.name,
        scheduler.waiting,
        scheduler.in_flight,
        drain_time,
        tuple(_key_snapshot(key, borrowing, now) for key in scheduler.keys) if detail else (),
        margin_cost=margin,
        round_trips=None if median is None or most is None else (median, most),
        upstream_fails=scheduler.breaker.state is not State.CLOSED,
        malformed=pulse.malformed,
        advice=advice(jitter, margin, connecting, pulse.cuts),
        held_by=_held_by(scheduler, pulse, borrowing, now) if detail else (),
        store=None if borrowing is None else borrowing.store.snapshot(now),
    )


def _held_by(scheduler: Scheduler, pulse: Pulse, borrowing: Borrowing | None, now: int) -> tuple[Held, ...]:
    held = of_pool(scheduler.breaker, pulse.last_failure, scheduler.keys, now)
    return held if borrowing is None else (*held, *borrowing.holds(now))


def _key_snapshot(key: KeyState, borrowing: Borrowing | None, now: int) -> KeySnapshot:
    state = "usable"
    if key.paused_at is not None:
        state = "paused"
    elif key.breaker.state is not State.CLOSED:
        state = "rejected"
    blocked_for = max((one.block.until - now for one in key.owners if one.block is not None), default=0)
    if key.budget.told is not None:
        blocked_for = max(blocked_for, key.budget.told.held_until(now) - now)
    if state == "usable" and blocked_for > 0:
        state = "blocked"
    headroom = max(0.0, key.rank(now)[0])
    held = of_key(key, now)
    if borrowing is not None:
        held = (*held, *borrowing.holds_of(key, now))
    return KeySnapshot(key.key.label, headroom, key.in_flight, key.attempts, max(0, blocked_for), state, held)
