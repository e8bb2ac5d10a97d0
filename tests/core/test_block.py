"""How long a key is left alone: a told wait is kept to its end."""

from __future__ import annotations

from apiflux_grpc.core.units import SECOND
from tests.core.desk import Desk, batch_of


def test_a_call_sent_before_a_later_end_was_told_cannot_end_the_wait() -> None:
    """It went when the first wait was over, and an older call then told a longer one."""
    desk = Desk()
    desk.submit(batch_of(4))
    permits = desk.assign()
    key = permits[0].key
    first, older, *_ = (permit for permit in permits if permit.key is key)
    desk.answer(first, 429, retry_after="2")
    desk.now = 2 * SECOND
    desk.submit(batch_of(4, id=2))
    between = next(permit for permit in desk.assign() if permit.key is key)
    desk.answer(older, 429, retry_after="5")
    desk.answer(between)
    assert key.block is not None
    assert key.block.ready_at(desk.now) == 7 * SECOND
