"""How much is borrowed for what waits, and what is looked at for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.lease.ledger import Ledger
from apiflux_grpc.core.leased import Leasing
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.testing import FakeLeaseStore
from tests.core.desk import batch_of

if TYPE_CHECKING:
    import pytest

    from apiflux_grpc.core.lease.words import Round
    from apiflux_grpc.core.permit import Permit


class Desk:
    """A dispatcher that borrows, its store and time."""

    def __init__(self, *limits: Limit, keys: int = 1) -> None:
        self.now = 10 * SECOND
        pool = Pool("pool", tuple(Key(f"key-{number}", "secret", limits) for number in range(keys)))
        self.dispatcher = Dispatcher(pool, None, self.now, Leasing("process"))
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
