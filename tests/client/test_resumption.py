"""When a stream that resumes connects again, and what it says of each connection: without connections, without a clock.

`now` is seconds; the calls themselves are in test_accounts.py.
"""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from apiflux_grpc.client import ApifluxError, Call, DeadlineExceeded, DeadlineInfeasible, Overloaded, Unavailable
from apiflux_grpc.client.resume import Resumption
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.client.scripted import result

HEADER = pb.ProcessStreamOpen(correlation_id="mine")


def gone(reason: str = "", retry_delay: float | None = None) -> Unavailable:
    return Unavailable("gone", code=grpc.StatusCode.UNAVAILABLE, reason=reason, retry_delay=retry_delay)


def begun(now: float = 0.0, **options: Any) -> Resumption:
    """Ten calls, of which one was handed over to the first connection."""
    batch = Resumption(HEADER, now, **options)
    batch.took([Call(f"/{number}") for number in range(10)])
    batch.connect(now)
    batch.hand_over([0])
    return batch


def test_each_connection_may_last_as_long_as_is_left() -> None:
    """The deadline is that of the whole, and never below 0; without one a connection may last for ever."""
    batch = Resumption(HEADER, 100.0, timeout=8.0)
    assert [batch.connect(now) for now in (100.0, 103.5, 108.0, 109.0)] == [8.0, 4.5, 0.0, 0.0]
    assert Resumption(HEADER, 100.0).connect(200.0) is None


def test_the_waits_between_connections_double_up_to_five_seconds() -> None:
    """Each is drawn from the upper half, so that many clients don't return together; being heard begins anew."""
    batch = begun(give_up_after=1e6)
    waits = []
    for _ in range(9):
        waits.append(batch.end(gone(), 0.0).wait)
        batch.connect(0.0)
    for wait, most in zip(waits, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0], strict=True):
        assert wait is not None
        assert most / 2 <= wait <= most
    batch.heard(pb.ProcessResponse(progress=pb.Progress()), 0.0)
    wait = batch.end(gone(), 0.0).wait
    assert wait is not None
    assert wait <= 0.1


def test_a_server_that_says_when_it_will_be_back_is_not_asked_before() -> None:
    """Its delay is the least wait."""
    assert begun().end(gone("DRAINING", 5.0), 0.0).wait == 5.0


def test_it_gives_up_when_the_next_try_would_come_too_late() -> None:
    """Counted from the last message; before the first connection was lost, from its beginning."""
    error = gone(retry_delay=5.0)
    batch = begun(now=100.0, give_up_after=60.0)
    batch.heard(pb.ProcessResponse(progress=pb.Progress()), 200.0)
    assert batch.end(error, 255.0).wait == 5.0
    batch.connect(260.0)
    end = batch.end(error, 255.5)
    assert (end.error, end.wait) == (error, None)
    assert begun(now=100.0, give_up_after=60.0).end(error, 155.5).error is error


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (gone(), True),
        (gone("DRAINING"), True),
        (Overloaded("full", code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="TOO_MANY_CALLS"), True),
        (ApifluxError("slow", code=grpc.StatusCode.ABORTED, reason="READER_STALLED"), True),
        (ApifluxError("stopped in the middle", code=grpc.StatusCode.CANCELLED), True),
        (ApifluxError("by somebody", code=grpc.StatusCode.CANCELLED, reason="SOMETHING"), False),
        (DeadlineInfeasible("no", code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="DEADLINE_INFEASIBLE"), False),
        (DeadlineExceeded("late", code=grpc.StatusCode.DEADLINE_EXCEEDED), False),
        (ApifluxError("broken", code=grpc.StatusCode.INTERNAL), False),
    ],
)
def test_only_what_a_new_connection_may_cure_is_tried_again(error: ApifluxError, again: bool) -> None:
    """A lost connection, a full server, a reader that stalled; an error that says more than that comes out."""
    end = begun().end(error, 0.0)
    assert (end.wait is not None) == again
    assert end.error is (None if again else error)


