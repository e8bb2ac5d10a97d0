"""What a call and a retry policy become on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from apiflux_grpc.client import Call, Retry
from apiflux_grpc.client.calls import stream_open
from apiflux_grpc.v1 import apiflux_pb2 as pb


def test_query_and_headers_may_be_mappings_or_pairs() -> None:
    """Both come out as the contract's lists; pairs keep repeats and order."""
    mapped = Call(query={"b": "1", "a": "2"}, headers={"X-A": "1"}).to_message()
    assert mapped == Call(query=[("b", "1"), ("a", "2")], headers=(("X-A", "1"),)).to_message()
    twice = Call(query=[("b", "1"), ("a", ""), ("b", "0")]).to_message()
    assert [(one.name, one.value) for one in twice.query] == [("b", "1"), ("a", ""), ("b", "0")]
    assert Call().to_message() == pb.Call(method="GET", path="/")


@pytest.mark.parametrize(
    ("calls", "expected", "told"),
    [([Call()] * 7, None, 7), (iter([Call()]), None, 0), (iter([Call()]), 5, 5), ([Call()] * 7, 9, 9)],
)
def test_a_stream_says_how_many_calls_it_will_have(calls: object, expected: int | None, told: int) -> None:
    """What its caller says, else what its calls' length says, else nothing."""
    header = stream_open(
        calls,
        pool="",
        priority=0,
        correlation_id="",
        retry=None,
        ordered=False,
        strict=False,
        expected=expected,
    )
    assert header.expected_calls == told


@pytest.mark.parametrize("expected", [True, 1.5, "7", 1 << 63, -(1 << 70)])
def test_what_is_no_number_of_calls_is_refused_by_name(expected: Any) -> None:
    """Not in the words of protobuf."""
    with pytest.raises((TypeError, ValueError), match=r"^expected must be a whole number"):
        stream_open(
            (),
            pool="",
            priority=0,
            correlation_id="",
            retry=None,
            ordered=False,
            strict=False,
            expected=expected,
        )


def test_reasons_are_words() -> None:
    """Those of Result.failure; what is none is refused before anything is sent."""
    assert Retry(reasons=("TIMEOUT", "HTTP_5XX")).to_message().reasons == [pb.REASON_TIMEOUT, pb.REASON_HTTP_5XX]
    with pytest.raises(ValueError, match=r"^'TIME_OUT' is not the word of a reason; did you mean 'TIMEOUT'\?$"):
        Retry(reasons=("TIME_OUT",)).to_message()
    with pytest.raises(ValueError, match=r"did you mean 'LIMITED'\?$"):
        Retry(reasons=("HTTP_429",)).to_message()
    with pytest.raises(ValueError, match="use one of NOT_SENT, TIMEOUT,"):
        Retry(reasons=("UNSPECIFIED", "")).to_message()
