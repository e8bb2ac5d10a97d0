"""What is decided for a stream over several servers: shares, recalls, losses and the end; without connections.

`now` is seconds; servers are told apart by their places.
"""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.client import ApifluxError, InternalError, Unavailable
from apiflux_grpc.client.same_pool import OtherPool
from apiflux_grpc.client.several import Several
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.client.test_accounts import answer, call, drained

NAMES = ("a:1", "b:1", "c:1")


def gone(reason: str = "", retry_delay: float | None = None) -> Unavailable:
    return Unavailable("gone", code=grpc.StatusCode.UNAVAILABLE, reason=reason, retry_delay=retry_delay)


def begun(servers: int = 2, calls: int = 0, **options: Any) -> Several:
    """All servers are up, and so many calls are ready; others may come."""
    batch = Several(NAMES[:servers], pb.ProcessStreamOpen(expected_calls=options.pop("expected", 0)), 0.0, **options)
    batch.took([call(number) for number in range(calls)])
    for at in range(servers):
        batch.connect(at, 0.0)
        batch.opened(at)
    return batch


def hand(batch: Several, at: int) -> list[int]:
    """What it takes until it has its share."""
    taken: list[int] = []
    while some := batch.next(at):
        assert batch.hand_over(some, at) is not None
        taken += some
    return taken


def answered(batch: Several, at: int, *places: int, now: float = 0.0) -> list[int]:
    """The indexes of the whole that come out for these of the connection."""
    response = batch.heard(pb.ProcessResponse(results=map(answer, places)), at, now)
    return [] if response is None else [result.index for result in response.results]


def waits(batch: Several, at: int, *, cause: Any = pb.HELD_CAUSE_SPENT) -> bool:
    """It says that one call waits there; whether it is recalled for that."""
    progress = pb.Progress(done=0, total=1, waits_for=pb.Held(cause=cause))
    batch.heard(pb.ProcessResponse(progress=progress), at, 0.0)
    return batch.is_recalled(at)


def stopped(place: int) -> pb.CallResult:
    return drained(place, reason="STOPPED")


def test_no_server_takes_more_than_its_share_of_the_window() -> None:
    """However much is there; what is answered makes room for whoever answered."""
    batch = begun(2, 100, window=20)
    assert (len(hand(batch, 0)), len(hand(batch, 1))) == (10, 10)
    assert batch.next(0) == batch.next(1) == []
    answered(batch, 1, 0, 1, 2)
    assert (hand(batch, 0), len(hand(batch, 1))) == ([], 3)


def test_a_server_that_has_not_reckoned_yet_is_waited_for_with_the_time() -> None:
    """Its first word has none, as a server's has. Alone the other would take twice as long; one that says twice that it
    doesn't know does nothing, and one that is connected anew goes on as before."""
    batch = begun(2, 100)
    for at in range(2):
        hand(batch, at)

    def eta(at: int, seconds: int | None, now: float) -> int | None:
        progress = pb.Progress(done=0, total=50)
        if seconds is not None:
            progress.eta.FromSeconds(seconds)
        response = batch.heard(pb.ProcessResponse(progress=progress), at, now)
        assert response is not None
        return response.progress.eta.ToSeconds() if response.progress.HasField("eta") else None

    assert eta(0, None, 0.0) is None
    assert eta(0, 10, 1.0) is None
    assert eta(1, None, 2.0) is None
    assert eta(1, 10, 2.1) == 10  # news is told at once
    batch.end(1, gone(), 3.0)
    assert eta(0, 10, 4.0) == 20
    batch.connect(1, 5.0)
    batch.opened(1)
    assert eta(0, 10, 6.0) == 10
    assert eta(1, None, 7.0) == 10
    assert eta(1, None, 8.0) == 20


def test_the_last_calls_are_shared_evenly() -> None:
    """Though one server alone would have room for all of them."""
    batch = begun(2, 9)
    batch.took(None)
    assert (len(hand(batch, 0)), len(hand(batch, 1))) == (5, 4)
    known = begun(3, 30, expected=30)
    assert [len(hand(known, at)) for at in range(3)] == [10, 10, 10]


def test_a_window_of_one_is_one_call_at_all_servers_together() -> None:
    """It is what can be in doubt after a crash."""
    batch = begun(2, 5, window=1)
    assert (hand(batch, 0), hand(batch, 1)) == ([0], [])
    assert answered(batch, 0, 0) == [0]
    assert (hand(batch, 1), hand(batch, 0)) == ([1], [])


