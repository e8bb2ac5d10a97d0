"""How a batch stands, as it is told to its caller."""

from __future__ import annotations

import time

from apiflux_grpc.core.held import Cause, Held
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.messages import Standing
from apiflux_grpc.server import wire
from apiflux_grpc.v1 import apiflux_pb2 as pb


def test_a_reason_says_how_long_it_lasts_still() -> None:
    """For those whose clock isn't the server's; an end that has passed is no time from now."""
    hour = 3600 * SECOND
    response = pb.ProcessResponse()
    waits_for = Held(Cause.SPENT, "10/60s of a", 0, time.monotonic_ns() + hour, ("a",), 1)
    held_by = [Held(Cause.LIMITED, "429", 0, 0), Held(Cause.KEY_REJECTED, "rejected", 0, None)]
    wire.put_progress(
        response, Standing(1, 2, 3 * SECOND, held_by, waits_for, 14, 0.5), 10, wire.wall_offset(time.monotonic_ns)
    )
    progress = response.progress
    assert (progress.done, progress.total, progress.to_come, progress.rate) == (1, 10, 4, 0.5)
    assert 0 < progress.waits_for.wait.ToNanoseconds() <= hour
    assert (progress.waits_for.reason, progress.waits_for.cause) == ("10/60s of a", pb.HELD_CAUSE_SPENT)
    assert progress.held_by[0].wait.ToNanoseconds() == 0
    assert not progress.held_by[1].HasField("wait")
    wire.put_progress(response := pb.ProcessResponse(), Standing(1, 2, None), 10, 0)
    assert not response.progress.HasField("rate")
    assert not response.progress.HasField("waits_for")


def test_calls_on_their_way_to_the_engine_are_counted_once() -> None:
    """What came since the engine looked is in the total already, so it isn't to come any more."""
    for total, to_come in ((10, 4), (12, 2), (15, 0)):
        wire.put_progress(response := pb.ProcessResponse(), Standing(1, 2, None, expected=14), total, 0)
        assert (response.progress.total, response.progress.to_come) == (total, to_come)
