"""Whatever API is spoken, a fault that is a status says what that API says of it."""

import json

import pytest

from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.report import Report
from tests.judge.apis.asking import ask, speaks
from tests.judge.wires import SECOND, SECRET, request


def test_head_is_answered_as_get_is() -> None:
    """The same head, and no body."""
    wire = speaks("openai")
    wire.send(request("/v1/models", f"Authorization: Bearer {SECRET}", method="HEAD"))
    head, _, body = bytes(wire.sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b""


def test_what_the_api_refuses_is_counted() -> None:
    """By its status, of accepted arrivals alone, and until the next reset; the report has it as JSON too."""
    wire = speaks("google-maps", Limit(3, SECOND))
    for target in ("/nothing", "/maps/api/geocode/json", "/maps/api/geocode/json?address=A", "/nothing"):
        ask(wire, target)
    ask(wire, "/nothing", key="wrong")
    report = wire.judge.report()
    assert report.refused == {404: 1, 400: 1}
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    wire.judge.control(b"POST", b"/_judge/reset")
    assert wire.judge.report().refused == {}


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("api", "fault", "word"),
    [
        ("openai", "500", b'"type":"server_error"'),
        ("openai", "429;retry-after=2", b'"code":"rate_limit_exceeded"'),
        ("anthropic", "529", b'"type":"overloaded_error"'),
        ("anthropic", "502", b'"type":"api_error"'),
        ("github", "401", b'"message":"Bad credentials"'),
    ],
)
async def test_injected_errors_have_the_shape_of_the_api(api: str, fault: str, word: bytes) -> None:
    """A fault that is a status says what the API says, with the headers that every answer has."""
    wire = speaks(api)
    field = f"x-api-key: {SECRET}" if api == "anthropic" else f"Authorization: Bearer {SECRET}"
    [(status, body)] = await wire.exchange(
        request("/user", field, "anthropic-version: 1", "User-Agent: x", fault=fault)
    )
    assert status == int(fault[:3])
    assert word in body
    assert b"request-id: " in wire.sent
    assert (b"Retry-After: 2" in wire.sent) == ("retry" in fault)
