"""What processes tell each other of strangers, and what each knows better."""

from __future__ import annotations

from collections import deque
from typing import Final

from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.fleet import Fleet, OthersOfFleet, cap_of
from apiflux_grpc.core.lease.ledger import Ledger
from apiflux_grpc.core.lease.words import Fact, Use
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.others import Word
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.core.window import Window

J: Final = 20 * MILLISECOND


def knows(amount: int) -> OthersOfFleet:
    """One whose own word at 1 s proved that strangers have so much of 100."""
    others = OthersOfFleet(Window(100, SECOND), J, 0)
    others.hear(Word(100 - amount, 100, SECOND, 0), SECOND)
    others.resolve(deque([(SECOND, 0, 0)]), 0, SECOND)
    assert others.amount == amount
    return others


def test_less_than_its_own_word_proves_is_not_believed() -> None:
    """An old estimate, told anew by one that sends little, changes nothing."""
    others = knows(50)
    others.learn(47, 2 * SECOND + 2 * J, SECOND + MILLISECOND)
    assert others.amount == 50


def test_less_is_believed_once_its_own_word_is_old() -> None:
    """One that doesn't send hears that strangers have gone."""
    others = knows(50)
    others.learn(0, 4 * SECOND, 2 * SECOND + J + MILLISECOND)
    assert others.amount == 0


def test_more_is_believed_at_once() -> None:
    """Another has seen more than it did."""
    others = knows(50)
    others.learn(60, 2 * SECOND + 2 * J, SECOND + MILLISECOND)
    assert others.amount == 60


class One:
    """What one process knows of a limit of 100, and tells of it."""

    def __init__(self) -> None:
        limit = Limit(100, SECOND)
        budget = Budget([limit], J, None)
        self._ledger = Ledger("key", "process", [cap_of(limit)], J)
        self._fleet = Fleet(budget, self._ledger)
        (self._window,) = (kept for _, kept in budget.kept_limits)
        assert isinstance(self._window, Window)
        budget.listen(0)
        self._others = self._fleet.others_of(self._window, J, 0)

    @property
    def amount(self) -> int:
        return self._others.amount

    def word(self, left: int, now: int) -> None:
        """An answer says that so much is left."""
        self._others.hear(Word(left, 100, now, 0), now)

    def round(self, now: int) -> tuple[Fact, ...]:
        """What it would tell now."""
        self._fleet.prepare(now)
        return self._ledger.news.facts(now)

    def reply(self, now: int, *, spent: int = 0, lent: int = 0, refused: int = 0) -> None:
        self._fleet.heard([Use(spent, 0, lent, refused)], (), now)


def told(facts: tuple[Fact, ...]) -> list[int]:
    return [fact.amount for fact in facts]


def test_an_old_estimate_is_not_told_as_if_it_were_as_new_as_a_word() -> None:
    """What a word means is known with the next reply: until then it would talk others out of what they know better."""
    one = One()
    one.word(50, SECOND)
    assert told(one.round(SECOND)) == []
    one.reply(SECOND)
    (before,) = one.round(SECOND)
    later = SECOND // 4
    one.word(20, SECOND + later)
    assert one.round(SECOND + later) == (before._replace(left=before.left - later),)
    one.reply(SECOND + later)
    assert told(one.round(SECOND + later)) == [80]


def test_more_is_told_though_it_ends_no_later() -> None:
    """A second reply may tell more of the same word: what of the others' calls was refused."""
    one = One()
    one.word(20, SECOND)
    one.reply(SECOND, lent=40)
    assert told(one.round(SECOND)) == [40]
    one.reply(SECOND + 1, refused=20, spent=30, lent=10)
    assert one.amount == 60
    assert told(one.round(SECOND + 1)) == [60]


def test_what_was_refused_has_ended_with_all_that_others_had() -> None:
    """Its process wasn't heard since, and the store has nothing of it any more: strangers have no more than is used."""
    one = One()
    one.word(40, SECOND)
    one.reply(SECOND, spent=10, refused=42)
    assert one.amount == 60
