"""Questions for a plan, with keys that are all alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.model import Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.plan.draws import Draws
from apiflux_grpc.plan.question import Question
from apiflux_grpc.plan.work import Arrival

if TYPE_CHECKING:
    from collections.abc import Iterable

TEN_A_SECOND: Final = Limit(10, SECOND)
DEFAULT_RETRY: Final = RetryPolicy()


def question(
    *limits: Limit,
    keys: int = 1,
    sizes: tuple[Arrival, ...] = (Arrival(100),),
    latency: tuple[int, int] = (0, 0),
    most: int | None = None,
    max_connections: int = 1 << 40,
    fail: float = 0.0,
    limited: float = 0.0,
    rejected: Iterable[str] = (),
    seed: int = 0,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> Question:
    """`most` is each key's calls in flight; keys are key-0, key-1 and so on."""
    each = tuple(Key(f"key-{place}", "", limits, most) for place in range(keys))
    pool = Pool("default", each, max_connections=max_connections, retry=retry)
    return Question(pool, sizes, Draws(latency, fail, limited, frozenset(rejected), seed))
