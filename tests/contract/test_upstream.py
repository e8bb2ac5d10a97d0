"""The contract of the port, over every upstream: what the engine may rely on wherever calls go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from apiflux_grpc.adapters.http_settings import HttpSettings
from apiflux_grpc.adapters.upstream_aiohttp import AiohttpUpstream
from apiflux_grpc.adapters.upstream_http import HttpUpstream
from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.outcome import Answer, NotSent, Outcome, Reason, Unknown
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.engine.ports import Upstream
from apiflux_grpc.testing import FakeUpstream, Watch
from tests.clock import Clock

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"ok":true}'
ANSWERED = Call(path="/answered")
HANGING = Call(path="/hanging")
LONG = 3600 * SECOND

Make = Callable[[], Upstream]


@pytest.fixture
async def clock() -> Clock:
    """The clock of the test's loop, which the test moves on."""
    return Clock(asyncio.get_running_loop())


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers /answered, reads /hanging and says nothing."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while b"/answered" in await reader.readuntil(b"\r\n\r\n"):
            writer.write(ANSWER)
        await reader.read()
    writer.close()


@pytest.fixture
async def base_url() -> AsyncIterator[str]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


@pytest.fixture(params=["http", "aiohttp", "simulated", "simulated, 1-3 ms"])
async def answering(request: pytest.FixtureRequest, base_url: str) -> AsyncIterator[Upstream]:
    """An upstream that answers."""
    make: dict[str, Make] = {
        "aiohttp": lambda: AiohttpUpstream(HttpSettings(base_url=base_url)),
        "http": lambda: HttpUpstream(HttpSettings(base_url=base_url)),
        "simulated": SimulatedUpstream,
        "simulated, 1-3 ms": lambda: SimulatedUpstream((MILLISECOND, 3 * MILLISECOND)),
    }
    upstream = make[request.param]()
    yield upstream
    await upstream.close()


@pytest.fixture(params=["http", "aiohttp", "simulated", "fake"])
async def hanging(request: pytest.FixtureRequest, base_url: str, clock: Clock) -> AsyncIterator[Upstream]:
    """An upstream that takes a call and never answers."""
    make: dict[str, Make] = {
        "aiohttp": lambda: AiohttpUpstream(HttpSettings(base_url=base_url), clock),
        "http": lambda: HttpUpstream(HttpSettings(base_url=base_url), clock),
        "simulated": lambda: SimulatedUpstream((LONG, LONG), clock=clock),
        "fake": FakeUpstream,
    }
    upstream = make[request.param]()
    yield upstream
    await upstream.close()


# Time never ends an attempt of the fake.
timed = pytest.mark.parametrize("hanging", ["http", "aiohttp", "simulated"], indirect=True)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.001)


async def begun(upstream: Upstream, watch: Watch) -> None:
    """Begin, and wait until it is sent."""
    upstream.begin(watch)
    if isinstance(upstream, FakeUpstream):
        upstream.send(watch)
    await until(lambda: watch.sent_at)


