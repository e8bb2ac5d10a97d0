"""Answers and faults leave in the order of the requests, whatever each of them does; on a transport in memory."""

import asyncio
import socket

import pytest

from apiflux_grpc.judge.answers import PIPELINE_CAP
from apiflux_grpc.judge.faults import (
    ELSEWHERE,
)
from apiflux_grpc.judge.limits import Limit
from tests.judge.wires import MINUTE, OK, RST, SECOND, Wire, answers, request, statuses


@pytest.mark.looptime
async def test_latency_keeps_the_order() -> None:
    """Answers take a time within the range, leave in the order of the requests, and are in flight until then."""
    wire = Wire(Limit(2, MINUTE), latency_ns=(10_000_000, 50_000_000))
    assert wire.send(b"".join(request(f"/{at}") for at in range(4))) == []
    assert wire.judge.in_flight == 4
    await asyncio.sleep(0.009)
    assert wire.answers() == []
    await asyncio.sleep(0.042)
    assert statuses(wire.answers()) == [200, 200, 429, 429]
    assert wire.judge.in_flight == 0


@pytest.mark.looptime
async def test_nothing_overtakes_a_waiting_answer() -> None:
    """A control request or bad HTTP behind a call isn't answered before the call is."""
    wire = Wire(latency_ns=(10_000_000, 10_000_000))
    assert wire.send(request("/a", key="wrong") + request("/_judge/nothing") + b"bad HTTP\r\n\r\n") == []
    await asyncio.sleep(0.02)
    assert statuses(wire.answers()) == [401, 404, 400]


@pytest.mark.looptime
async def test_a_lost_connection_is_no_longer_in_flight() -> None:
    """When a client goes, its waiting answers go with it."""
    wire = Wire(latency_ns=(10_000_000, 10_000_000))
    wire.send(request("/a") + request("/b"))
    wire.connection.connection_lost(None)
    assert wire.judge.in_flight == 0
    await asyncio.sleep(1)
    assert wire.sent == b""
    assert wire.judge.in_flight == 0


@pytest.mark.looptime
async def test_a_half_closed_client_gets_its_answer() -> None:
    """A client that sends its end early still gets the answers that it waits for."""
    wire = Wire(latency_ns=(10_000_000, 10_000_000))
    wire.send(request("/a"))
    assert wire.connection.eof_received()
    await asyncio.sleep(0.02)
    assert statuses(wire.answers()) == [200]
    assert wire.half_closed


@pytest.mark.looptime
async def test_a_client_that_reads_nothing_is_not_read() -> None:
    """Too many waiting answers, or a full transport, stop the reading until there is room again."""
    wire = Wire(latency_ns=(10_000_000, 10_000_000))
    seen = []
    wire.send(request("/a") * PIPELINE_CAP)
    seen.append(wire.paused)
    await asyncio.sleep(0.02)
    seen.append(wire.paused)
    wire.connection.pause_writing()
    seen.append(wire.paused)
    wire.connection.resume_writing()
    seen.append(wire.paused)
    assert seen == [True, False, True, False]


@pytest.mark.looptime
@pytest.mark.parametrize("status", [401, 429, 500, 503])
@pytest.mark.parametrize(
    ("parameter", "field"),
    [
        ("", b""),
        (";retry-after=2", b"\r\nRetry-After: 2\r\n"),
        (";retry-date=2", b"\r\nRetry-After: Sun, 09 Sep 2001 01:46:43 GMT\r\n"),
        (";retry-date=-2", b"\r\nRetry-After: Sun, 09 Sep 2001 01:46:39 GMT\r\n"),
    ],
)
async def test_a_status(status: int, parameter: str, field: bytes) -> None:
    """A status is answered whole, with Retry-After only as asked for, and the connection goes on."""
    wire = Wire()
    assert statuses(await wire.exchange(request("/a", fault=f"{status}{parameter}"))) == [status]
    assert field in wire.sent
    assert (b"Retry-After" in wire.sent) == bool(field)
    assert statuses(await wire.exchange(request("/b"))) == [200]
    assert wire.faults == {str(status): 1}


@pytest.mark.looptime
async def test_a_redirect() -> None:
    """A redirect is a 302 to the address that was given, or else to another host."""
    wire = Wire()
    assert statuses(await wire.exchange(request("/a", fault="redirect;to=http://127.0.0.2:8/x"))) == [302]
    assert b"\r\nLocation: http://127.0.0.2:8/x\r\n" in wire.sent
    await wire.exchange(request("/b", fault="redirect"))
    assert f"\r\nLocation: {ELSEWHERE}\r\n".encode() in wire.sent


@pytest.mark.looptime
async def test_a_hang() -> None:
    """A call that hangs gets no byte and is in flight until its client goes; what comes behind it is recorded."""
    wire = Wire()
    assert await wire.exchange(request("/a") + request("/b", fault="hang") + request("/c")) == [OK]
    await asyncio.sleep(3600)
    assert (len(answers(bytes(wire.sent))), wire.judge.in_flight, wire.judge.report().arrivals) == (1, 2, 3)
    assert not wire.connection.eof_received()  # so the transport closes
    wire.abort()
    assert wire.judge.in_flight == 0
    assert not wire.judge.connections


