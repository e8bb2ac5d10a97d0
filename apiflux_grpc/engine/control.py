"""The third door: what the engine tells of itself when it is asked.

Rule: a snapshot is a frozen copy; nobody outside the engine's loop sees its live state. Keys appear by label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.engine.pump import Pump


@dataclass(frozen=True, slots=True)
class KeySnapshot:
    """`headroom` is the free share of the tightest window, `blocked_for` ns (0: not blocked)."""

    label: str
    headroom: float
    in_flight: int
    attempts: int
    blocked_for: int


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """`drain_time` is ns until all that waits now is done; None: no key will ever have room."""

    name: str
    waiting: int
    in_flight: int
    drain_time: int | None
    keys: tuple[KeySnapshot, ...]  # empty unless details were asked for


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The engine at one instant."""

    pools: dict[str, PoolSnapshot]
    batches: int


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
                max(0.0, key.budget.rank()[0]),
                key.in_flight,
                key.attempts,
                max(0, key.blocked_until - now),
            )
            for key in scheduler.keys
        )
    waiting = scheduler.waiting
    drain_time = pump.forecast(now).time_for(waiting) if waiting else 0
    return PoolSnapshot(pump.pool.name, waiting, scheduler.in_flight, drain_time, keys)
