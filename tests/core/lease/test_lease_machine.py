"""Replicas that share budgets, with everything that may happen to them, to the network and to the store, in any order.

What holds: no window over its limit at the upstream, ever; and when all is well again, the whole of it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from apiflux_grpc.core.lease import hours, ledger
from apiflux_grpc.core.lease.entry import Entry
from apiflux_grpc.core.lease.ledger import Ledger
from apiflux_grpc.core.lease.terms import FAILOVER_LAG, LAPSE, OFF
from apiflux_grpc.core.lease.words import CALLS, COST, Cap, Like
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.testing import FakeLeaseStore
from tests.core.lease.fleet import Calls, Fleet, Network, Replica

FAST: Final = Network()
NETWORKS: Final = (
    FAST,
    Network(lost=0.2),
    Network(late=0.3, longest=300 * MILLISECOND),
    Network(lost=0.2, late=0.2, repeated=0.5),
    Network(repeated=0.5, late=0.5, longest=20 * SECOND),
    Network((100_000, 60 * MILLISECOND), repeated=0.8),
    Network((SECOND, 3 * SECOND), lost=0.1),
)
# After whatever happened: so that the next thing happens in the midst of it, or when all of it shows.
pauses = st.sampled_from([0, 5 * MILLISECOND, 50 * MILLISECOND, 400 * MILLISECOND, 2 * SECOND, 2 * SECOND])
lengths = st.sampled_from([100 * MILLISECOND, 700 * MILLISECOND, 3 * SECOND, 12 * SECOND])
drifts = st.sampled_from([-500, 0, 500])
wants = st.sampled_from([0, 3, 1000, 1000])
numbers = st.integers(0, 99)
caps = st.lists(
    st.sampled_from(
        [
            *(Cap(SECOND, 1), Cap(SECOND, 4), Cap(2 * SECOND, 5), Cap(5 * SECOND, 7)),
            *(Cap(SECOND, 20, COST), Cap(5 * SECOND, 40, COST)),
            *(Cap(SECOND, 10, CALLS, 9), Cap(SECOND, 4, CALLS, 1), Cap(2 * SECOND, 30, COST, 20)),
        ]
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda cap: cap.like,
)


def lowest_use(cap: Cap, length: int, ledger: Ledger) -> float:
    """What this limit lets through in so long, of calls that cost 1."""
    late = ledger.jitter + ledger.life
    if not cap.depth:
        return length * cap.max / (cap.per + late) - cap.max
    flow = cap.max * late / cap.per
    # A shallow bucket's calls are spaced, so that however they bunch it holds them.
    return length * cap.max / cap.per / (1.0 if cap.depth - flow >= 1 else (1 + flow) / cap.depth) - cap.depth


class LeaseMachine(RuleBasedStateMachine):
    """A fleet, and what may happen to it."""

    trusts: bool | None = None  # what is taken of an empty store; None: as it is drawn

    def __init__(self) -> None:
        super().__init__()
        self.fleet: Fleet

    def make_store(self, clock: Callable[[], int]) -> FakeLeaseStore:
        return FakeLeaseStore(clock)

    @initialize(
        seed=st.integers(0, 1 << 20),
        caps=caps,
        jitter=st.sampled_from([0, 20 * MILLISECOND, 250 * MILLISECOND]),
        life=st.sampled_from([None, None, 400 * MILLISECOND]),
        ppm=drifts,
        keys=st.sampled_from([("key",), ("key",), ("key", "other")]),
        trust=st.booleans(),
    )
    def begin(
        self, seed: int, caps: list[Cap], jitter: int, life: int | None, ppm: int, keys: tuple[str, ...], trust: bool
    ) -> None:
        self.fleet = Fleet(seed, store_ppm=ppm, make_store=self.make_store)
        trust = trust if self.trusts is None else self.trusts
        self.caps, self.jitter, self.life, self.keys, self.trust = tuple(caps), jitter, life, keys, trust
        for key in keys:
            self.fleet.promise(caps, key)
        self.saved: dict[str, Entry] = {}
        self.odd: list[Replica] = []
        for want in (1000, 1000, 3):
            self.join(0, want)
        self.fleet.run(3 * SECOND if trust else 25 * SECOND)

    def go_on(self, pause: int) -> None:
        self.fleet.run(pause)

    def join(self, ppm: int, want: int, **other: Any) -> Replica:
        terms = {"caps": self.caps, "jitter": self.jitter, "life": self.life, **other}
        return self.fleet.add(keys=self.keys, ppm=ppm, want=want, trust=self.trust, **terms)

    # -- replicas -----------------------------------------------------------------------------

    @precondition(lambda self: len(self.fleet.living()) < 6)
    @rule(pause=pauses, ppm=drifts, want=wants)
    def another(self, ppm: int, want: int, pause: int) -> None:
        self.join(ppm, want)
        self.go_on(pause)

    @precondition(lambda self: len(self.fleet.living()) < 6)
    @rule(pause=pauses, ppm=drifts, want=wants, share=st.integers(1, 3))
    def another_with_lower_limits(self, ppm: int, want: int, share: int, pause: int) -> None:
        self.join(ppm, want, caps=[cap._replace(max=max(1, cap.max * share // 4)) for cap in self.caps])
        self.go_on(pause)

    @precondition(lambda self: len(self.fleet.living()) < 6)
    @rule(pause=pauses, ppm=drifts, want=wants, most=st.integers(1, 6))
    def another_with_one_limit_more(self, ppm: int, want: int, most: int, pause: int) -> None:
        self.join(ppm, want, caps=(*self.caps, Cap(3 * SECOND, most)))
        self.go_on(pause)

    @precondition(lambda self: len(self.fleet.living()) < 6)
    @rule(
        pause=pauses,
        ppm=drifts,
        want=wants,
        other=st.sampled_from([{"jitter": 100 * MILLISECOND}, {"jitter": SECOND}, {"life": 2 * SECOND}]),
    )
    def another_with_other_terms(self, ppm: int, want: int, other: dict[str, int], pause: int) -> None:
        self.odd.append(self.join(ppm, want, **other))
        self.go_on(pause)

    def one(self, which: int) -> Replica:
        living = self.fleet.living()
        return living[which % len(living)]

    @precondition(lambda self: self.fleet.living())
    @rule(which=st.lists(numbers, min_size=1, max_size=6), share=st.integers(1, 4), more=st.booleans(), pause=pauses)
    def change_limits(self, which: list[int], share: int, more: bool, pause: int) -> None:
        """Down or up again, or with one limit more or less; of one or of all."""
        caps = [cap._replace(max=max(1, cap.max * share // 4)) for cap in self.caps]
        for replica in {id(one): one for one in map(self.one, which)}.values():
            for key in () if replica.stopped else self.keys:
                self.fleet.change(replica, [*caps, Cap(3 * SECOND, 6)] if more else caps, key)
        self.go_on(pause)

    @precondition(lambda self: self.fleet.living())
    @rule(which=numbers, want=wants, pause=pauses)
    def demand(self, which: int, want: int, pause: int) -> None:
        for key in self.keys:
            self.fleet.demand(self.one(which), want, key)
        self.go_on(pause)

    @precondition(lambda self: self.fleet.living())
    @rule(which=numbers, pause=pauses, replaced=st.booleans())
    def crash(self, which: int, pause: int, replaced: bool) -> None:
        self.fleet.crash(self.one(which))
        if replaced:
            self.join(0, 1000)
        self.go_on(pause)

    @precondition(lambda self: self.fleet.living())
    @rule(which=numbers, pause=pauses)
    def leave(self, which: int, pause: int) -> None:
        if not self.one(which).stopped:
            self.fleet.leave(self.one(which))
        self.go_on(pause)

    @precondition(lambda self: self.fleet.living())
    @rule(which=numbers, length=lengths, pause=pauses)
    def stop(self, which: int, length: int, pause: int) -> None:
        replica = self.one(which)
        if not replica.stopped:
            self.fleet.stop(replica)
            self.fleet.at(self.fleet.now + length, lambda: self.fleet.go_on(replica))
        self.go_on(pause)

    @precondition(lambda self: self.fleet.living())
    @rule(which=numbers, length=lengths, pause=pauses)
    def stop_between_the_clock_and_the_write(self, which: int, length: int, pause: int) -> None:
        self.one(which).stops_writing = length
        self.go_on(pause)

    @precondition(lambda self: self.fleet.living())
    @rule(which=numbers, length=lengths, pause=pauses)
    def cut_off(self, which: int, length: int, pause: int) -> None:
        replica = self.one(which)
        if not replica.cut_off:
            replica.cut_off = True
            self.fleet.at(self.fleet.now + length, lambda: setattr(replica, "cut_off", False))
        self.go_on(pause)

    @precondition(lambda self: self.fleet.living())
    @rule(which=numbers, amount=st.integers(0, 3), length=lengths, pause=pauses)
    def tell(self, which: int, amount: int, length: int, pause: int) -> None:
        replica = self.one(which)
        news = replica.ledgers["key"].news
        news.tell("word", amount, replica.clock(self.fleet.now) + length)
        news.release("part") if "part" in news.claims else news.claim("part")
        self.go_on(pause)

    # -- the network, the calls, time ---------------------------------------------------------

    @rule(network=st.sampled_from(NETWORKS), pause=pauses)
    def weather(self, network: Network, pause: int) -> None:
        self.fleet.network = network
        self.go_on(pause)

    @rule(
        write=st.sampled_from([0, MILLISECOND, 300 * MILLISECOND]),
        arrive=st.sampled_from([(0, 0), (0, SECOND), (SECOND, SECOND)]),
        answer=st.sampled_from([MILLISECOND, SECOND]),
        hang=st.sampled_from([0, 0, 0.5, 1]),
        cost=st.sampled_from([(1, 1), (1, 4), (3, 12)]),
        part=st.sampled_from([(1, 1), (0, 1)]),
        pause=pauses,
    )
    def behave(
        self,
        write: int,
        arrive: tuple[int, int],
        answer: int,
        hang: float,
        cost: tuple[int, int],
        part: tuple[float, float],
        pause: int,
    ) -> None:
        self.fleet.calls = Calls((0, write), arrive, (0, answer), hang, cost, part)
        self.go_on(pause)

    @rule()
    def run_on(self) -> None:
        self.go_on(20 * SECOND)

    # -- the store ----------------------------------------------------------------------------

    @rule(length=lengths, pause=pauses)
    def go(self, length: int, pause: int) -> None:
        store = self.fleet.store
        if not store.gone:
            store.gone = True
            self.fleet.at(self.fleet.now + length, lambda: setattr(store, "gone", False))
        self.go_on(pause)

    @rule(step=st.sampled_from([-3600, -5, -1, 1, 5, 3600]), newcomer=st.booleans())
    def step_the_clock(self, step: int, newcomer: bool) -> None:
        """While one is heard that was heard before; else nobody can tell. Steps are longer than requests take."""
        fleet = self.fleet
        heard = [
            replica
            for replica in fleet.living()
            if not (replica.stopped or replica.cut_off)
            and all(
                (entry := fleet.store.entries.get(key)) is not None
                and (member := entry.members.get(replica.ledgers[key].incarnation)) is not None
                and member.established
                and member.reply.epoch == entry.epoch == replica.ledgers[key].epoch
                for key in self.keys
            )
        ]
        if step < 0:
            fleet.store.step += step * SECOND
        elif heard and not fleet.store.gone:
            fleet.network, weather = FAST, fleet.network
            for key in self.keys:
                fleet.demand(heard[0], heard[0].want[key] + 1, key)
            fleet.store.step += step * (SECOND + OFF)
            if newcomer:
                self.join(0, 50)
            fleet.run(SECOND + 300 * MILLISECOND)
            fleet.network = weather

    @rule()
    def save(self) -> None:
        self.saved = self.fleet.store.saved()

    def has_all(self, entries: dict[str, Entry]) -> bool:
        return all(key in entries for key in self.keys)

    @rule(behind=st.booleans(), pause=pauses)
    def fail_over(self, behind: bool, pause: int) -> None:
        """Who trusts an empty store has asked for it: then one that knew nothing takes over from nobody."""
        entries = self.saved if behind else self.fleet.store.saved()
        if not self.trust or self.has_all(entries):
            self.fleet.store.fail_over(entries)
            self.fleet.lost()
        self.go_on(pause)

    @rule(lost=st.sampled_from([50 * MILLISECOND, 400 * MILLISECOND, 2 * SECOND]), pause=pauses)
    def fail_over_in_the_midst(self, lost: int, pause: int) -> None:
        """All are at work, and what was acknowledged last is lost."""
        entries = self.fleet.store.saved()
        for replica in self.fleet.living():
            for key in self.keys:
                self.fleet.demand(replica, 1000, key)
        self.go_on(lost)
        if not self.trust or self.has_all(entries):
            self.fleet.store.fail_over(entries)
            self.fleet.lost()
        self.go_on(pause)

    @precondition(lambda self: not self.trust)
    @rule(pause=pauses)
    def flush(self, pause: int) -> None:
        self.fleet.store.flush()
        self.fleet.lost()
        self.go_on(pause)

    # -- all is well again ----------------------------------------------------------------------

    @rule()
    def recover(self) -> None:
        """When all is well again, what the limits allow is used, and who has nothing to do holds nothing."""
        fleet = self.fleet
        fleet.network, fleet.calls, fleet.store.gone = FAST, Calls(), False
        for replica in fleet.living():
            replica.cut_off = False
            replica.costs.clear()
            fleet.go_on(replica)
            if replica in self.odd:
                fleet.crash(replica)
        for replica in fleet.living()[2:]:
            fleet.crash(replica)
        if not fleet.living():
            self.join(0, 1000)
        for key in self.keys:
            for replica in fleet.living():
                fleet.demand(replica, 10_000, key)
        word_until = fleet.now + 3600 * SECOND
        teller = fleet.living()[0]
        teller.ledgers["key"].news.tell("last word", 5, teller.clock(word_until))
        for replica in fleet.living():
            replica.ledgers["key"].news.claim("part")
        longest = 5 * SECOND
        fleet.run(2 * longest + FAILOVER_LAG + LAPSE + 5 * SECOND)
        lowest: dict[Like, Cap] = {}
        for cap in (cap for one in fleet.living() for cap in one.ledgers["key"].caps):
            lowest[cap.like] = cap._replace(max=min(cap.max, lowest.get(cap.like, cap).max))
        for replica in fleet.living()[1:]:
            amount, end = replica.told["key", "last word"]
            assert (amount, end >= replica.clock(word_until) - 4 * SECOND) == (5, True)  # by clocks that drift
        assert sum("part" in replica.ledgers["key"].news.claimed for replica in fleet.living()) == 1
        before = {key: len(fleet.arrivals.get(key, ())) for key in self.keys}
        fleet.run(4 * longest)
        ledger = fleet.living()[0].ledgers["key"]
        most = min(lowest_use(cap, 4 * longest, ledger) for cap in lowest.values())
        for key in self.keys:
            used = len(fleet.arrivals.get(key, ())) - before[key]
            assert used >= 0.97 * most, f"{used} of {most:.0f}"
            for replica in fleet.living():
                fleet.demand(replica, 0, key)
        fleet.run(2 * SECOND)
        for key in self.keys:
            for replica in fleet.living():
                ledger = replica.ledgers[key]
                assert not any(ledger.room(replica.clock(fleet.now)))
                leases = fleet.store.entries[key].members[ledger.incarnation].leases
                assert not any(one.calls or one.cost for one in leases.values())
        fleet.check()

    def teardown(self) -> None:
        if hasattr(self, "fleet"):
            self.fleet.run(SECOND)
            self.fleet.check()


class TrustingMachine(LeaseMachine):
    """The same, where nothing was spent before: two tests, so that two processes share them."""

    trusts = True


class CautiousMachine(LeaseMachine):
    """The same, where all may have been spent before."""

    trusts = False


TestLeases: Any = TrustingMachine.TestCase
TestLeases.settings = settings(max_examples=12, stateful_step_count=20, print_blob=True)
TestLeases.pytestmark = [pytest.mark.timeout(300)]  # examples of every length, on any machine

TestCautiousLeases: Any = CautiousMachine.TestCase
TestCautiousLeases.settings = settings(max_examples=13, stateful_step_count=20, print_blob=True)
TestCautiousLeases.pytestmark = [pytest.mark.timeout(300)]


class LongMachine(LeaseMachine):
    """The same, where each window is too long to be waited for: what a store forgets the replicas remember. Rule 9."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = [patch.object(module, "LONG", SECOND // 2) for module in (hours, ledger)]
        for one in self.patches:
            one.start()

    def teardown(self) -> None:
        super().teardown()
        for one in self.patches:
            one.stop()


TestLongWindows: Any = LongMachine.TestCase
TestLongWindows.settings = settings(max_examples=3, stateful_step_count=20, print_blob=True)
TestLongWindows.pytestmark = [pytest.mark.timeout(300)]


class ForLonger(LeaseMachine):
    """The same, more of it."""


TestForLonger: Any = ForLonger.TestCase
TestForLonger.settings = settings(max_examples=60, stateful_step_count=50, print_blob=True)
TestForLonger.pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
