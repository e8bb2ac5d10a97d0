"""A large fleet on virtual time, for figures: overspend, use, rounds.

    python -m tests.core.lease.simulate [replicas keys users windows]

Without arguments: 8 replicas that all want one key, then 100 replicas and 1,000 keys of 100 calls/s each. Each is
wanted by 8 of them, by Zipf: the first by more than it has, the last by hardly any. Half of them die on the way.
Use is of N / (T + J + L), over whole windows of that length.
"""

from __future__ import annotations

import sys
import time
from typing import Final, NamedTuple

from apiflux_grpc.core.lease.terms import life_of
from apiflux_grpc.core.lease.words import Cap
from apiflux_grpc.core.units import MILLISECOND, SECOND
from tests.core.lease.fleet import Fleet, Replica, worst_window

CAP: Final = Cap(SECOND, 100)
J: Final = 250 * MILLISECOND
TICK: Final = 100 * MILLISECOND


class Figures(NamedTuple):
    """`worst` is the fullest window over its limit; `use` the part of what limits and demand allow that was sent."""

    worst: float
    use: float
    use_after: float  # of the second half, when half of the replicas have died
    calls_per_second: int
    rounds_per_call: float
    rounds_per_second: float


def zipf(replicas: int, keys: int, users: int, windows: int, *, overload: float = 1.0, seed: int = 1) -> Figures:
    """`users` replicas want each key; its demand falls as 1/place, and sums up to `overload` times what all allow."""
    fleet = Fleet(seed)
    names = [f"key-{number}" for number in range(keys)]
    of: list[list[str]] = [[] for _ in range(replicas)]
    rates: dict[str, float] = {}
    whole = overload * keys * CAP.max / (CAP.per / SECOND) / sum(1 / place for place in range(1, keys + 1))
    for place, name in enumerate(names, 1):
        rates[name] = whole / place
        for number in fleet.luck.sample(range(replicas), min(users, replicas)):
            of[number].append(name)
    for number in range(replicas):
        fleet.add([CAP], of[number], jitter=J, ppm=(number % 3 - 1) * 500)
    owed: dict[tuple[str, str], float] = {}
    users_of = {name: [one for one in fleet.replicas if name in one.ledgers] for name in names}

    def tick(replica: Replica) -> None:
        if not replica.alive:
            return
        for name in replica.ledgers:
            # What nobody can serve is turned away at the door, so that the queue stays bounded.
            living = sum(one.alive for one in users_of[name])
            owed[replica.name, name] = owed.get((replica.name, name), 0.0) + rates[name] * TICK / SECOND / living
            more = int(owed[replica.name, name])
            owed[replica.name, name] -= more
            if more and replica.want[name] < CAP.max:
                fleet.demand(replica, replica.want[name] + more, name)
        fleet.at(fleet.now + TICK, lambda: tick(replica))

    for place, replica in enumerate(fleet.replicas):
        fleet.at(3 * SECOND + place * TICK // replicas, lambda replica=replica: tick(replica))  # type: ignore[misc]
    life = life_of(CAP.per)
    length = windows * (CAP.per + J + life)
    fleet.run(3 * SECOND + 2 * CAP.per)
    first, rounds = _measured(fleet, length)
    use = sum(first.values()) / sum(min(rate * length / SECOND, windows * CAP.max) for rate in rates.values())
    for replica in fleet.replicas[: replicas // 2]:
        fleet.crash(replica)
    # What the dead had leased or sent unreported comes back after a window.
    fleet.run(2 * CAP.per)
    second, _ = _measured(fleet, length)
    served = [name for name in names if any(one.alive for one in users_of[name])]
    use_after = sum(second.values()) / sum(min(rates[name] * length / SECOND, windows * CAP.max) for name in served)
    worst = max(worst_window(arrivals, CAP.per, -1, fleet.now) for arrivals in fleet.arrivals.values()) / CAP.max
    calls = sum(first.values())
    return Figures(worst, use, use_after, calls * SECOND // length, rounds / calls, rounds * SECOND / length)


def one_key(replicas: int, cap: Cap, windows: int) -> Figures:
    """All want it, always."""
    fleet = Fleet(1)
    for number in range(replicas):
        fleet.add([cap], jitter=J, want=1 << 40, ppm=(number % 3 - 1) * 500)
    fleet.run(2 * cap.per + 3 * SECOND)
    length = windows * (cap.per + J + life_of(cap.per))
    sent, rounds = _measured(fleet, length)
    calls = sent["key"]
    worst = worst_window(fleet.arrivals["key"], cap.per, -1, fleet.now) / cap.max
    use = calls / (windows * cap.max)
    return Figures(worst, use, 0.0, calls * SECOND // length, rounds / calls, rounds * SECOND / length)


def _measured(fleet: Fleet, length: int) -> tuple[dict[str, int], int]:
    """(arrivals by key, rounds) of this span."""
    rounds = fleet.store.rounds
    before = {key: len(arrivals) for key, arrivals in fleet.arrivals.items()}
    fleet.run(length)
    sent = {key: len(arrivals) - before.get(key, 0) for key, arrivals in fleet.arrivals.items()}
    return sent, fleet.store.rounds - rounds


def main(words: list[str]) -> None:
    if not words:
        for most, per in ((3, 1), (100, 1), (1000, 1), (1000, 10), (60_000, 60)):
            print(f"8 replicas, one key, {most} per {per} s:", one_key(8, Cap(per * SECOND, most), 3))
    sizes = [int(word) for word in words] or [100, 1000, 8, 4]
    began = time.monotonic()
    print(*sizes, zipf(*sizes), f"in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
