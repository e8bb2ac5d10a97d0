"""How much is borrowed for what waits, and what is looked at for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.headers import NO_HEADERS
from apiflux_grpc.core.lease.ledger import Ledger
from apiflux_grpc.core.lease.words import Amounts, Cap
from apiflux_grpc.core.leased import Leasing
from apiflux_grpc.core.model import Counts, Key, Limit, Pool
from apiflux_grpc.core.outcome import Answer, Cause, NotSent
from apiflux_grpc.core.slots import SlotBorrower
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.testing import FakeLeaseStore
from tests.core.building import batch_costing
from tests.core.desk import WALL, batch_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.core.lease.words import Round
    from apiflux_grpc.core.permit import Permit


class Desk:
    """A dispatcher that borrows, its store and time."""

    def __init__(
        self,
        *limits: Limit,
        keys: int = 1,
        max_connections: int = 1000,
        is_near: bool = False,
        max_in_flight: int | None = None,
    ) -> None:
        self.now = 10 * SECOND
        made = tuple(Key(f"key-{number}", "secret", limits, max_in_flight) for number in range(keys))
        pool = Pool("pool", made, max_connections=max_connections)
        self.dispatcher = Dispatcher(pool, None, self.now, Leasing("process", is_near=is_near))
        self.store = FakeLeaseStore(lambda: self.now, steady=True)

    def exchange(self) -> list[Round]:
        """Send what is to be sent, until nothing is; returns the rounds."""
        sent = []
        borrowing = self.dispatcher.borrowing
        assert borrowing is not None
        while asked := self.dispatcher.ask(self.now):
            for borrower in asked:
                round = borrower.ledger.under_way
                assert round is not None
                sent.append(round)
                borrowing.hear(borrower, self.store.serve(round), self.now)
        return sent

    def assign(self) -> list[Permit]:
        return self.dispatcher.assign(self.now, FAR)[0]


def test_an_idle_key_is_looked_at_for_its_beat_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass costs nothing for keys that nothing happens to, however many there are."""
    desk = Desk(Limit(100, SECOND), keys=300)
    desk.exchange()
    looks = []
    look = Ledger.next_round

    def counted(ledger: Ledger, *args: int) -> Round | None:
        looks.append(ledger)
        return look(ledger, *args)

    monkeypatch.setattr(Ledger, "next_round", counted)
    for _ in range(100):
        desk.now += MILLISECOND
        desk.assign()
        desk.exchange()
    assert looks == []


def test_what_waits_is_shared_out_among_the_keys_that_lack_a_lease() -> None:
    """No key asks for all, and together they ask for all of it."""
    desk = Desk(Limit(1000, SECOND), keys=4)
    desk.exchange()
    desk.now += SECOND // 10  # a ledger asks no more often than it may
    desk.dispatcher.submit(batch_of(400), desk.now)
    assert desk.assign() == []
    assert [round.want.calls for round in desk.exchange()] == [100] * 4
    assert len(desk.assign()) == 400


def test_of_a_store_nearby_little_is_borrowed_at_a_time() -> None:
    """Or a process that is killed would lose the key: a fiftieth of the limit, and often."""
    desk = Desk(Limit(1000, 60 * SECOND), is_near=True)
    desk.exchange()
    desk.dispatcher.submit(batch_of(400), desk.now)
    for _ in range(5):
        desk.now += 5 * MILLISECOND
        desk.assign()
        desk.exchange()
        assert len(desk.assign()) == 20


def test_a_call_that_costs_more_than_a_portion_is_borrowed_for_whole() -> None:
    """It would wait for ever, otherwise."""
    desk = Desk(Limit(1000, 60 * SECOND, counts=Counts.COST), is_near=True)
    desk.exchange()
    desk.now += SECOND
    desk.dispatcher.submit(Batch(1, "caller", 2, admitted_at=desk.now, calls=[Call()] * 2, costs=[400, 400]), desk.now)
    went = 0
    for _ in range(200):
        went += len(desk.assign())
        desk.exchange()
        desk.now += 5 * MILLISECOND
    assert went == 2


def test_a_dear_call_is_asked_for_whole_in_each_round() -> None:
    """The store had too little of it at first: a grant of what calls cost on average would let only others go."""
    desk = Desk(Limit(1000, 60 * SECOND, counts=Counts.COST))
    (first,) = desk.exchange()
    other = desk.store.serve(first._replace(incarnation="other"))
    desk.now += SECOND
    taken = first._replace(incarnation="other", number=2, epoch=other.epoch, told=other.now, want=Amounts(1, 700))
    assert desk.store.serve(taken).granted.cost == 700
    desk.dispatcher.submit(batch_costing(500, *[5] * 20), desk.now)
    asked = []
    for _ in range(100):
        desk.assign()
        asked += [round.least for round in desk.exchange() if round.want.calls]
        desk.now += 20 * MILLISECOND
    assert len(asked) > 1
    assert set(asked) == {500}


