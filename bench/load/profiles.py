"""The loads that `make load` knows, by name.

Rule: a profile says all that is special about its load: what ghz does, what the keys allow and what the server is
told. What is the same for each is in running.py, what must come of it in outcome.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.limits import Limit

KEYS: Final = 3
_MS: Final = SECOND // 1000


@dataclass(frozen=True, slots=True)
class Profile:
    """ghz opens `requests` streams of `calls` calls each, over `concurrency` workers.

    Without a `rate` a worker opens its next stream when the one before is over. With one, so many are opened a
    second; if it also has `growth`, that much more each second, and whether or not others are over. `limit` is that
    of each key, `latency_ns` the judge's range. `own` streams of ours run at once beside ghz's. With `max_batches`,
    the server's bound, refusals are expected. With `most_growth` the server's memory (RSS) may grow by so many bytes
    after the warm-up.
    """

    name: str
    what: str
    requests: int
    calls: int
    concurrency: int
    limit: Limit
    latency_ns: tuple[int, int] = (10 * _MS, 50 * _MS)
    rate: int = 0
    growth: int = 0
    own: int = 3
    max_batches: int | None = None
    most_growth: int | None = None

    @property
    def steady(self) -> bool:
        """Whether it may last as long as one likes."""
        return bool(self.rate) and not self.growth

    def lasting(self, seconds: int) -> Profile:
        """The same load for so long. Raises ValueError where it isn't a steady one."""
        if not self.steady:
            raise ValueError(f"{self.name} ends when its requests are over: seconds are for {_names(steady=True)}")
        return replace(self, requests=self.rate * seconds)

    @property
    def calls_per_second(self) -> float:
        """What the limits of all keys allow in the long run."""
        return KEYS * self.limit.max * SECOND / self.limit.per_ns


_ALL: Final = (
    Profile("smoke", "5 streams at once, of 5 calls: does it work at all?", 20, 5, 5, Limit(1_000, SECOND)),
    Profile("100x50", "100 streams at once, of 50 calls, against tight limits", 100, 50, 100, Limit(500, 2 * SECOND)),
    Profile(
        "ramp",
        "10 more streams a second each second, until the server refuses; 40 may be open",
        400,
        20,
        4,
        Limit(100, SECOND),
        rate=10,
        growth=10,
        own=10,  # so many that it can't be by chance that none of them is refused
        max_batches=40,
    ),
    Profile(
        "soak",
        "30 streams a second, of 20 calls: about two thirds of what the limits allow",
        30 * 30,
        20,
        100,
        Limit(400, SECOND),
        rate=30,
        most_growth=64_000_000,
    ),
    Profile(
        "100x2000",
        "100 streams at once, of 2,000 calls; the limits are so wide that the server is what is measured",
        100,
        2_000,
        100,
        Limit(1_000_000, 60 * SECOND),
        latency_ns=(_MS, 5 * _MS),
    ),
)
PROFILES: Final = {profile.name: profile for profile in _ALL}


def _names(*, steady: bool) -> str:
    return ", ".join(profile.name for profile in _ALL if profile.steady is steady)


def chosen(name: str | None, seconds: int | None) -> list[Profile]:
    """The profile of this name, or all of them; `seconds` is how long the steady ones last, None: as written above.

    Raises ValueError, naming the profiles there are, where there is none of this name, or where `seconds` doesn't fit.
    """
    if name is not None and name not in PROFILES:
        raise ValueError(f"there is no profile {name!r}, only {', '.join(PROFILES)}")
    if seconds is not None and seconds < 1:
        raise ValueError(f"{seconds} seconds are no time to last")
    profiles = [*PROFILES.values()] if name is None else [PROFILES[name]]
    if seconds is None:
        return profiles
    return [profile.lasting(seconds) if profile.steady or name else profile for profile in profiles]
