"""Keys that share limits: a permit is paid by the key and by its group."""

from __future__ import annotations

from collections import Counter

import pytest

from apiflux_grpc.core.model import Group, Key, Limit, Pool
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.core.units import SECOND
from tests.core.building import COST, KEPT, MINUTE, answer, batch_costing, batch_of, block, costs_of, labels


def grouped(
    *limits: tuple[Limit, ...], shared: tuple[Limit, ...], members: tuple[int, ...], most: int | None = None
) -> Scheduler:
    """A scheduler whose keys of those numbers share limits; J is 0."""
    keys = tuple(Key(f"key-{place}", "secret", own, most) for place, own in enumerate(limits))
    group = Group(tuple(f"key-{place}" for place in members), shared)
    return Scheduler(Pool("default", keys, 0, groups=(group,)), None)


def test_keys_of_a_group_together_keep_its_limit() -> None:
    """Two keys of 10 share 12; a third, alone, has its own 10."""
    ten = (Limit(10, SECOND),)
    scheduler = grouped(ten, ten, ten, shared=(Limit(12, SECOND),), members=(0, 1))
    scheduler.add(batch_of(100))
    permits, _ = scheduler.assign(0)
    assert Counter(labels(permits)) == {"key-0": 6, "key-1": 6, "key-2": 10}
    for permit in permits:
        answer(scheduler, permit, 0)
    assert scheduler.assign(KEPT - 1)[0] == []
    assert len(scheduler.assign(KEPT)[0]) == 22


def test_the_rank_of_a_key_is_that_of_its_group_where_this_is_tighter() -> None:
    """A key with all its own room stands behind another while its group is nearly full."""
    scheduler = grouped((), (), (Limit(10, SECOND),), shared=(Limit(10, SECOND),), members=(0, 1))
    scheduler.add(batch_of(20))
    permits, _ = scheduler.assign(0)
    assert [sum(label == "key-2" for label in labels(permits[: 2 * each])) for each in (1, 5, 10)] == [1, 5, 10]


def test_members_wake_with_their_group() -> None:
    """A key that waits for its group alone is there again when a slot of another member comes back."""
    scheduler = grouped((), (), shared=(Limit(1, SECOND),), members=(0, 1), most=1)
    scheduler.add(batch_of(3))
    (first,), wake_at = scheduler.assign(0)
    assert wake_at is None
    scheduler.sent(first, 0)
    assert scheduler.assign(0) == ([], KEPT)  # the first key hangs; the second takes what comes back
    (second,), _ = scheduler.assign(KEPT)
    assert (first.key.index, second.key.index) == (0, 1)


@pytest.mark.parametrize("now", [0, 5])
def test_a_call_never_sent_is_given_back_to_the_group_too(now: int) -> None:
    """Both budgets that paid have their slot again."""
    scheduler = grouped((), (), shared=(Limit(1, SECOND),), members=(0, 1), most=1)
    scheduler.add(batch_of(2))
    (first,), _ = scheduler.assign(0)
    scheduler.settle(first, now, None)
    assert len(scheduler.assign(now)[0]) == 1
    assert scheduler.groups[0].budget.windows[0].used == 1


def test_a_member_that_is_blocked_leaves_the_group_to_the_others() -> None:
    """A block is of the key, not of its group."""
    scheduler = grouped((), (), shared=(Limit(4, SECOND),), members=(0, 1))
    scheduler.add(batch_of(9))
    block(scheduler, scheduler.keys[0], MINUTE)
    assert labels(scheduler.assign(0)[0]) == ["key-1"] * 4


def test_members_of_a_group_are_woken_when_a_call_cost_less() -> None:
    """What one key's answer gives back is there for the others at once."""
    group = Group(("key-0", "key-1"), (Limit(100, MINUTE, COST),))
    keys = (Key("key-0", "secret", (), 1), Key("key-1", "secret", ()))
    scheduler = Scheduler(Pool("pool", keys, 0, groups=(group,)), None)
    scheduler.add(batch_costing(100, 50, 40))
    (permit,), _ = scheduler.assign(0)
    scheduler.sent(permit, 0)
    assert scheduler.assign(1)[0] == []
    scheduler.settle(permit, 2, 2, 10)
    assert costs_of(scheduler.assign(2)[0]) == [50, 40]
