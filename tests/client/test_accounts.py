"""What a stream that resumes knows of its calls: what may be sent again, and that each gets one result."""

from __future__ import annotations

import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.client import Call
from apiflux_grpc.client import books as in_books
from apiflux_grpc.client.accounts import Accounts
from apiflux_grpc.client.books import Books
from apiflux_grpc.client.tally import error_info
from apiflux_grpc.v1 import apiflux_pb2 as pb

WINDOW = 10


def call(number: int, method: str = "GET", body: bytes = b"") -> Call:
    return Call(f"/{number}", method=method, id=f"c{number}", body=body)


def answer(place: int) -> pb.CallResult:
    return pb.CallResult(index=place, response=pb.HttpResponse(status_code=200))


def drained(place: int, *, may_have_run: bool = False, reason: str = "DRAINING") -> pb.CallResult:
    metadata = {"may_have_run": "true" if may_have_run else "false"}
    result = pb.CallResult(index=place)
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, metadata=metadata))
    result.error.details.append(detail)
    return result


def paths(message: pb.ProcessStreamRequest) -> list[str]:
    return [call.path for call in message.calls]


def opened(ordered: bool = False) -> tuple[Books, Accounts]:
    """A batch, and one server's part of it."""
    books = Books(ordered)
    return books, Accounts(books)


def room(books: Books) -> int:
    return WINDOW - books.waiting


def send(books: Books, accounts: Accounts) -> list[str]:
    return paths(accounts.hand_over(accounts.next(room(books))))


def test_a_lost_call_is_sent_again_only_if_it_is_idempotent() -> None:
    """By its method, unless it says so itself; the others get the error UNKNOWN, which says that they may have run."""
    books, accounts = opened()
    own = pb.Call(path="/3", method="POST", idempotent=True)
    never = pb.Call(path="/4", method="GET", idempotent=False)
    books.take([call(0), call(1, "POST"), call(2, "DELETE"), own, never])
    assert send(books, accounts) == ["/0", "/1", "/2", "/3", "/4"]
    assert [result.index for result in accounts.results([answer(2)])] == [2]
    lost = accounts.lost(None, "gone")
    assert [(result.index, result.id) for result in lost] == [(1, "c1"), (4, "")]
    assert all(error_info(result).reason == "UNKNOWN" for result in lost)
    assert all(error_info(result).metadata["may_have_run"] == "true" for result in lost)
    accounts.begin()
    assert send(books, accounts) == ["/0", "/3"]
    assert [result.index for result in accounts.results([answer(1), answer(0)])] == [3, 0]
    assert books.is_settled


def test_what_the_server_did_not_take_is_sent_again_whatever_it_is() -> None:
    """A POST beyond those that a draining server took certainly did not run."""
    books, accounts = opened()
    books.take(call(number, "POST") for number in range(4))
    send(books, accounts)
    assert [result.index for result in accounts.lost(2, "gone")] == [0, 1]
    accounts.begin()
    assert send(books, accounts) == ["/2", "/3"]


def test_a_call_that_a_drain_kept_from_being_sent_has_no_result_yet() -> None:
    """It is sent again, in its old place, but on another connection; one that may have run isn't."""
    books, accounts = opened()
    books.take([call(0, "POST"), call(1, "POST"), call(2), call(3)])
    send(books, accounts)
    books.take([call(4)])
    found = accounts.results([drained(2, may_have_run=True), drained(1, may_have_run=True), drained(0)])
    assert [result.index for result in found] == [1]
    assert accounts.next(room(books)) == []
    accounts.lost(None, "gone")
    accounts.begin()
    assert send(books, accounts) == ["/0", "/2", "/3", "/4"]


def test_results_in_order_wait_for_their_turn() -> None:
    """Also those of calls that were lost, and a held one takes its room."""
    books, accounts = opened(ordered=True)
    books.take([call(0), call(1, "POST"), call(2), call(3)])
    send(books, accounts)
    assert accounts.results([answer(2)]) == []
    assert books.waiting == 4
    assert accounts.lost(None, "gone") == []
    accounts.begin()
    assert send(books, accounts) == ["/0", "/3"]
    assert [result.index for result in accounts.results([answer(0)])] == [0, 1, 2]
    assert [result.index for result in accounts.results([answer(1)])] == [3]