def test_a_server_that_has_not_taken_its_connection_gets_no_calls() -> None:
    """And after a while its share is for the others."""
    batch = Several(NAMES[:2], pb.ProcessStreamOpen(), 0.0, window=20)
    batch.took([call(number) for number in range(50)])
    for at in range(2):
        batch.connect(at, 0.0)
    batch.opened(0)
    assert (len(hand(batch, 0)), hand(batch, 1)) == (10, [])
    batch.silent(1)
    assert len(hand(batch, 0)) == 10
    batch.opened(1)
    answered(batch, 0, 0, 1)
    assert (hand(batch, 0), len(hand(batch, 1))) == ([], 2)


def test_calls_of_a_lost_server_go_to_the_others_unless_they_may_have_run() -> None:
    """Those that aren't idempotent get UNKNOWN, those beyond what a draining server took do not."""
    batch = Several(NAMES[:2], pb.ProcessStreamOpen(), 0.0)
    batch.took([call(0), call(1, "POST"), call(2), call(3, "POST")])
    batch.took(None)
    for at in range(2):
        batch.connect(at, 0.0)
        batch.opened(at)
    assert (hand(batch, 0), hand(batch, 1)) == ([0, 1], [2, 3])
    end = batch.end(0, gone(), 0.0)
    assert [result.index for message in end.responses for result in message.results] == [1]
    assert end.wait is not None
    assert hand(batch, 1) == [0]
    batch.heard(pb.ProcessResponse(results=[answer(0)], summary=pb.Summary(total=1)), 1, 0.0)
    end = batch.end(1, gone("DRAINING"), 0.0)
    assert not end.responses  # 3 lay in a buffer, and 0 may run twice
    batch.connect(0, 0.0)
    batch.opened(0)
    assert hand(batch, 0) == [0, 3]


def test_what_a_draining_server_hands_back_goes_on_elsewhere_at_once() -> None:
    """While it finishes the others, whatever kind of call it is."""
    batch = Several(NAMES[:2], pb.ProcessStreamOpen(), 0.0)
    batch.took([call(number, "POST") for number in range(4)])
    batch.took(None)
    for at in range(2):
        batch.connect(at, 0.0)
        batch.opened(at)
    assert (hand(batch, 0), hand(batch, 1)) == ([0, 1], [2, 3])
    assert batch.heard(pb.ProcessResponse(results=[drained(1)]), 0, 0.0) is None
    assert hand(batch, 0) == []
    assert answered(batch, 1, 0, 1) == [2, 3]
    assert hand(batch, 1) == [1]


def test_a_server_whose_calls_wait_is_recalled_for_one_that_is_done() -> None:
    """What it has not begun is handed back, and goes to both; what is in flight there stays."""
    batch = begun(2, 8)
    batch.took(None)
    assert (hand(batch, 0), hand(batch, 1)) == ([0, 1, 2, 3], [4, 5, 6, 7])
    assert not waits(batch, 0)  # the other has calls too
    answered(batch, 1, 0, 1, 2, 3)
    assert waits(batch, 0)
    batch.heard(pb.ProcessResponse(results=[stopped(2), stopped(3)]), 0, 0.0)
    assert hand(batch, 0) == []
    assert hand(batch, 1) == [2, 3]
    assert answered(batch, 0, 0, 1) == [0, 1]
    assert batch.end(0, None, 0.0).wait == 0.0
    assert batch.failure is None


def test_no_call_goes_to_and_fro() -> None:
    """A server is recalled for one that has answered since the last time; and not for calls that are to be tried again
    later, whose attempts would begin anew."""
    batch = begun(2, 2)
    batch.took(None)
    assert (hand(batch, 0), hand(batch, 1)) == ([0], [1])
    answered(batch, 1, 0)
    assert not waits(batch, 0, cause=pb.HELD_CAUSE_BACKOFF)
    assert waits(batch, 0)
    batch.heard(pb.ProcessResponse(results=[stopped(0)]), 0, 0.0)
    batch.end(0, None, 0.0)
    batch.connect(0, 0.0)
    batch.opened(0)
    assert hand(batch, 1) == [0]
    assert not waits(batch, 1)
    assert answered(batch, 1, 1) == [0]


