"""Section fleet: 100 replicas, 1,000 keys and 100,000 calls a second, with the protocol's own code on virtual time.

    python -m bench.shared.fleet [replicas keys max seconds]

Rules
- Each key may make 100 calls a second and is wanted by 8 of the replicas, by Zipf: the nth by 1/n of the first, so that
  a few get far more than they can make, and most hardly any. Half of the replicas die on the way, and their part of the
  demand goes to those that live.
- Use is of what demand and N / (T + J + L) allow, key by key, over whole cycles of T + J + L: keys that all began at
  once are used in waves. It is back after the deaths from when on a cycle has 97 % of the use before.
- Time is scaled: some seconds are simulated, and of each it says how much. The upstream's ledger is the judge.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from apiflux_grpc.core.lease.terms import life_of
from apiflux_grpc.core.lease.words import Cap, Reply, Round
from apiflux_grpc.core.units import MILLISECOND, SECOND, format_duration
from apiflux_grpc.testing.lease_store import FakeLeaseStore
from bench.figures import Figure
from bench.shared.house import worst
from tests.core.lease.fleet import Fleet, Replica
from tests.core.lease.judge import worst_window

J: Final = 250 * MILLISECOND
TICK: Final = 100 * MILLISECOND  # between what comes in of new calls
SLICES: Final = 26  # of a cycle
WARM: Final = 3 * SECOND  # a new replica is lent nothing at first
ENOUGH: Final = 0.97


class Size(NamedTuple):
    """So many replicas and keys with this limit, each wanted by `users`; `cycles` are measured before the deaths."""

    replicas: int
    keys: int
    cap: Cap
    users: int = 8
    cycles: int = 1

    @property
    def cycle(self) -> int:
        """How long what is lent and sent counts at the most: T + J + L."""
        return self.cap.per + J + life_of(self.cap.per)

    @property
    def calls_per_second(self) -> float:
        """All that the keys may make, and as much is wanted."""
        return self.keys * self.cap.max * SECOND / self.cap.per

    def __str__(self) -> str:
        limit = f"{self.cap.max:,} per {format_duration(self.cap.per)}"
        return f"{self.replicas} replicas, {self.keys:,} keys of {limit}"


SIZES: Final = (Size(100, 1_000, Cap(SECOND, 100)), Size(20, 30, Cap(10 * SECOND, 1_000)))


class Counts(FakeLeaseStore):
    """Counts what it is asked, by key."""

    def __init__(self, clock: Callable[[], int]) -> None:
        super().__init__(clock)
        self.asked: Counter[str] = Counter()

    def serve(self, round: Round) -> Reply:
        self.asked[round.budget] += 1
        return super().serve(round)


class Seen(NamedTuple):
    """What came of a fleet. `worst` is the fullest window over its limit; rounds are what the store was asked."""

    worst: float
    use: float
    use_next: float  # of the cycle that begins with the deaths
    use_after: float  # of all cycles that begin when it is back, or later
    back_after: float  # seconds from the deaths
    calls_per_second: float
    rounds_per_second: float
    rounds_per_call: float
    rounds_per_call_busy: float  # of the keys that are wanted more than they allow
    simulated: float  # seconds


class Crowd:
    """So many replicas, and what is wanted of them."""

    def __init__(self, size: Size, seed: int = 1) -> None:
        replicas, keys, cap, users, _ = self.size = size
        self.fleet = Fleet(seed, make_store=Counts)
        names = [f"key-{number}" for number in range(keys)]
        first = size.calls_per_second / sum(1 / place for place in range(1, keys + 1))
        self.rates = {name: first / place for place, name in enumerate(names, 1)}
        wanted: list[list[str]] = [[] for _ in range(replicas)]
        for name in names:
            for number in self.fleet.luck.sample(range(replicas), min(users, replicas)):
                wanted[number].append(name)
        for number, own in enumerate(wanted):
            self.fleet.add([cap], own, jitter=J, ppm=(number % 3 - 1) * 500)
        self.users = {name: [one for one in self.fleet.replicas if name in one.ledgers] for name in names}
        self._owed: dict[tuple[str, str], float] = {}
        for place, replica in enumerate(self.fleet.replicas):
            self.fleet.at(WARM + place * TICK // replicas, lambda replica=replica: self._tick(replica))  # type: ignore[misc]

    def _tick(self, replica: Replica) -> None:
        """What came in since the last one."""
        if not replica.alive:
            return
        for name in replica.ledgers:
            living = sum(one.alive for one in self.users[name])
            at = replica.name, name
            self._owed[at] = self._owed.get(at, 0.0) + self.rates[name] * TICK / SECOND / living
            more = int(self._owed[at])
            self._owed[at] -= more
            # What nobody can serve is turned away at the door, so that the queue stays bounded.
            if more and replica.want[name] < self.size.cap.max:
                self.fleet.demand(replica, replica.want[name] + more, name)
        self.fleet.at(self.fleet.now + TICK, lambda: self._tick(replica))

    @property
    def store(self) -> Counts:
        assert isinstance(self.fleet.store, Counts)
        return self.fleet.store

    def allowed(self, span: int) -> float:
        """Calls that demand and limits allow in so long, of the keys that somebody who lives wants."""
        return sum(
            min(rate * span / SECOND, self.size.cap.max * span / self.size.cycle)
            for name, rate in self.rates.items()
            if any(one.alive for one in self.users[name])
        )

    def sent(self) -> int:
        """All that arrived so far."""
        return sum(map(len, self.fleet.arrivals.values()))

    def kill_half(self) -> None:
        """Every other one; nobody is told."""
        for replica in self.fleet.replicas[::2]:
            self.fleet.crash(replica)

    def worst(self) -> float:
        """The fullest window of any key, over its limit."""
        arrivals = self.fleet.arrivals.values()
        cap = self.size.cap
        return max(worst_window(each, cap.per, -1, self.fleet.now) for each in arrivals) / cap.max


def simulate(size: Size) -> Seen:
    """Some cycles before half of the replicas die, and two after."""
    crowd = Crowd(size)
    fleet, store = crowd.fleet, crowd.store
    fleet.run(WARM + 2 * size.cycle)
    asked, sent = store.asked.copy(), {name: len(arrivals) for name, arrivals in fleet.arrivals.items()}
    span = size.cycles * size.cycle
    fleet.run(span)
    asked = store.asked - asked
    calls = {name: len(arrivals) - sent.get(name, 0) for name, arrivals in fleet.arrivals.items()}
    busy = [name for name, rate in crowd.rates.items() if rate >= size.cap.max * SECOND / size.cap.per]
    use = sum(calls.values()) / crowd.allowed(span)
    crowd.kill_half()
    uses = _uses(crowd, 2)
    back = next((place for place, one in enumerate(uses) if one >= ENOUGH * use), len(uses))
    after = uses[back:] or uses[-1:]
    return Seen(
        crowd.worst(),
        use,
        uses[0],
        sum(after) / len(after),
        back * size.cycle / SLICES / SECOND,
        sum(calls.values()) * SECOND / span,
        asked.total() * SECOND / span,
        asked.total() / sum(calls.values()),
        sum(asked[name] for name in busy) / sum(calls[name] for name in busy),
        fleet.now / SECOND,
    )


def _uses(crowd: Crowd, cycles: int) -> list[float]:
    """The use of each whole cycle from now on that begins at a slice."""
    counts = [crowd.sent()]
    for _ in range(cycles * SLICES):
        crowd.fleet.run(crowd.size.cycle // SLICES)
        counts.append(crowd.sent())
    allowed = crowd.allowed(crowd.size.cycle)
    return [(now - then) / allowed for then, now in zip(counts, counts[SLICES:], strict=False)]


async def figures() -> list[Figure]:
    found = []
    for size in SIZES:
        seen, case = simulate(size), str(size)
        found += [
            worst([seen.worst], case),
            Figure("use of what demand and limits allow", [seen.use], target=ENOUGH, better="more", case=case),
            Figure("calls sent", [seen.calls_per_second], "/s", case=case, note=scaled(size, seen)),
            Figure("store operations", [seen.rounds_per_second], "/s", case=case),
            Figure("store operations per call", [seen.rounds_per_call], case=case),
            Figure("the same of keys whose limits bind", [seen.rounds_per_call_busy], case=case),
            Figure("use of the cycle after half of the replicas died", [seen.use_next], case=case),
            Figure("until use is back", [seen.back_after], "s", case=case),
            Figure("use from then on", [seen.use_after], target=ENOUGH, better="more", case=case),
        ]
    return found


def scaled(size: Size, seen: Seen) -> str:
    warm = WARM // SECOND
    return (
        f"with {size.replicas} replicas {seen.simulated:.1f} s were simulated, of which the first {warm} have no calls"
    )


def main(words: list[str]) -> None:
    sizes: tuple[Size, ...] = SIZES
    if words:
        replicas, keys, most, seconds = map(int, words)
        sizes = (Size(replicas, keys, Cap(seconds * SECOND, most)),)
    for size in sizes:
        began = time.monotonic()
        print(size, simulate(size), f"in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
