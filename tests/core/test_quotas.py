"""The quotas of one caller: what is over is refused at the door, or held back if it is a stream's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiflux_grpc.core.callers import Access, Rate
from apiflux_grpc.core.errors import BatchTooLarge, QuotaExceeded, QuotaOfBatches, QuotaOfCalls, QuotaOfRate
from apiflux_grpc.core.quotas import Account
from apiflux_grpc.core.units import SECOND


def account(**quotas: Any) -> Account:
    return Account("team-a", Access(**quotas))


def refusal(one: Account, calls: int, now: int = 0) -> QuotaExceeded | BatchTooLarge | None:
    """Why a batch of so many calls is refused; None: it was admitted."""
    try:
        one.check(calls, now, lambda: 7 * SECOND)
    except (QuotaExceeded, BatchTooLarge) as error:
        return error
    one.open(calls, now)
    return None


def test_batches_are_counted_while_they_are_open() -> None:
    """One more than the quota is refused until one is over."""
    one = account(max_batches=2)
    assert [refusal(one, 5), refusal(one, 5)] == [None, None]
    assert isinstance(refused := refusal(one, 5), QuotaOfBatches)
    assert (refused.limit, refused.retry_after) == (2, 7 * SECOND)
    one.over(5)
    assert refusal(one, 5) is None


def test_calls_are_counted_until_they_have_results() -> None:
    """Those of a batch that ended without them count no more."""
    one = account(max_queued_calls=10)
    assert refusal(one, 6) is None
    assert isinstance(refusal(one, 5), QuotaOfCalls)
    one.received(1)
    assert refusal(one, 5) is None
    assert one.wait(1, 0) > 0
    one.over(5)
    assert one.wait(5, 0) == 0
    assert isinstance(refusal(one, 6), QuotaOfCalls)


@pytest.mark.parametrize("quotas", [{"max_queued_calls": 10}, {"rate": Rate(10, SECOND)}])
def test_a_batch_that_can_never_be_admitted_is_too_large(quotas: dict[str, Any]) -> None:
    """To come again later would be no use; a stream takes it in slices of what there can be room for."""
    one = account(**quotas)
    assert isinstance(refused := refusal(one, 11), BatchTooLarge)
    assert "ProcessStream" in str(refused)
    assert (one.slice(500), account(max_batches=1).slice(500)) == (10, 500)


def test_a_rate_tells_when_there_is_room() -> None:
    """As soon as enough of what was handed over is longer ago than its time."""
    one = account(rate=Rate(10, SECOND))
    assert [refusal(one, 4, 0), refusal(one, 6, SECOND // 2)] == [None, None]
    assert isinstance(refused := refusal(one, 4, SECOND * 3 // 4), QuotaOfRate)
    assert refused.retry_after == SECOND // 4
    assert one.wait(5, SECOND * 3 // 4) == SECOND * 3 // 4
    assert isinstance(refusal(one, 4, SECOND - 1), QuotaOfRate)
    assert refusal(one, 4, SECOND) is None


@given(
    most=st.integers(1, 20),
    per=st.integers(1, 1_000),
    steps=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 20)), max_size=60),
)
def test_no_stretch_of_time_has_more_than_the_rate(most: int, per: int, steps: list[tuple[int, int]]) -> None:
    """Whatever is asked for when; and what is refused may come exactly when it was told to, if nobody else does."""
    one, now, taken = account(rate=Rate(most, per)), 0, list[tuple[int, int]]()
    for later, calls in steps:
        now += later
        calls = min(calls, most)
        if wait := one.wait(calls, now):
            assert one.wait(calls, now + wait - 1) > 0
            now += wait
            assert one.wait(calls, now) == 0
        one.fed(calls, now)
        taken.append((now, calls))
        assert sum(count for when, count in taken if now - per < when) <= most


def test_what_is_remembered_is_bounded() -> None:
    """However many small batches come within the time."""
    one = account(rate=Rate(10**9, 1000 * SECOND))
    for number in range(5_000):
        one.fed(1, number * SECOND // 5)
    assert "_lately" in Account.__slots__
    assert len(getattr(one, "_lately")) < 250  # noqa: B009  # there is no other way to see it
