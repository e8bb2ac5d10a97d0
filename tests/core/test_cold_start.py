"""A pool of which nobody knows what was spent before begins as if all of it had been."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.model import Group, Key, Limit, Pool
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.testing import FakePacer
from tests.core.building import BUCKET, COST, JITTER, KEPT
from tests.core.desk import batch_of

TEN = Limit(10, SECOND)
FREE = Limit(1000, SECOND)


def begun(limits: tuple[Limit, ...], *groups: Group) -> Dispatcher:
    pool = Pool("pool", (Key("a", "secret", limits),), arrival_jitter=JITTER, groups=groups, begins_spent=True)
    dispatcher = Dispatcher(pool, FakePacer)
    dispatcher.submit(batch_of(100), 0)
    return dispatcher


@pytest.mark.parametrize(
    "dispatcher",
    [
        begun((TEN,)),
        begun((replace(TEN, counts=COST), FREE)),
        begun((FREE,), Group(("a",), (TEN,))),
        begun((TEN, Limit(20, SECOND // 2))),
    ],
)
def test_a_key_opens_when_all_that_was_spent_has_ended(dispatcher: Dispatcher) -> None:
    """Calls of before arrive until J has passed, and count for a window's length; and it says when to ask again."""
    permits, wake = dispatcher.assign(0, FAR)
    assert permits == []
    assert wake is not None
    assert wake <= JITTER + KEPT
    assert dispatcher.assign(JITTER + KEPT - 2, FAR)[0] == []
    assert len(dispatcher.assign(JITTER + KEPT, FAR)[0]) == 10


def test_a_bucket_begins_empty() -> None:
    """It refills at its rate."""
    dispatcher = begun((Limit(10, SECOND, kind=BUCKET, burst=10),))
    assert dispatcher.assign(0, FAR)[0] == []
    assert 0 < len(dispatcher.assign(SECOND // 2, FAR)[0]) <= 5