def test_one_server_that_is_lost_is_tried_for_as_long_as_another_is_there() -> None:
    """The time to give up is for the loss of all, and so is what the connection's hook is told."""
    told: list[ApifluxError | None] = []
    of_targets: list[tuple[str, bool]] = []
    batch = begun(
        2,
        100,
        give_up_after=10.0,
        on_connection=told.append,
        on_target=lambda target, error: of_targets.append((target, error is None)),
    )
    for at in range(2):
        hand(batch, at)
        answered(batch, at, 0)
    for now in range(0, 100, 5):
        assert batch.end(0, gone(), float(now)).wait is not None
        batch.connect(0, float(now))
    assert (told, of_targets) == ([], [("a:1", False)])
    answered(batch, 1, 1, now=100.0)
    last = gone()
    assert batch.end(1, last, 100.0).wait is not None
    assert (told, of_targets) == ([last], [("a:1", False), ("b:1", False)])
    batch.opened(0)
    answered(batch, 0, now=105.0)
    assert (told, of_targets[2:]) == ([last, None], [("a:1", True)])
    batch.end(0, gone(), 106.0)
    assert batch.failure is None
    batch.end(1, last, 116.0)
    assert batch.conclude() == []
    assert batch.failure is last


def test_a_server_whose_name_has_another_address_is_let_go_once_it_is_lost() -> None:
    """Not before, for it may drain; and not if it is the only one, for a name may be wrong for a while."""
    batch = begun(1, 40, window=20)
    assert len(hand(batch, 0)) == 20
    batch.depart(0)
    answered(batch, 0, 0)
    assert batch.end(0, gone(), 0.0).wait is not None  # no other is there
    batch.join("b:1")
    batch.connect(1, 0.0)
    batch.opened(1)
    assert len(hand(batch, 1)) == 20
    batch.connect(0, 0.0)
    assert batch.end(0, gone(), 0.0).wait is None
    assert batch.failure is None
    assert batch.end(1, gone(), 0.0).wait is not None
    assert not batch.is_over


def test_a_server_that_comes_later_has_its_share() -> None:
    """From then on, even before it has taken its connection."""
    batch = begun(1, 40, window=20)
    batch.join("b:1")
    assert (batch.count, len(hand(batch, 0))) == (2, 10)
    batch.connect(1, 0.0)
    batch.opened(1)
    assert len(hand(batch, 1)) == 10


def test_servers_that_were_never_there_are_not_waited_for() -> None:
    """If one was, the others may come later; the error of the last one comes out."""
    batch = Several(NAMES[:2], pb.ProcessStreamOpen(), 0.0)
    for at in range(2):
        batch.connect(at, 0.0)
    assert batch.end(0, gone(), 0.0).wait is not None
    last = gone()
    assert batch.end(1, last, 0.0).wait is None
    assert batch.failure is last
    other = Several(NAMES[:2], pb.ProcessStreamOpen(), 0.0)
    other.connect(0, 0.0)
    other.opened(0)
    assert other.end(1, gone(), 0.0).wait is not None
    assert other.failure is None


def test_an_error_that_no_connection_cures_ends_the_whole_after_what_others_have_begun() -> None:
    """They are told to stop, their results come, and then the error."""
    batch = begun(2, 6)
    batch.took(None)
    hand(batch, 0), hand(batch, 1)
    fault = InternalError("broken", code=grpc.StatusCode.INTERNAL)
    batch.end(0, fault, 0.0)
    assert batch.is_stopped
    assert batch.hand_over([0], 1) is None
    assert answered(batch, 1, 0) == [3]
    batch.end(1, None, 0.0)
    assert batch.failure is fault
    assert batch.conclude() == []


def test_a_server_with_another_pool_is_left_out() -> None:
    """Its share is for the others; if none is left, that is the error."""
    batch = begun(2, 40, window=20)
    other = OtherPool("they differ", code=grpc.StatusCode.FAILED_PRECONDITION)
    batch.leave_out(1, other)
    assert len(hand(batch, 0)) == 20
    batch.leave_out(0, other)
    assert batch.failure is other


def test_every_server_expects_its_part_of_what_is_left_and_orders_nothing() -> None:
    """The order is that of the whole, which none of them knows; the id of the batch is the same for all."""
    batch = Several(NAMES, pb.ProcessStreamOpen(expected_calls=100, ordered=True), 0.0)
    headers = [batch.header_for(at) for at in range(3)]
    assert [(header.expected_calls, header.ordered) for header in headers] == [(34, False)] * 3
    assert len({header.correlation_id for header in headers} | {""}) == 2


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("take", "send", "answer", "drain", "cut", "sure cut", "recall")),
        st.integers(0, 2),
        st.integers(0, 20),
    ),
    max_size=80,
)