def test_a_message_and_what_is_open_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single call may be larger; then it is alone."""
    monkeypatch.setattr(in_books, "WINDOW_BYTES", 4 << 20)  # else 64 MiB are copied and measured
    books, accounts = opened()
    large = b"x" * ((4 << 20) - 1000)
    books.take([call(0, body=b"x" * 900_000), call(1, body=b"x" * 900_000), call(2, body=large), call(3)])
    assert send(books, accounts) == ["/0"]
    assert send(books, accounts) == ["/1"]
    assert accounts.next(room(books)) == []
    accounts.results([answer(0), answer(1)])
    assert send(books, accounts) == ["/2"]
    assert send(books, accounts) == ["/3"]


def test_an_index_in_a_message_about_a_wrong_call_is_that_of_the_whole() -> None:
    """The server counts per connection."""
    books, accounts = opened()
    books.take([call(0), call(1)])
    send(books, accounts)
    accounts.results([answer(0)])
    accounts.lost(None, "gone")
    accounts.begin()
    send(books, accounts)
    wrong = pb.CallResult(index=0)
    wrong.error.message = "calls[0].path: is bad"
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="INVALID_CALL", metadata={"may_have_run": "false"}))
    wrong.error.details.append(detail)
    (result,) = accounts.results([wrong])
    assert (result.index, result.error.message) == (1, "calls[1].path: is bad")


def test_results_nobody_asked_for_are_dropped() -> None:
    """A second result for a call never comes out."""
    books, accounts = opened()
    books.take([call(0)])
    send(books, accounts)
    assert len(accounts.results([answer(0), answer(0), answer(7)])) == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.lists(st.booleans(), min_size=1, max_size=5)),
        st.tuples(st.just("send"), st.none()),
        st.tuples(st.just("answer"), st.integers(0, 20)),
        st.tuples(st.just("drain"), st.integers(0, 20)),
        st.tuples(st.just("cut"), st.booleans()),
    ),
    max_size=60,
)


@pytest.mark.parametrize("ordered", [False, True])
@settings(max_examples=100)
@given(steps=STEPS)
def test_whatever_happens_every_call_gets_one_result(ordered: bool, steps: list[tuple[str, object]]) -> None:
    """And a call that isn't idempotent is handed over twice only after the server said that it never ran."""
    books, accounts = opened(ordered)
    safe: list[bool] = []
    results: list[int] = []
    handed: dict[int, int] = {}  # on this connection: its index -> that of the whole
    ran: set[int] = set()  # handed over, and not said to be unsent

    def hand_over() -> None:
        indexes = accounts.next(room(books))
        assert len(indexes) + books.waiting <= WINDOW
        at = accounts.sent
        accounts.hand_over(indexes)
        for place, index in enumerate(indexes, at):
            assert safe[index] or index not in ran
            handed[place] = index
            ran.add(index)

    def cut(taken: int | None) -> None:
        if taken is not None:
            ran.difference_update(index for place, index in handed.items() if place >= taken)
        results.extend(result.index for result in accounts.lost(taken, ""))
        handed.clear()
        accounts.begin()

    for what, how in [*steps, ("cut", False)]:
        if what == "take":
            assert isinstance(how, list)
            books.take(call(len(safe) + place, "GET" if one else "POST") for place, one in enumerate(how))
            safe += how
        elif what == "send":
            hand_over()
        elif what == "cut":
            cut(max(handed, default=-1) // 2 + 1 if how else None)
        elif handed:
            assert isinstance(how, int)
            place = sorted(handed)[how % len(handed)]
            index = handed.pop(place)
            if what == "drain":
                ran.discard(index)
            found = accounts.results([answer(place) if what == "answer" else drained(place)])
            results.extend(result.index for result in found)
    while books.ready:
        hand_over()
        for place in sorted(handed):
            results.extend(result.index for result in accounts.results([answer(place)]))
        handed.clear()
    assert books.is_settled
    assert sorted(results) == list(range(len(safe)))
    if ordered:
        assert results == sorted(results)