@pytest.mark.looptime
async def test_a_hang_whose_client_has_gone() -> None:
    """A hang that begins when its client has sent its end doesn't keep the connection; what is before is answered."""
    wire = Wire(latency_ns=(SECOND, SECOND))
    wire.connection.data_received(request("/a") + request("/b", fault="hang"))
    assert wire.connection.eof_received()
    await asyncio.sleep(2)
    assert statuses(answers(bytes(wire.sent))) == [200]
    assert wire.aborted
    assert wire.judge.in_flight == 0


@pytest.mark.looptime
async def test_a_hang_that_is_flooded_ends() -> None:
    """A client that sends without end behind a hang is cut off: it could not be read any more."""
    wire = Wire()
    seen = []
    for data in (request("/a", fault="hang") + request("/b") * (PIPELINE_CAP - 1), request("/c")):
        await wire.exchange(data)
        seen.append(wire.aborted)
    assert seen == [False, True]
    assert wire.judge.in_flight == 0


@pytest.mark.looptime
async def test_a_slow_body() -> None:
    """A slow body comes byte by byte and is whole in the end; what is behind it waits."""
    wire = Wire()
    wire.connection.data_received(request("/a", fault="slow;size=5;every=1s"))
    await asyncio.sleep(0.5)
    wire.connection.data_received(request("/b"))
    begin = len(wire.sent)
    seen = []
    for _ in range(6):
        await asyncio.sleep(1)
        seen.append(len(wire.sent) - begin)
    assert seen[:4] == [1, 2, 3, 4]
    assert answers(bytes(wire.sent)) == [(200, b"xxxxx"), OK]
    assert wire.judge.in_flight == 0


@pytest.mark.looptime
async def test_a_huge_body() -> None:
    """A huge body isn't written faster than it is read, and is whole in the end."""
    wire = Wire()
    wire.connection.data_received(request("/a", fault="huge;size=1000001"))
    wire.connection.pause_writing()
    await asyncio.sleep(1)
    stalled = len(wire.sent)
    assert stalled < 200
    wire.connection.resume_writing()
    await asyncio.sleep(1)
    [(status, body)] = answers(bytes(wire.sent))
    assert (status, len(body)) == (200, 1_000_001)
    assert (wire.judge.in_flight, wire.half_closed) == (0, False)


@pytest.mark.looptime
async def test_the_last_answer_of_a_connection_may_be_a_fault() -> None:
    """Where the client asks for close, a status or a whole body says so and the connection ends behind it."""
    for fault in ("500", "slow;size=2", "huge;size=2"):
        wire = Wire()
        await wire.exchange(request("/a", "Connection: close", fault=fault) + request("/b"))
        await asyncio.sleep(0.5)
        assert b"\r\nConnection: close\r\n" in wire.sent
        assert len(answers(bytes(wire.sent))) == 1
        assert wire.half_closed


@pytest.mark.looptime
@pytest.mark.parametrize("fault", ["cut", "cut-chunked", "cut-reset", "slow", "huge"])
async def test_head_has_no_body(fault: str) -> None:
    """HEAD gets the head that GET would get and nothing behind it; the connection goes on."""
    wire = Wire()
    wire.connection.data_received(request("/a", fault=fault, method="HEAD"))
    await asyncio.sleep(0.2)
    assert wire.sent.endswith(b"\r\n\r\n")
    assert wire.sent.count(b"\r\n\r\n") == 1
    assert statuses(await wire.exchange(request("/b"))) == [200]


@pytest.mark.looptime
async def test_faults_keep_the_order() -> None:
    """Faults take the judge's latency, leave in the order of the requests, and nothing comes behind a cut."""
    wire = Wire(latency_ns=(10_000_000, 50_000_000))
    slow, cut = (request(f"/{fault}", fault=fault) for fault in ("slow;size=9;every=1ms", "cut;size=10"))
    data = [request("/a"), request("/b", fault="500"), slow, request("/d", key="wrong"), cut, request("/f")]
    wire.connection.data_received(b"".join(data))
    await asyncio.sleep(0.2)
    whole, _, last = bytes(wire.sent).rpartition(b"HTTP/1.1 ")
    assert statuses(answers(whole)) == [200, 500, 200, 401]
    assert last.endswith(b"\r\n\r\nxxxxx")
    assert wire.half_closed
    assert (wire.judge.in_flight, wire.judge.report().arrivals) == (0, 5)


@pytest.mark.looptime
async def test_a_reset_takes_nothing_but_the_fault() -> None:
    """A reset sets the linger time to nothing and aborts; it leaves nothing in flight."""
    wire = Wire()
    await wire.exchange(request("/a", fault="reset"))
    assert wire.options == [(socket.SOL_SOCKET, socket.SO_LINGER, RST)]
    assert (wire.aborted, bytes(wire.sent), wire.judge.in_flight) == (True, b"", 0)


@pytest.mark.looptime
@pytest.mark.parametrize("fault", ["hang", "slow", "huge", "cut-reset", "reset-in-head", "500"])
@pytest.mark.parametrize("moment", [0.0, 0.005, 0.15])
async def test_a_client_may_vanish_at_any_moment(fault: str, moment: float) -> None:
    """When a client goes, its fault goes with it: nothing is written, nothing is in flight, no timer counts twice."""
    wire = Wire(latency_ns=(2_000_000, 2_000_000))
    wire.connection.data_received(request("/a", fault=fault) + request("/b") * 3)
    await asyncio.sleep(moment)
    wire.abort()
    await asyncio.sleep(10)
    assert wire.judge.in_flight == 0
    assert not wire.judge.connections
