"""The third door: what the engine tells of itself when it is asked.

Rule: a snapshot is a frozen copy; nobody outside the engine's loop sees its live state. Keys appear by label.

Owner: the engine's loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.breaker import State
from apiflux_grpc.core.margin import advice, cost_of
from apiflux_grpc.engine.messages import KeySnapshot, PoolSnapshot, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.core.keys import KeyState
    from apiflux_grpc.engine.pump import Pump


def snapshot(pumps: Iterable[Pump], batches: int, now: int, detail: bool) -> Snapshot:
    """The state of all pools; with `detail` of every key too, which costs a microsecond for each."""
    pools = {pump.pool.name: _pool(pump, now, detail) for pump in pumps}
    return Snapshot(pools, batches)


def _pool(pump: Pump, now: int, detail: bool) -> PoolSnapshot:
    scheduler = pump.scheduler
    keys: tuple[KeySnapshot, ...] = ()
    if detail:
        keys = tuple(
            KeySnapshot(
                key.key.label,
                max(0.0, key.rank(now)[0]),
                key.in_flight,
                key.attempts,
                max(0, key.blocked_until - now),
                _state(key, now),
            )
            for key in scheduler.keys
        )
    waiting = scheduler.waiting
    drain_time = pump.forecast(now).time_for(waiting) if waiting else 0
    median, most = pump.round_trips.quantile(0.5), pump.round_trips.quantile(0.99)
    jitter = pump.pool.arrival_jitter
    limits = {limit for key in pump.pool.keys for limit in key.limits}
    cost = cost_of(jitter, limits, jitter if most is None else most)
    return PoolSnapshot(
        pump.pool.name,
        waiting,
        scheduler.in_flight,
        drain_time,
        keys,
        margin_cost=cost,
        round_trips=None if median is None or most is None else (median, most),
        upstream_fails=scheduler.breaker.state is not State.CLOSED,
        malformed=pump.malformed,
        advice=advice(jitter, cost, pump.upstream.connecting(), pump.cuts),
    )


def _state(key: KeyState, now: int) -> str:
    if key.breaker.state is not State.CLOSED:
        return "rejected"
    return "blocked" if key.blocked_until > now else "usable"
