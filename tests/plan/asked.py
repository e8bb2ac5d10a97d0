"""Questions for a plan, with keys that are all alike."""

from __future__ import annotations

from typing import Final

from apiflux_grpc.core.model import SECOND, Key, Limit, Pool
from apiflux_grpc.plan.question import Arrival, Question

TEN_A_SECOND: Final = Limit(10, SECOND)


def question(
    *limits: Limit,
    keys: int = 1,
    sizes: tuple[Arrival, ...] = (Arrival(100),),
    latency: tuple[int, int] = (0, 0),
    most: int | None = None,
    max_connections: int = 1 << 40,
) -> Question:
    each = tuple(Key(f"key-{place}", "", limits, most) for place in range(keys))
    return Question(Pool("default", each, max_connections=max_connections), sizes, latency)