async def settle() -> None:
    """Long enough for a second `done` to show."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_an_answer(answering: Upstream) -> None:
    """A call is sent, then done, each once, and neither `done` nor an exception comes out of `begin`."""
    before = time.monotonic_ns()
    watch = Watch(ANSWERED)
    answering.begin(watch)
    assert watch.outcomes == []
    outcome = await watch.over()
    await settle()
    assert isinstance(outcome, Answer)
    assert outcome.status == 200
    assert outcome.body == b'{"ok":true}'
    assert outcome.headers["content-type"] == "application/json"
    assert outcome.fault is None
    assert not outcome.truncated
    assert len(watch.outcomes) == len(watch.sent_at) == 1
    assert before <= watch.sent_at[0] <= outcome.answered_at <= time.monotonic_ns()


async def test_many_at_once(answering: Upstream) -> None:
    """Each of a hundred attempts begun together is done once."""
    watches = [Watch(ANSWERED) for _ in range(100)]
    for watch in watches:
        answering.begin(watch)
    await asyncio.gather(*(watch.over() for watch in watches))
    await settle()
    assert all(len(watch.outcomes) == 1 for watch in watches)


async def test_begin_inside_done(answering: Upstream) -> None:
    """The next attempt may be begun, and another one cancelled, while `done` is being told."""
    second, third = Watch(ANSWERED), Watch(ANSWERED)

    class First(Watch):
        def done(self, outcome: Outcome) -> None:
            super().done(outcome)
            answering.begin(second)
            answering.cancel(third)

    first = First(ANSWERED)
    answering.begin(first)
    answering.begin(third)
    await asyncio.gather(first.over(), second.over(), third.over())
    await settle()
    assert [len(watch.outcomes) for watch in (first, second, third)] == [1, 1, 1]


async def test_sent_before_done(hanging: Upstream) -> None:
    """`sent` is told at the write and not only with the outcome: a hanging call is sent and not done."""
    watch = Watch(HANGING, timeout=LONG)
    await begun(hanging, watch)
    assert watch.outcomes == []
    assert len(watch.sent_at) == 1


async def test_cancel_at_once(hanging: Upstream) -> None:
    """A cancel right after `begin` ends it soon, not inside the cancel, as NotSent or, if it was sent, as Unknown."""
    watch = Watch(HANGING, timeout=LONG)
    hanging.begin(watch)
    hanging.cancel(watch)
    assert watch.outcomes == []
    outcome = await watch.over()
    assert isinstance(outcome, Unknown if watch.sent_at else NotSent)


async def test_cancel_after_sent(hanging: Upstream) -> None:
    """A call that was sent and cancelled is Unknown, once, however often it is cancelled."""
    watch = Watch(HANGING, timeout=LONG)
    await begun(hanging, watch)
    hanging.cancel(watch)
    hanging.cancel(watch)
    outcome = await watch.over()
    hanging.cancel(watch)
    await settle()
    assert isinstance(outcome, Unknown)
    assert outcome.reason is Reason.UNKNOWN
    assert len(watch.outcomes) == 1


async def test_cancel_after_done(answering: Upstream) -> None:
    """Cancelling what is over changes nothing."""
    watch = Watch(ANSWERED)
    answering.begin(watch)
    await watch.over()
    answering.cancel(watch)
    await settle()
    assert len(watch.outcomes) == 1


@pytest.mark.parametrize("passes", range(12))
async def test_cancel_at_every_pass(answering: Upstream, passes: int) -> None:
    """Whenever the cancel comes, the attempt is done once, and never NotSent when it was sent."""
    watch = Watch(ANSWERED)
    answering.begin(watch)
    for _ in range(passes):
        await asyncio.sleep(0)
    answering.cancel(watch)
    outcome = await watch.over()
    await settle()
    assert len(watch.outcomes) == 1
    assert not (watch.sent_at and isinstance(outcome, NotSent))
    assert watch.sent_at or not isinstance(outcome, Answer)


async def test_close(hanging: Upstream) -> None:
    """When `close` has returned, everything is done: as Unknown what was sent."""
    watches = [Watch(HANGING, timeout=LONG) for _ in range(5)]
    for watch in watches[:4]:
        await begun(hanging, watch)
    hanging.begin(watches[4])
    await hanging.close()
    assert [len(watch.outcomes) for watch in watches] == [1] * 5
    assert all(isinstance(watch.outcomes[0], Unknown) for watch in watches[:4])
    await hanging.close()


async def test_close_at_once(hanging: Upstream) -> None:
    """A close right behind the first `begin` still returns only when that is done."""
    watch = Watch(HANGING, timeout=LONG)
    hanging.begin(watch)
    await hanging.close()
    assert len(watch.outcomes) == 1


async def test_begin_after_close(hanging: Upstream) -> None:
    """What is begun too late ends as NotSent, and not inside `begin`."""
    await hanging.close()
    watch = Watch(HANGING)
    hanging.begin(watch)
    assert watch.outcomes == []
    assert isinstance(await watch.over(), NotSent)
    assert watch.sent_at == []


@timed
async def test_timeout(hanging: Upstream, clock: Clock) -> None:
    """A call that was sent and has no answer in time is Unknown with the reason TIMEOUT, and not earlier."""
    watch = Watch(HANGING, timeout=LONG - SECOND)
    await begun(hanging, watch)
    clock.advance(LONG // 2)
    await settle()
    assert watch.outcomes == []
    clock.advance(LONG // 2)
    outcome = await watch.over()
    assert isinstance(outcome, Unknown)
    assert outcome.reason is Reason.TIMEOUT
    assert len(watch.sent_at) == 1


@timed
async def test_timeout_runs_from_the_permit(hanging: Upstream) -> None:
    """An attempt whose time has passed before it begins is not sent."""
    watch = Watch(HANGING, timeout=SECOND, taken_at=time.monotonic_ns() - 2 * SECOND)
    hanging.begin(watch)
    assert isinstance(await watch.over(), NotSent)
    assert watch.sent_at == []