def test_a_server_that_was_never_there_is_not_waited_for() -> None:
    """Nothing was handed over, and it said nothing: the target may be wrong. With a reason it was a server of ours."""
    batch = Resumption(HEADER, 0.0)
    batch.connect(0.0)
    assert batch.end(gone(), 0.0).error is not None
    batch = Resumption(HEADER, 0.0)
    batch.connect(0.0)
    assert batch.end(gone("DRAINING"), 0.0).wait is not None


def test_progress_is_that_of_the_whole() -> None:
    """The server counts from 0 on every connection."""
    batch = begun()
    batch.hand_over([1, 2])
    message = pb.ProcessResponse(results=[result(0), result(1)], progress=pb.Progress(done=2, total=3))
    told = batch.heard(message, 0.0)
    assert told is not None
    assert (told.progress.done, told.progress.total) == (2, 3)
    batch.end(gone(), 0.0)
    batch.connect(0.0)
    batch.hand_over([2, 3])
    told = batch.heard(pb.ProcessResponse(results=[result(0)], progress=pb.Progress(done=1, total=2)), 0.0)
    assert told is not None
    assert [one.index for one in told.results] == [2]
    assert (told.progress.done, told.progress.total) == (3, 4)


def test_every_connection_is_told_how_many_calls_are_left() -> None:
    """Those without a result that are sent again, and those that the producer still has; none once it has ended."""
    batch = Resumption(pb.ProcessStreamOpen(expected_calls=30), 0.0)
    batch.connect(0.0)
    assert batch.header.expected_calls == 30
    batch.took([Call(f"/{number}") for number in range(10)])
    batch.hand_over([0, 1])
    batch.heard(pb.ProcessResponse(results=[result(0)]), 0.0)
    batch.end(gone(), 0.0)
    batch.connect(0.0)
    assert batch.header.expected_calls == 29
    batch.took(None)
    batch.end(gone(), 0.0)
    batch.connect(0.0)
    assert batch.header.expected_calls == 9


def test_a_lost_connection_is_told_once_and_its_return_once() -> None:
    """However often it is tried meanwhile; and not at the end, whose error comes out of the iteration."""
    told: list[ApifluxError | None] = []
    batch = begun(on_connection=told.append, give_up_after=10.0)
    batch.heard(pb.ProcessResponse(results=[result(0)]), 0.0)
    assert told == []
    first = gone()
    for error in (first, gone()):
        batch.end(error, 0.0)
        batch.connect(0.0)
    assert told == [first]
    batch.heard(pb.ProcessResponse(progress=pb.Progress()), 1.0)
    batch.heard(pb.ProcessResponse(progress=pb.Progress()), 1.0)
    assert told == [first, None]
    assert batch.end(gone(), 100.0).error is not None
    assert told == [first, None]


def test_a_hook_of_the_connection_that_raises_costs_no_result(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged by its name, and not called again."""

    def fail(error: ApifluxError | None) -> None:
        raise ZeroDivisionError("in the hook")

    batch = begun(on_connection=fail, give_up_after=10.0)
    batch.end(gone(), 0.0)
    batch.connect(0.0)
    batch.heard(pb.ProcessResponse(progress=pb.Progress()), 1.0)
    (record,) = caplog.records
    assert record.message == "on_connection raised an exception and is not called again; results go on"


def test_what_the_producer_is_asked_for_fits_into_the_window() -> None:
    """Nothing while calls wait to be handed over, and then as many as have room without a result."""
    batch = Resumption(HEADER, 0.0, window=20)
    batch.connect(0.0)
    assert batch.wanted == 20
    batch.took([Call(f"/{number}") for number in range(15)])
    assert batch.wanted == 0
    batch.hand_over(batch.next())
    assert batch.wanted == 5
    batch.heard(pb.ProcessResponse(results=[result(0), result(7)]), 0.0)
    assert batch.wanted == 7
    batch.took(None)
    assert batch.wanted == 0