def test_what_calls_cost_is_looked_up_once_for_all_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a look at every open batch."""
    desk = Desk(Limit(1000, SECOND, counts=Counts.COST), keys=50)
    desk.exchange()
    desk.now += SECOND
    desk.dispatcher.submit(batch_of(400), desk.now)
    desk.assign()
    looks = []

    def counted(batches: Iterable[Batch]) -> float:
        looks.append(batches)
        return 1.0

    monkeypatch.setattr("apiflux_grpc.core.demand.mean_cost", counted)
    assert len(desk.dispatcher.ask(desk.now)) > 1
    assert len(looks) == 1


def test_shared_limits_that_change_stay_shared() -> None:
    """A call that waits is asked for anew, by the new limits; a budget that knows of no store would spend what others
    have."""
    desk = Desk(Limit(100, SECOND))
    desk.exchange()
    desk.now += SECOND // 10
    desk.dispatcher.submit(batch_of(500), desk.now)
    assert desk.assign() == []
    desk.exchange()
    assert len(desk.assign()) > 0
    desk.dispatcher.change_limits(0, (Limit(200, SECOND),), desk.now)
    assert desk.assign() == []
    desk.now += SECOND // 10
    (round,) = desk.exchange()
    assert round.caps == (Cap(SECOND, 200),)
    assert len(desk.assign()) > 0


def test_a_call_that_is_dearer_than_a_new_limit_keeps_no_other_waiting() -> None:
    """What was lacking for it isn't asked for any more: it fits never, and the others do."""
    desk = Desk(Limit(100, SECOND, Counts.COST))
    desk.exchange()
    desk.now += SECOND // 10
    desk.dispatcher.submit(batch_costing(80), desk.now)
    assert desk.assign() == []
    desk.dispatcher.change_limits(0, (Limit(50, SECOND, Counts.COST),), desk.now)
    desk.dispatcher.submit(Batch(2, "a", 5, admitted_at=0, costs=[5] * 5), desk.now)
    desk.now += SECOND // 10
    desk.assign()
    (round,) = desk.exchange()
    assert round.least < 50
    assert len(desk.assign()) > 0


def test_a_limit_with_paths_is_borrowed_for_calls_that_meet_it_alone() -> None:
    """Its budget has an entry of its own, and calls of other paths ask nothing of it."""
    desk = Desk(Limit(100, SECOND), Limit(10, SECOND, paths=("/search/",)))
    desk.exchange()
    desk.now += SECOND // 10
    desk.dispatcher.submit(batch_of(5), desk.now)
    assert desk.assign() == []
    assert {round.budget: round.want.calls for round in desk.exchange()} == {"pool/key-0": 5}
    assert len(desk.assign()) == 5
    search = Batch(2, "caller", 5, admitted_at=0, calls=[Call(path="/search/x")] * 5)
    desk.dispatcher.submit(search, desk.now)
    desk.now += SECOND // 10
    desk.assign()
    assert {round.budget for round in desk.exchange()} == {"pool/key-0", "pool/key-0?/search/"}
    assert len(desk.assign()) == 5


def test_a_call_that_is_never_sent_gives_its_lease_back() -> None:
    """To the next call, as its budget does, and nothing is asked for again."""
    desk = Desk(Limit(10, SECOND))
    desk.exchange()
    desk.now += SECOND // 10
    desk.dispatcher.submit(batch_of(20), desk.now)
    desk.assign()
    desk.exchange()
    permits = desk.assign()
    assert len(permits) == 10
    desk.dispatcher.settle(permits[0], NotSent(Cause.LATE, "late"), desk.now, WALL, 0.0)
    assert len(desk.assign()) == 1


def test_no_more_is_asked_for_than_can_be_in_flight() -> None:
    """What could not be sent is not borrowed: of a key that answers in ten seconds one call."""
    desk = Desk(Limit(1000, SECOND), max_connections=1)
    desk.exchange()
    desk.now += SECOND // 10
    desk.dispatcher.submit(batch_of(50), desk.now)
    desk.assign()
    desk.exchange()
    (permit,) = desk.assign()
    desk.dispatcher.sent(permit, desk.now)
    desk.now += 10 * SECOND
    desk.exchange()
    desk.now += SECOND // 10
    desk.dispatcher.settle(permit, Answer(200, NO_HEADERS, b"", desk.now), desk.now, WALL, 0.0)
    desk.assign()
    assert [round.want.calls for round in desk.exchange()] == [1]


def test_leases_are_asked_for_however_many_slots_are_due() -> None:
    """Half of an exchange is theirs: with a slow store and hundreds of keys slots alone would fill each."""
    desk = Desk(Limit(1000, SECOND), keys=300, max_in_flight=5)
    asked = desk.dispatcher.ask(desk.now)
    slots = [one for one in asked if isinstance(one, SlotBorrower)]
    assert (len(slots), len(asked) - len(slots)) == (50, 50)


def test_slots_have_what_leases_leave_of_an_exchange() -> None:
    """All of it if there is nothing to ask of leases."""
    desk = Desk(Limit(1000, SECOND), keys=90, max_in_flight=5)
    borrowing = desk.dispatcher.borrowing
    assert borrowing is not None
    found = []
    for _ in range(2):
        asked = desk.dispatcher.ask(desk.now)
        slots = [one for one in asked if isinstance(one, SlotBorrower)]
        found.append((len(slots), len(asked) - len(slots)))
        for one in asked:
            round = one.ledger.under_way
            assert round is not None
            borrowing.hear(one, desk.store.serve(round), desk.now)
    assert found == [(50, 50), (40, 40)]
    desk.now += 11 * SECOND
    for borrower in borrowing.borrowers:
        assert borrower.ledger.leave(desk.now) is not None  # their rounds are under way
    asked = desk.dispatcher.ask(desk.now)
    assert len(asked) == 90
