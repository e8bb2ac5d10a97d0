"""A result is read as people know it from httpx, and what it hasn't got is never taken for something empty."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2

from apiflux_grpc.client import ApifluxError, CallFailed, Result
from apiflux_grpc.v1 import apiflux_pb2 as pb


def answered(body: bytes = b"", status: int = 200, kind: str = "", id: str = "", truncated: bool = False) -> Result:
    """A result with a response; 2xx is success."""
    headers = [pb.Header(name="content-type", value=kind)] if kind else []
    response = pb.HttpResponse(status_code=status, headers=headers, body=body, truncated=truncated)
    failure = pb.REASON_UNSPECIFIED if status // 100 == 2 else pb.REASON_HTTP_4XX
    return Result.of(pb.CallResult(index=3, id=id, response=response, failure=failure, key_label="team-a"))


def unanswered(may_have_run: str = "true") -> Result:
    """A result without one."""
    message = pb.CallResult(index=3, id="oslo", failure=pb.REASON_TIMEOUT)
    message.error.message = "no answer within 30 s"
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="TIMEOUT", metadata={"may_have_run": may_have_run}))
    message.error.details.append(detail)
    return Result.of(message)


def test_a_result_reads_like_a_response() -> None:
    """Status, headers in any case, body, text and JSON, of the result and of its response alike."""
    result = answered('{"name": "Zoë", "n": 0.1}'.encode(), 201, "application/json")
    assert result.response is not None
    for read in (result, result.response):
        assert read.status_code == 201
        assert read.headers["Content-Type"] == read.headers["content-type"] == "application/json"
        assert (read.headers.get("X-None"), "CONTENT-TYPE" in read.headers, "X-None" in read.headers) == (
            None,
            True,
            False,
        )
        assert read.text == '{"name": "Zoë", "n": 0.1}'
        assert read.content == read.text.encode()
        assert read.json() == {"name": "Zoë", "n": 0.1}
        assert read.json(parse_float=Decimal)["n"] == Decimal("0.1")
    assert result.raise_for_status() is result


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/plain; charset=ISO-8859-1", b"Zo\xeb", "Zoë"),
        ('text/plain;Charset="utf-16-le"', "Zoë".encode("utf-16-le"), "Zoë"),
        ("text/plain", b"Zo\xeb", "Zo\ufffd"),
        ("text/plain; charset=nonsense", "Zoë".encode(), "Zoë"),
        ("text/plain; charset=base64", "Zoë".encode(), "Zoë"),
        ("text/plain; charset=idna", "Zoë".encode(), "Zoë"),
        ("", b"", ""),
    ],
)
def test_text_is_in_its_charset(kind: str, body: bytes, text: str) -> None:
    """That of the Content-Type, else UTF-8; whatever a server names, reading it raises nothing."""
    assert answered(body, kind=kind).text == text


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (answered(b"<html>oops</html>"), r"calls\[3\]: the body is not JSON: Expecting value, in '<html>oops</html>'"),
        (answered(b"", id="oslo"), r"calls\[3\] \(id 'oslo'\): the body is not JSON: Expecting value"),
        (answered(b"\xff\xfe\xfd{"), r"the body is not JSON"),
        (answered(b"[" * 200_000), r"the body is not JSON: nested too deeply"),
        (answered(b'{"a": [1, 2', truncated=True), r"is not JSON: it was cut after 11 bytes, the pool's body_cap"),
    ],
)
def test_what_is_not_json_is_told_with_its_call(result: Result, message: str) -> None:
    """As json.JSONDecodeError, which httpx raises too; of the body only the beginning is told."""
    with pytest.raises(json.JSONDecodeError, match=message) as caught:
        result.json()
    assert len(caught.value.msg) < 400


def test_a_failed_call_raises_when_it_is_asked() -> None:
    """Status, call and the beginning of the body are told, in our tree of errors; a long body on one short line."""
    result = answered(b'{"error":\n  "no such place"}', 404, id="oslo")
    with pytest.raises(CallFailed) as caught:
        result.raise_for_status()
    error = caught.value
    assert isinstance(error, ApifluxError)
    assert str(error) == """HTTP_4XX: calls[3] (id 'oslo') was answered 404: {"error": "no such place"}"""
    assert (error.reason, error.status_code, error.index, error.id, error.may_have_run) == (
        "HTTP_4XX",
        404,
        3,
        "oslo",
        True,
    )
    assert result.json() == {"error": "no such place"}  # which httpx gives too, whatever the status
    with pytest.raises(CallFailed) as caught:
        answered(b"\x1b[31m" + b"x" * 100_000, 404).raise_for_status()
    assert str(caught.value).startswith("HTTP_4XX: calls[3] was answered 404: \ufffd[31mxxx")
    assert len(str(caught.value)) < 300
    with pytest.raises(CallFailed, match=r"^HTTP_4XX: calls\[3\] was answered 404$"):
        answered(b"", 404).raise_for_status()


def test_a_call_without_response_is_never_an_empty_one() -> None:
    """Its status is None, and whoever reads what came hears why nothing did, and whether it may have run."""
    result = unanswered()
    assert result.status_code is None
    told = "TIMEOUT: calls[3] (id 'oslo') has no response: no answer within 30 s; it may have run"
    for read in (
        lambda: result.headers,
        lambda: result.content,
        lambda: result.text,
        result.json,
        result.raise_for_status,
    ):
        with pytest.raises(CallFailed) as caught:
            read()
        assert (str(caught.value), caught.value.status_code, caught.value.may_have_run) == (told, None, True)
    with pytest.raises(CallFailed, match=r"; it did not run$") as caught:
        unanswered("false").raise_for_status()
    assert not caught.value.may_have_run
