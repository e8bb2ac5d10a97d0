"""Query and headers are lists on their way in and out: repeats and order are the sender's."""

from __future__ import annotations

from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.outcome import Answer, Result
from apiflux_grpc.server.wire import call_of, encode
from apiflux_grpc.v1 import apiflux_pb2 as pb

TWICE = (("b", "2"), ("a", ""), ("b", "1"), ("b", "2"))


def test_a_call_s_lists_come_in_as_they_are() -> None:
    """No parameter and no header of a call is lost, moved or joined."""
    message = pb.Call(
        query=[pb.QueryParameter(name=name, value=value) for name, value in TWICE],
        headers=[pb.Header(name=name.upper(), value=value) for name, value in TWICE],
    )
    call = call_of(message)
    assert call.query == TWICE
    assert call.headers == (("B", "2"), ("A", ""), ("B", "1"), ("B", "2"))
    assert (call_of(pb.Call()).query, call_of(pb.Call()).headers) == ((), ())


def test_an_answer_s_headers_go_out_as_they_are() -> None:
    """Two Set-Cookie stay two."""
    answer = Answer(200, Headers.of(TWICE), b"", 0)
    (result,) = encode([Result(0, answer, None, "key-1", 1, 0, 0, 0)], lambda index: "", 0).results
    assert [(header.name, header.value) for header in result.response.headers] == list(TWICE)


def test_the_bytes_are_those_of_a_map() -> None:
    """A client with stubs of 0.1, where these fields were maps, still sends what is meant."""
    entry = b"\n\x01b\x12\x012"  # key = 1: "b", value = 2: "2"
    assert call_of(pb.Call.FromString(b'"\x06' + entry + b"*\x06" + entry)).query == (("b", "2"),)
    message = pb.HttpResponse(headers=[pb.Header(name="b", value="2")])
    assert message.SerializeToString() == b"\x12\x06" + entry
