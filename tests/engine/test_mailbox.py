"""The mailbox: every interleaving of one poster and one reader, as a small model checker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from apiflux_grpc.engine.mailbox import Mailbox


def run(schedule: tuple[bool, ...], clear_first: bool) -> bool:
    """Play one interleaving of post, post and drains, step by step as the mailbox takes them; True: all was read."""
    queue: list[int] = []
    read: list[int] = []
    armed = False
    pending = 0  # drains that the loop will run

    def post(number: int) -> Iterator[None]:
        nonlocal armed, pending
        queue.append(number)
        yield
        if not armed:
            yield
            armed = True
            yield
            pending += 1
        yield

    def poster() -> Iterator[None]:
        yield from post(1)
        yield from post(2)

    def reader() -> Iterator[None]:
        nonlocal armed, pending
        while True:
            if not pending:
                yield
                continue
            pending -= 1
            if clear_first:
                armed = False
                yield
            for _ in range(len(queue)):
                read.append(queue.pop(0))
                yield
            if not clear_first:
                armed = False
                yield

    posting, reading = poster(), reader()
    for turn in schedule:
        next(posting if turn else reading, None)
    for _ in posting:
        pass
    for _ in range(20):
        next(reading)
    return sorted(read) == [1, 2]


def schedules(length: int) -> Iterator[tuple[bool, ...]]:
    for number in range(1 << length):
        yield tuple(bool(number >> place & 1) for place in range(length))


def test_no_interleaving_loses_a_wake_up() -> None:
    """With `armed` cleared before the look at the queue, every message is read in every interleaving."""
    assert all(run(schedule, clear_first=True) for schedule in schedules(13))


def test_clearing_after_reading_loses_wake_ups() -> None:
    """The model can find the fault that it is there to find."""
    assert not all(run(schedule, clear_first=False) for schedule in schedules(13))


@pytest.mark.parametrize("count", [1, 1000])
async def test_messages_come_in_order_and_in_one_drain(count: int) -> None:
    """Messages posted together are handled together, in their order."""
    seen: list[int] = []
    mailbox = Mailbox(asyncio.get_running_loop(), seen.append)
    for number in range(count):
        mailbox.post(number)
    assert seen == []
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert seen == list(range(count))
