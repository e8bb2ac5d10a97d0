"""What a client sends is read the same however it is cut, and what is no request is refused."""

import asyncio
import json

import pytest

from apiflux_grpc.judge.connection import BODY_CAP, HEAD_CAP
from apiflux_grpc.judge.judge import TICK_NS
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import (
    parse_key_in,
)
from tests.judge.wires import MINUTE, OK, SECRET, Wire, request, statuses


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests in one chunk get one answer each, in their order, in one write."""
    wire = Wire(Limit(1, MINUTE))
    assert statuses(wire.send(request("/a") + request("/b", key="wrong") + request("/c"))) == [200, 401, 429]


async def test_any_split_of_the_bytes_is_read_the_same() -> None:
    """Where the chunks end makes no difference to what is recorded and answered."""
    wire = Wire()
    data = request("/a", "Content-Length: 2", "X-Call-Id: one", method="POST") + b"{}" + request("/b")
    answers = [answer for at in range(len(data)) for answer in wire.send(data[at : at + 1])]
    assert answers == [OK] * 2
    assert wire.judge.report().accepted == 2


async def test_the_first_byte_is_the_arrival() -> None:
    """A request is stamped by its first byte, however late the rest of its head comes."""
    wire = Wire(Limit(1, 100))
    data = request("/a")
    wire.send(data[:1])
    wire.now = 99
    assert statuses(wire.send(data[1:])) == [200]
    wire.now = 100
    assert statuses(wire.send(request("/b"))) == [200]


async def test_a_429_says_when() -> None:
    """Retry-After is in whole seconds, rounded up."""
    wire = Wire(Limit(1, MINUTE))
    wire.send(request("/a"))
    wire.now = 1
    wire.send(request("/b"))
    assert b"\r\nRetry-After: 60\r\n" in wire.sent
    wire.now = MINUTE - 1
    wire.send(request("/c"))
    assert b"\r\nRetry-After: 1\r\n" in wire.sent


@pytest.mark.parametrize(
    ("key_in", "data"),
    [
        ("header:X-Key", request("/a?b=1", f"x-kEY: {SECRET}", key="")),
        ("bearer", request("/a?b=1", f"Authorization: bearer {SECRET}", key="")),
        ("query:key", request(f"/a?key={SECRET}&b=1", key="")),
        ("query:the key", request(f"/a?b=1&the%20key=%63{SECRET[1:]}", key="")),
    ],
)
async def test_the_key_is_found_where_it_should_be(key_in: str, data: bytes) -> None:
    """A key is read from a header, a bearer token or the query, and isn't part of the call's name."""
    wire = Wire(key_in=parse_key_in(key_in))
    assert statuses(wire.send(data + data)) == [200, 200]
    assert wire.judge.report().repeats == (("GET /a?b=1", (1, 1)),)


@pytest.mark.parametrize("headers", [[], [f"Authorization: Basic {SECRET}"], [f"Authorization: {SECRET}"]])
async def test_a_key_elsewhere_is_unknown(headers: list[str]) -> None:
    """Without a bearer token, a request to a judge that expects one has an unknown key."""
    wire = Wire(key_in=parse_key_in("bearer"))
    assert statuses(wire.send(request("/", *headers))) == [401]


async def test_call_and_attempt_are_read() -> None:
    """X-Call-Id names the call, X-Attempt its attempt; one that is no number counts as the first."""
    wire = Wire()
    for target, attempt in [("/a", "2"), ("/b", "3"), ("/c", "x"), ("/d", "9" * 5000)]:
        wire.send(request(target, "X-Call-Id: call-1", f"X-Attempt: {attempt}"))
    assert wire.judge.report().repeats == (("call-1", (2, 3, 1, 1)),)


async def test_control_endpoints_are_not_recorded() -> None:
    """Report, live and reset answer JSON and leave no arrival; another method or path is refused."""
    wire = Wire(Limit(1, MINUTE))
    wire.send(request("/a") + request("/b") + request("/c", key="wrong"))
    live: dict[str, object] = {"arrivals": 3, "unknown_arrivals": 1, "in_flight": 0, "most_in_flight": 0}
    live["keys"] = {"alpha": [1, 1], "beta": [0, 0]}
    [(status, body)] = wire.send(request("/_judge/live"))
    assert (status, json.loads(body)) == (200, live)
    [(status, body)] = wire.send(request("/_judge/report", key=""))
    assert (status, json.loads(body)["arrivals"]) == (200, 3)
    assert statuses(wire.send(request("/_judge/reset") + request("/_judge/nothing"))) == [405, 404]
    assert statuses(wire.send(request("/_judge/reset", method="POST"))) == [200]
    assert wire.judge.report().arrivals == 0


async def test_head_has_no_body() -> None:
    """HEAD is answered with the head that GET would get, and nothing behind it."""
    wire = Wire()
    wire.connection.data_received(request("/a", method="HEAD"))
    assert wire.sent.startswith(b"HTTP/1.1 200 ")
    assert wire.sent.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        request("/a", "Connection: close"),
        request("/a", "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
        request("/a", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
        request("x:1", method="CONNECT"),
    ],
)
async def test_a_last_answer_says_so(data: bytes) -> None:
    """Where the connection won't be used again the answer says close, and what comes behind is ignored."""
    wire = Wire()
    assert statuses(wire.send(data + request("/b"))) == [200]
    assert b"Connection: close\r\n" in wire.sent
    assert wire.half_closed
    assert wire.send(request("/c")) == []
    assert wire.judge.report().arrivals == 1


@pytest.mark.looptime
async def test_bad_http_is_refused() -> None:
    """What isn't HTTP gets a 400, is no arrival, and is cut off a moment later."""
    wire = Wire()
    assert statuses(wire.send(b"\x16\x03\x01\x02\x00 hello")) == [400]
    assert (wire.half_closed, wire.aborted) == (True, False)
    await asyncio.sleep(2)
    assert wire.aborted
    assert wire.judge.report().arrivals == 0


@pytest.mark.parametrize("length", [f"Content-Length: {BODY_CAP + 1}", "Transfer-Encoding: chunked"])
async def test_a_huge_body_is_refused(length: str) -> None:
    """A body above the cap gets a 413 as soon as it is too large; the request did arrive."""
    wire = Wire()
    begin = b"%x\r\n" % (BODY_CAP + 1) if "chunked" in length else b""
    assert wire.send(request("/a", length, method="POST") + begin + bytes(BODY_CAP)) == []
    assert statuses(wire.send(bytes(1))) == [413]
    assert wire.send(bytes(99)) == []
    assert wire.judge.report().arrivals == 1


async def test_a_huge_head_is_refused() -> None:
    """A head that doesn't end is refused above its cap; large bodies before it don't count."""
    wire = Wire()
    body = bytes(HEAD_CAP + 1)
    data = request("/a", f"Content-Length: {len(body)}", method="POST") + body
    assert statuses(wire.send(data + b"GET /b HTTP/1.1\r\nA: ")) == [200]
    assert wire.send(b"b" * HEAD_CAP) == []
    assert statuses(wire.send(b"b")) == [431]


def test_lag_is_the_worst_lateness() -> None:
    """Lag is how far the loop fell behind its next tick at worst, a stall that still lasts included."""
    wire = Wire()
    wire.now = TICK_NS + 5
    assert wire.judge.report().max_lag_ns == 5
    wire.judge.lag.reset()
    assert wire.judge.report().max_lag_ns == 0
