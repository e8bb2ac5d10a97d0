"""The core's words and the contract's enums."""

from __future__ import annotations

from typing import get_args

from apiflux_grpc.core.headers import NO_HEADERS
from apiflux_grpc.core.outcome import Answer, Reason, Result
from apiflux_grpc.server import words
from apiflux_grpc.server.defaults import Mode
from apiflux_grpc.server.wire import encode
from apiflux_grpc.v1 import apiflux_pb2 as pb


def test_every_word_has_its_value_and_every_value_its_word() -> None:
    """No value but the unspecified one is left without a word of the core, none is used twice."""
    for table, enum in (
        (words.REASONS, pb.Reason),
        (words.CAUSES, pb.HeldCause),
        (words.COUNTS, pb.LimitCounts),
        (words.KINDS, pb.LimitKind),
        (words.MODES, pb.Mode),
        (words.UPSTREAMS, pb.UpstreamKind),
        (words.STATES, pb.KeyState),
    ):
        assert sorted(table.values()) == sorted(enum.values())[1:]
    assert set(words.MODES) == set(get_args(Mode))


def test_a_failure_is_a_value_and_a_success_is_none() -> None:
    """A result says REASON_LIMITED for LIMITED; of a success the field is empty."""
    answer = Answer(429, NO_HEADERS, b"", 0)
    limited = Result(0, answer, Reason.LIMITED, "key-1", 1, 0, 0, 0)
    message = encode([limited, limited._replace(failure=None)], lambda index: "", 0)
    assert [result.failure for result in message.results] == [pb.REASON_LIMITED, pb.REASON_UNSPECIFIED]


def test_what_is_no_reason_stays_a_number() -> None:
    """So that the refusal of it can name what came."""
    assert words.words_of([pb.REASON_TIMEOUT, 0, 99]) == ["TIMEOUT", "0", "99"]
