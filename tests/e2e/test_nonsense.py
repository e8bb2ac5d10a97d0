"""What is no request: bytes, frames, metadata and paths of any kind end their own request alone.

A served instance is told it, since an exception at the wrong place ends a process, not a test.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from apiflux_grpc.client import Client, SyncClient
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.e2e.http2 import PREFACE, PSEUDO, SERVICE, SETTINGS, answer_to, frame, is_text, request_frames
from tests.e2e.pairs import OWN_CONNECTION, Front, Pair, ask, fronted, gets, idle, name_of, run, until

SECOND = 1_000_000_000
WIDE = Limit(100_000, SECOND)
FUZZ = hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALID = pb.ProcessRequest(
    calls=[
        pb.Call(
            path="/fuzz/1",
            query=[pb.QueryParameter(name="a", value="b")],
            headers=[pb.Header(name="x-a", value="b")],
            cost=1,
        ),
        pb.Call(id="two", method="POST", path="/fuzz/2", body=b"{}", idempotent=True),
    ],
    correlation_id="fuzz",
    retry=pb.RetryPolicy(max_attempts=2, reasons=[pb.REASON_NOT_SENT]),
).SerializeToString()


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, Pair]]:
    """A server that is told nonsense, a judge that hears as little of it as can be, and one that is slow."""
    fronts = {
        "default": Front(WIDE, latency=(0, 1)),
        "slow": Front(WIDE, "max_in_flight = 5", latency=(20, 40)),
    }
    with fronted(fronts) as pairs:
        yield pairs


@pytest.fixture
def plain(running: dict[str, Pair]) -> Pair:
    return running["default"]


@pytest.fixture(scope="module")
def channel(running: dict[str, Pair]) -> Iterator[grpc.Channel]:
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(running["default"].target, options=options) as channel:
        yield channel


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid message with some bytes changed, put in or taken out."""
    message = bytearray(VALID)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(message) - 1))
        length = draw(st.integers(0, 3))
        message[at : at + length] = draw(st.binary(max_size=3))
    return bytes(message)


def still_serving(pair: Pair, name: str) -> None:
    """Another client gets its results, and nothing else is open."""
    with SyncClient(pair.target, options=OWN_CONNECTION) as client:
        results = list(client.process(gets(f"after-{name}", 5)))
        assert [result.ok for result in results] == [True] * 5
        info = client.info()
    assert (info.open_batches, info.open_calls) == (0, 0)
    report = pair.judge.report()
    assert (report.rejected, report.unknown_arrivals) == (0, 0)
    assert report.worst <= 1.0
    arrived = pair.judge.calls()
    assert [arrived[name_of(call)] for call in gets(f"after-{name}", 5)] == [1] * 5


def test_bytes_that_are_no_message_are_refused(plain: Pair, channel: grpc.Channel) -> None:
    """Whatever comes is carried out if it is a valid request, and else is INVALID_ARGUMENT; the next one is served."""
    codes: Counter[str] = Counter()

    @FUZZ
    @given(st.one_of(st.binary(max_size=200), damaged()))
    def fuzz(message: bytes) -> None:
        process: Any = channel.unary_stream(f"{SERVICE}/Process")
        code = "OK"
        try:
            for _ in process(message, timeout=20):
                pass
        except grpc.RpcError as error:
            failed: Any = error
            code = failed.code().name
            assert failed.details()
        codes[code] += 1
        try:
            pool = pb.ProcessRequest.FromString(message).pool
        except Exception:
            assert code == "INVALID_ARGUMENT"
        else:
            assert code in ("OK", "INVALID_ARGUMENT" if pool in ("", "default") else "NOT_FOUND")

    fuzz()
    assert codes["INVALID_ARGUMENT"]
    still_serving(plain, "bytes")


@pytest.mark.parametrize("method", ["Process", "GetInfo", "Estimate"])
def test_a_broken_message_is_told_as_such(plain: Pair, channel: grpc.Channel, method: str) -> None:
    """INVALID_ARGUMENT with a reason, in our words and not as an exception of ours."""
    before = len(plain.served.stderr)
    ask_it: Any = (
        channel.unary_stream(f"{SERVICE}/{method}")
        if method == "Process"
        else channel.unary_unary(f"{SERVICE}/{method}")
    )
    with pytest.raises(grpc.RpcError) as caught:
        list(ask_it(b"\xff\xff", timeout=20))
    failed: Any = caught.value
    assert failed.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert b"INVALID_REQUEST" in dict(failed.trailing_metadata())["grpc-status-details-bin"]
    assert "<class" not in failed.details()
    assert "Traceback" not in plain.served.stderr[before:]
    still_serving(plain, f"broken-{method}")


NAMES = st.one_of(
    st.sampled_from([*PSEUDO, b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding", b"user-agent", b"x-bin"]),
    st.binary(min_size=1, max_size=20),
)
FRAMES = st.builds(frame, st.integers(0, 12), st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=40))
WIRE = st.one_of(
    st.binary(max_size=200),
    st.lists(FRAMES, max_size=6).map(lambda frames: PREFACE + frame(SETTINGS, 0, 0) + b"".join(frames)),
    st.dictionaries(NAMES, st.binary(max_size=60), max_size=6)
    .filter(lambda fields: is_text(fields.get(b":path", b"")))  # else: the test below
    .map(lambda fields: PREFACE + frame(SETTINGS, 0, 0) + request_frames(1, VALID, fields)),
)


def test_bytes_and_metadata_that_are_no_request_end_their_connection_alone(plain: Pair) -> None:
    """Raw bytes, frames that make no sense, headers of any bytes: it is answered or closed, and others are served."""
    said: Counter[bool] = Counter()

    @FUZZ
    @given(WIRE)
    def fuzz(wire: bytes) -> None:
        said[bool(answer_to(plain.target, wire))] += 1

    fuzz()
    assert said[True] > 50
    still_serving(plain, "wire")


async def test_a_path_of_any_bytes_ends_its_own_request_alone(running: dict[str, Pair]) -> None:
    """One that isn't UTF-8 names a method that nobody serves: streams of others go on, and new ones are served."""
    pair = running["slow"].fresh()
    async with Client(pair.target) as client, Client(pair.target, options=OWN_CONNECTION) as new:
        other = asyncio.create_task(run(client, gets("other", 200), pair.pool))

        async def under_way() -> bool:
            return pair.judge.live().arrivals > 20

        await until(under_way)
        for path in (b"/\xff\xfe", b"\x80", b"/apiflux.v1.FluxService/\xc3"):
            wire = PREFACE + frame(SETTINGS, 0, 0) + request_frames(1, VALID, {b":path": path})
            answer = await asyncio.to_thread(answer_to, pair.target, wire, b"grpc-message")
            assert b"\x0212" in answer  # grpc-status: UNIMPLEMENTED
        done = [await other, await run(new, gets("new", 20), pair.pool)]
        await idle(client)
    assert all(result.ok and result.attempts == 1 for batch in done for result in batch.values())
    ask(pair, *done)
