"""The two kinds of run that `apiflux stress` knows, and the keys of the judge that it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from apiflux_grpc.judge.limits import Limit

SECRETS: Final = {"key-1": "demo-secret-one", "key-2": "demo-secret-two", "key-3": "demo-secret-three"}


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of run: how many requests at once, of how many calls, against which limit per key."""

    requests: int
    calls: int
    limit: Limit
    latency_ns: tuple[int, int]


QUICK: Final = Profile(100, 50, Limit(400, 5_000_000_000), (10_000_000, 50_000_000))
FULL: Final = Profile(100, 2_000, Limit(1_000, 60_000_000_000), (500_000_000, 3_000_000_000))
