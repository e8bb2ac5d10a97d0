"""A fleet on virtual time: replicas, their clocks, the network, one store, one upstream, and the real protocol.

Rule: the world keeps true time; each clock only follows it. What a message or a call meets is drawn from `luck`, so
that a run is told by its seed and its plan. The upstream's ledger is the only judge: it knows nothing of leases.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.lease.ledger import Ledger
from apiflux_grpc.core.lease.terms import LAPSE
from apiflux_grpc.core.lease.words import COST, Cap
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.testing.lease_store import FakeLeaseStore
from tests.core.lease.judge import Promise, fullest_bucket, worst_window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.core.lease.lent import Flying, Lent
    from apiflux_grpc.core.lease.words import Reply, Round

RESEND: Final = 100 * MILLISECOND  # a round that got no reply by then is asked again


@dataclass
class Network:
    """Between replicas and the store. Shares are of messages, delays ns."""

    delay: tuple[int, int] = (100_000, 400_000)
    lost: float = 0.0
    late: float = 0.0  # held up for up to `longest`
    repeated: float = 0.0
    longest: int = 3 * SECOND

    def passages(self, luck: Random) -> list[int]:
        """After how long each copy of one message arrives."""
        copies = 0 if luck.random() < self.lost else 2 if luck.random() < self.repeated else 1
        return [
            luck.randint(*self.delay) + (luck.randint(0, self.longest) if luck.random() < self.late else 0)
            for _ in range(copies)
        ]


@dataclass
class Calls:
    """What calls meet: ns from the permit to the write, from there to the arrival (at most J), and to the answer.

    `cost` is what a call says, and `part` how much of that it takes.
    """

    write: tuple[int, int] = (0, MILLISECOND)
    arrive: tuple[int, int] = (0, 5 * MILLISECOND)
    answer: tuple[int, int] = (5 * MILLISECOND, 20 * MILLISECOND)
    hang: float = 0.0
    cost: tuple[int, int] = (1, 1)
    part: tuple[float, float] = (1, 1)


@dataclass
class Replica:
    """One process. Its clock reads `base + rate * true time`; `want` calls are always waiting, at most."""

    name: str
    ledgers: dict[str, Ledger]
    base: int
    ppm: int
    want: dict[str, int] = field(default_factory=dict)
    alive: bool = True
    stopped: bool = False
    cut_off: bool = False
    stops_writing: int = 0  # for so long it is stopped between its next look at the clock and the write
    debts: int = 0  # calls that it sent late, for all that the upstream knows
    later: list[Callable[[], None]] = field(default_factory=list)  # what came while it was stopped
    woken: dict[str, int] = field(default_factory=dict)
    costs: dict[str, int] = field(default_factory=dict)  # of the calls that go next
    done: int = 0
    told: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # by others: amount, end by its clock

    def clock(self, now: int) -> int:
        return self.base + now + now * self.ppm // 1_000_000


class Fleet:
    """`run` lets time pass; everything else happens now."""

    def __init__(
        self,
        seed: int = 0,
        *,
        store_ppm: int = 0,
        steady: bool = False,
        make_store: Callable[[Callable[[], int]], FakeLeaseStore] | None = None,
    ) -> None:
        self.luck = Random(seed)
        self.now = 0
        self.network = Network()
        self.calls = Calls()
        self.store_ppm = store_ppm
        self.store = make_store(self._store_clock) if make_store else FakeLeaseStore(self._store_clock, steady=steady)
        self.replicas: list[Replica] = []
        self.arrivals: dict[str, list[int]] = {}
        self.taken: dict[str, list[int]] = {}  # what each arrival took
        self.promises: list[Promise] = []
        self._kept: dict[str, Promise] = {}  # by replica, those that go on
        self._made: dict[tuple[str, str], list[Promise]] = {}  # by incarnation and key, until the store forgets
        self._served: dict[tuple[str, str], int] = {}  # by incarnation and key, the last number
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._names = count(1)

    def _store_clock(self) -> int:
        return 1_000_000 * SECOND + self.now + self.now * self.store_ppm // 1_000_000

    def at(self, when: int, what: Callable[[], None]) -> None:
        heappush(self._events, (max(when, self.now), next(self._order), what))

    def run(self, length: int) -> None:
        end = self.now + length
        while self._events and self._events[0][0] <= end:
            self.now, _, what = heappop(self._events)
            what()
        self.now = end

    # -- replicas -----------------------------------------------------------------------------

    def add(
        self,
        caps: Sequence[Cap],
        keys: Sequence[str] = ("key",),
        *,
        jitter: int,
        life: int | None = None,
        ppm: int = 0,
        want: int = 0,
        trust: bool = True,
    ) -> Replica:
        name = f"replica-{next(self._names)}"
        ledgers = {key: Ledger(key, name, caps, jitter, life, trust=trust) for key in keys}
        replica = Replica(name, ledgers, self.luck.randint(0, 10**15), ppm, dict.fromkeys(keys, want))
        self.replicas.append(replica)
        for key in keys:
            self.step(replica, key)
        return replica

    def living(self) -> list[Replica]:
        return [replica for replica in self.replicas if replica.alive]

    def demand(self, replica: Replica, want: int, key: str = "key") -> None:
        replica.want[key] = want
        self.step(replica, key)

    def change(self, replica: Replica, caps: Sequence[Cap], key: str = "key") -> None:
        """It has other limits from now on."""
        replica.ledgers[key].change(caps, replica.clock(self.now))
        self.step(replica, key)

    def crash(self, replica: Replica) -> None:
        replica.alive = False

    def leave(self, replica: Replica) -> None:
        """An orderly end; nothing is sent any more."""
        for key, ledger in replica.ledgers.items():
            replica.want[key] = 0
            round = ledger.leave(replica.clock(self.now))
            if round is not None:
                self._send(replica, key, round)
        replica.alive = False

    def lost(self) -> None:
        """The store has forgotten, so limits that only some replicas have hold when it has heard of them again."""
        for promise in self._kept.values():
            promise.until = min(promise.until, self.now)
        self._kept.clear()
        self._made.clear()

    def stop(self, replica: Replica) -> None:
        replica.stopped = True

    def go_on(self, replica: Replica) -> None:
        replica.stopped = False
        later, replica.later = replica.later, []
        for what in later:
            what()
        for key in replica.ledgers:
            self.step(replica, key)

    def does(self, replica: Replica, what: Callable[[], None]) -> Callable[[], None]:
        """`what`, by this process: not while it is stopped, never when it is dead."""

        def act() -> None:
            if replica.stopped:
                replica.later.append(act)
            elif replica.alive:
                what()

        return act

    def step(self, replica: Replica, key: str) -> None:
        """Take what may be taken, and ask for more."""
        if replica.stopped or not replica.alive:
            return
        clock, ledger = replica.clock(self.now), replica.ledgers[key]
        if ledger.forgotten:
            ledger.begin(f"{replica.name}/{next(self._names)}")
        while replica.want[key]:
            cost = replica.costs[key] = replica.costs.get(key) or self.luck.randint(*self.calls.cost)
            if ledger.fits(cost, clock):
                break
            lent = ledger.take(cost)
            self.at(
                self.now + self.luck.randint(*self.calls.write),
                self.does(replica, lambda lent=lent, cost=cost: self._write(replica, key, lent, cost)),  # type: ignore[misc]
            )
            del replica.costs[key]
            replica.want[key] -= 1
        round = ledger.next_round(clock, *self._wants(replica, key))
        if round is not None:
            self._send(replica, key, round)
        else:
            self._wake(replica, key)

    def _wants(self, replica: Replica, key: str) -> tuple[int, int]:
        """(calls, their cost), the rest of which is guessed."""
        calls = replica.want[key]
        return calls, replica.costs.get(key, 0) + max(0, calls - 1) * sum(self.calls.cost) // 2

    def _wake(self, replica: Replica, key: str) -> None:
        at = replica.ledgers[key].wake_at(replica.clock(self.now), *self._wants(replica, key))
        if at >= 1 << 61:
            return
        # One timer for each ledger, as an engine has it: a newer one replaces it.
        when = self.now + max(1000, (at - replica.clock(self.now)) * 10_006 // 10_000)
        if self.now < replica.woken.get(key, -1) <= when:
            return
        replica.woken[key] = when

        def woken() -> None:
            if replica.woken.get(key) == when:
                replica.woken[key] = -1
                self.step(replica, key)

        self.at(when, self.does(replica, woken))

    def _write(self, replica: Replica, key: str, lent: Lent, cost: int) -> None:
        ledger, clock = replica.ledgers[key], replica.clock(self.now)
        if clock >= lent.until:
            ledger.give_back(lent, cost, clock)
            replica.want[key] += 1
            self.step(replica, key)
            return
        if replica.stops_writing and not replica.stopped:
            length, replica.stops_writing = replica.stops_writing, 0
            self.stop(replica)
            self.at(self.now + length, lambda: self.go_on(replica))
            # The first that it does when it goes on: it has looked at the clock.
            replica.later.append(lambda: self._sent(replica, key, lent, cost))
            return
        self._sent(replica, key, lent, cost)

    def _sent(self, replica: Replica, key: str, lent: Lent, cost: int) -> None:
        if not replica.alive:
            return
        ledger, clock = replica.ledgers[key], replica.clock(self.now)
        flying = ledger.sent(lent, cost, clock)
        is_late = clock >= lent.until
        replica.debts += is_late
        arrival = self.now + min(self.luck.randint(*self.calls.arrive), ledger.jitter)
        actual = int(cost * self.luck.uniform(*self.calls.part))
        if not is_late:  # nobody can prevent that it is sent; it is a debt
            self.at(arrival, lambda: self._arrive(key, actual))
        if self.luck.random() >= self.calls.hang:
            answer = max(arrival, self.now + self.luck.randint(*self.calls.answer))
            self.at(answer, self.does(replica, lambda: self._answer(replica, key, flying, cost, actual)))

    def _arrive(self, key: str, actual: int) -> None:
        self.arrivals.setdefault(key, []).append(self.now)
        self.taken.setdefault(key, []).append(actual)

    def _answer(self, replica: Replica, key: str, flying: Flying, cost: int, actual: int) -> None:
        replica.ledgers[key].answered(flying, cost, replica.clock(self.now), actual)
        replica.done += 1
        if actual < cost:
            self._wake(replica, key)  # something came back

    # -- the network --------------------------------------------------------------------------

    def _send(self, replica: Replica, key: str, round: Round) -> None:
        if not replica.cut_off:
            for passage in self.network.passages(self.luck):
                self.at(self.now + passage, lambda: self._serve(replica, key, round))
        number = round.number

        def resend() -> None:
            ledger = replica.ledgers[key]
            if ledger.under_way is not None and ledger.under_way.number == number:
                self._send(replica, key, ledger.again(replica.clock(self.now)))

        self.at(self.now + RESEND, self.does(replica, resend))

    def _serve(self, replica: Replica, key: str, round: Round) -> None:
        if self.store.gone:
            return
        reply = self.store.serve(round)
        if round.number > self._served.get((round.incarnation, key), 0) and not reply.forgotten:
            self._served[round.incarnation, key] = round.number
            if self.store.entries[key].members[round.incarnation].established:  # else it can be granted nothing yet
                self._promise(replica, key, round)
        if replica.cut_off:
            return
        for passage in self.network.passages(self.luck):
            self.at(self.now + passage, self.does(replica, lambda: self._hear(replica, key, reply)))

    def _hear(self, replica: Replica, key: str, reply: Reply) -> None:
        clock = replica.clock(self.now)
        for fact in replica.ledgers[key].heard(reply, clock):
            replica.told[key, fact.name] = (fact.amount, clock + fact.left)
        self.step(replica, key)

    # -- the judge ----------------------------------------------------------------------------

    def _promise(self, replica: Replica, key: str, round: Round) -> None:
        name = f"{replica.name} {key}"
        promise = self._kept.get(name)
        is_changed = promise is not None and promise.caps != round.caps and promise.until >= self.now
        if promise is not None and is_changed:
            promise.until = self.now
        # A limit outlives its server until its length after that left, and a lapse is taken for that. But who is heard
        # again hasn't left, and may say what holds: the store has one set of limits for each incarnation, and other
        # amounts of like limits take the place of those of before at once, as they do if it was never silent. So from
        # then on no promise of these before can hold, of before a lapse either: an idle server is heard once in a
        # lapse, by its own clock, and may seem to have left each time. Other kinds of limits come with another
        # incarnation, and the promises of the one that left stay.
        made = self._made.setdefault((round.incarnation, key), [])
        for one in made:
            if one.caps != round.caps and {cap.like for cap in one.caps} == {cap.like for cap in round.caps}:
                one.replaced = min(one.replaced, self.now)
        if promise is None or is_changed or promise.until < self.now:
            # Leases of before its first word live on, and their calls arrive.
            since = self.now + (round.life + round.jitter) * 1001 // 1000
            promise = self._kept[name] = Promise(key, round.caps, since, self.now, counts_all=is_changed)
            self.promises.append(promise)
            made.append(promise)
        promise.until = self.now if round.leaves else self.now + LAPSE * 99 // 100

    def promise(self, caps: Sequence[Cap], key: str = "key") -> None:
        """No replica has laxer limits than these, so they hold always."""
        self.promises.append(Promise(key, tuple(caps), -1, 1 << 62))

    def check(self) -> None:
        """No window over its limit, ever, but by what was sent late; and each replica says how much that was."""
        for replica in self.replicas:
            assert sum(ledger.debt for ledger in replica.ledgers.values()) == replica.debts
        for promise in self.promises:
            arrivals = self.arrivals.get(promise.key, [])
            for cap in promise.caps:
                amounts = self.taken.get(promise.key, []) if cap.counts == COST else None
                end = min(promise.until + cap.span, promise.replaced)
                if cap.depth:
                    fullest = fullest_bucket(arrivals, cap, promise.since, end, amounts)
                    assert fullest <= cap.depth + 1e-6, f"{fullest} in {cap}"
                    continue
                worst = worst_window(arrivals, cap.per, promise.since, end, amounts, counts_all=promise.counts_all)
                assert worst <= cap.max, f"{worst} in a window of {cap.per / 1e9:g} s, limit {cap.max}"
