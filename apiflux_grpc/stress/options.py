"""The two kinds of run that `apiflux stress` knows, and the keys of the judge that it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.limits import Limit

SECRETS: Final = {"key-1": "demo-secret-one", "key-2": "demo-secret-two", "key-3": "demo-secret-three"}


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of run: how many requests at once, of how many calls, against which limits of each key."""

    requests: int
    calls: int
    limits: tuple[Limit, ...]
    latency_ns: tuple[int, int]


def _limits(calls: int, tokens: int, seconds: int) -> tuple[Limit, Limit]:
    per_ns = seconds * SECOND
    return Limit(calls, per_ns), Limit(tokens, per_ns, "cost")


# A call (calls.py) takes 112 tokens on average and declares 156: the limit of tokens is nearly as tight as the other.
QUICK: Final = Profile(100, 50, _limits(400, 50_000, 5), (10_000_000, 50_000_000))
FULL: Final = Profile(100, 2_000, _limits(1_000, 125_000, 60), (500_000_000, 3_000_000_000))