@pytest.mark.parametrize("ordered", [False, True])
@settings(max_examples=150)
@given(steps=STEPS, window=st.integers(1, 12))
def test_whatever_happens_at_which_server_every_call_gets_one_result(
    ordered: bool, steps: list[tuple[str, int, int]], window: int
) -> None:
    """No two servers have a call at once, no more are out than the window, and a call that isn't idempotent is handed
    over twice only after a server said that it never ran."""
    batch = Several(NAMES, pb.ProcessStreamOpen(ordered=ordered), 0.0, window=window)
    has: list[dict[int, int]] = [{}, {}, {}]  # of each connection: its index -> that of the whole
    sent = [0, 0, 0]
    safe: list[bool] = []
    ran: set[int] = set()
    results: list[int] = []

    def connect(at: int) -> None:
        has[at].clear()
        sent[at] = 0
        batch.connect(at, 0.0)
        batch.opened(at)

    def send(at: int) -> None:
        some = batch.next(at)
        if not some or batch.hand_over(some, at) is None:
            return
        for index in some:
            assert all(index not in one.values() for one in has)
            assert safe[index] or index not in ran
            has[at][sent[at]] = index
            sent[at] += 1
            ran.add(index)
        assert sum(map(len, has)) <= window

    def hear(at: int, *of: pb.CallResult) -> None:
        message = batch.heard(pb.ProcessResponse(results=of), at, 0.0)
        results.extend(result.index for result in (message.results if message else ()))

    def end(at: int, error: ApifluxError | None) -> None:
        for message in batch.end(at, error, 0.0).responses:
            results.extend(result.index for result in message.results)
        connect(at)

    for at in range(3):
        connect(at)
    for what, at, number in steps:
        place = sorted(has[at])[number % len(has[at])] if has[at] else None
        if what == "take":
            batch.took([call(len(safe) + one, "POST" if one % 2 else "GET") for one in range(number % 6)])
            safe += [one % 2 == 0 for one in range(number % 6)]
        elif what == "send":
            send(at)
        elif what == "answer" and place is not None:
            has[at].pop(place)
            hear(at, answer(place))
        elif what == "drain" and place is not None:
            ran.discard(has[at].pop(place))
            hear(at, drained(place))
        elif what == "recall":
            ran.difference_update(has[at].values())
            places = list(has[at])
            waits(batch, at)
            if batch.is_recalled(at):
                has[at].clear()
                hear(at, *map(stopped, places))
                end(at, None)
            else:
                ran.update(has[at].values())
        elif what == "cut":
            end(at, gone())
        elif what == "sure cut":
            ran.difference_update(has[at].values())
            batch.heard(pb.ProcessResponse(summary=pb.Summary(total=0)), at, 0.0)
            end(at, gone())
    batch.took(None)
    for at in range(3):
        end(at, gone())
    while not batch.is_fed:
        for at in range(3):
            send(at)
            for place in sorted(has[at]):
                has[at].pop(place)
                hear(at, answer(place))
    assert sorted(results) == list(range(len(safe)))
    if ordered:
        assert results == sorted(results)


def test_what_is_named_is_what_is_handed_over() -> None:
    """Though other calls come back between the two, and stand before them."""
    batch = begun(2, 6, window=4)
    assert hand(batch, 0) == [0, 1]
    some = batch.next(1)
    assert some == [2, 3][: len(some)]
    batch.end(0, gone(), 0.0)
    message = batch.hand_over(some, 1)
    assert message is not None
    assert [one.path for one in message.calls] == [f"/{index}" for index in some]
    assert answered(batch, 1, 0) == some[:1]


def test_a_call_keeps_its_index_over_all_servers() -> None:
    """Each counts from 0."""
    batch = begun(2, 4)
    batch.took(None)
    hand(batch, 0), hand(batch, 1)
    assert answered(batch, 1, 0, 1) == [2, 3]
    assert batch.unsent == []
    batch.stop()
    assert [message.HasField("summary") for message in batch.conclude()] == [True]


def test_near_the_end_a_server_takes_the_part_that_it_does() -> None:
    """One that did nearly all gets nearly all of the last calls, and the other at least one."""
    batch = begun(2, 40)
    batch.took(None)
    hand(batch, 0), hand(batch, 1)
    answered(batch, 0, *range(20))
    batch.end(1, gone(), 0.0)
    batch.connect(1, 0.0)
    batch.opened(1)
    assert (len(hand(batch, 1)), len(hand(batch, 0))) == (1, 19)
