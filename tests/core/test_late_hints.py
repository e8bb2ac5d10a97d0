"""Hints that come at a bad time: none ends the engine, and none is kept for longer than it counts."""

from __future__ import annotations

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.others import Others
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.core.window import Window
from tests.core.desk import Desk


def test_a_hint_on_a_limit_that_came_after_the_call() -> None:
    """The call was made before its key had the limit that the hint means: it says nothing of it."""
    wide, narrow = Limit(100, SECOND), Limit(7, 60 * SECOND, paths=("/a/",))
    desk = Desk(Pool("pool", (Key("key-0", "secret", (wide,)), Key("key-1", "secret", (narrow,)))))
    desk.submit(Batch(1, "caller", 16, admitted_at=0, calls=[Call(path="/a/b")] * 16))
    old = [permit for permit in desk.assign() if permit.key.index == 0]
    desk.dispatcher.change_limits(0, (wide, narrow), desk.now)

    def tell(permit: Permit) -> None:
        assert desk.answer(permit, x_ratelimit_limit="7", x_ratelimit_remaining="3", x_ratelimit_reset="60")

    desk.now = 61 * SECOND
    desk.submit(Batch(2, "caller", 14, admitted_at=desk.now, calls=[Call(path="/a/b")] * 14))
    tell(next(permit for permit in desk.assign() if permit.key.index == 0))
    tell(old[0])


def test_refusals_are_forgotten_with_their_slots() -> None:
    """An upstream that told of a limit once and only refuses from then on: what it refused isn't kept for ever."""
    window = Window(10, SECOND)
    others = Others(window, 0, 0)
    for second in range(100):
        now = 2 * second * SECOND
        others.expire(now, out=False, slow=False)
        window.used += 1
        window.record(now, 1)
        others.refused(1, now)
    assert len(others._refused) <= 2
