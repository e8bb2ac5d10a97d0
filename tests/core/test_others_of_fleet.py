"""What processes tell each other of strangers, and what each knows better."""

from __future__ import annotations

from collections import deque
from typing import Final

from apiflux_grpc.core.fleet import OthersOfFleet
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
