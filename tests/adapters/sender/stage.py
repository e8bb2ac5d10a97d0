"""A sender against a hostile server, and the rules that hold for every attempt against it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop
from aiohttp.client_proto import ResponseHandler

from apiflux_grpc.adapters.http_settings import HttpSettings
from apiflux_grpc.adapters.sender.connection import Connection
from apiflux_grpc.adapters.upstream_aiohttp import AiohttpUpstream
from apiflux_grpc.adapters.upstream_http import HttpUpstream
from apiflux_grpc.core.call import Call, Pairs
from apiflux_grpc.core.model import Key
from apiflux_grpc.core.outcome import Answer, NotSent, Outcome, Unknown
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.ports import Upstream
from apiflux_grpc.testing import Watch
from tests.adapters.sender.hostile import Hostile
from tests.adapters.sender.script import ECHO, GATE
from tests.adapters.sender.taken import listening
from tests.adapters.sender.waiting import passes, until
from tests.clock import Clock

CANARY: Final = "sk-canary/7f3a+9b"  # a secret that looks different in a URL, in JSON and in base64
KEY: Final = Key("team-a", CANARY, ())
LONG: Final = 3600 * SECOND  # no attempt of a test ends by itself


class Told(Watch):
    """A Watch that also keeps in which order it was told."""

    __slots__ = ("log", "number")

    def __init__(self, number: str, call: Call, timeout: int, taken_at: int | None = None) -> None:
        super().__init__(call, KEY, timeout, taken_at)
        self.number = number
        self.log: list[str] = []

    def sent(self, at: int) -> None:
        self.log.append("sent")
        super().sent(at)

    def done(self, outcome: Outcome) -> None:
        self.log.append("done")
        super().done(outcome)


@dataclass(frozen=True)
class Subject:
    """A sender under test. `ours`: it is held to everything, not only to what the control can do too."""

    make: Callable[..., Upstream]  # of settings and a clock
    protocol: type[asyncio.BaseProtocol]  # of its connections
    ours: bool


@dataclass(frozen=True)
class Authority:
    """A certificate authority made for the tests: its file, and a context for servers on 127.0.0.1."""

    ca_file: Path
    chain_file: Path
    key_file: Path
    context: ssl.SSLContext


class Stage:
    """One upstream against one hostile server. What is begun here is held to the rules when the stage ends."""

    def __init__(self, server: Hostile, upstream: Upstream, clock: Clock) -> None:
        self.clock = clock
        self.server = server
        self.upstream = upstream
        self.told: list[Told] = []
        self.noise: list[str] = []  # what the loop's exception handler was told

    def begin(
        self,
        path: str = "/",
        method: str = "GET",
        body: bytes = b"",
        headers: Pairs = (),
        query: Pairs = (),
        timeout: int = LONG,
        send_by: int | None = None,
        repeat: bool = True,
    ) -> Told:
        number = f"{len(self.told):06}"
        call = Call(method, path, (*query, ("n", number)), headers, body, idempotent=repeat)
        told = Told(number, call, timeout, self.clock())
        told.send_by = send_by
        self.told.append(told)
        self.upstream.begin(told)
        assert "done" not in told.log, "done inside begin"
        return told

    async def call(self, path: str = "/", method: str = "GET", **more: Any) -> Outcome:
        """Begins a call and waits for its end."""
        return await self.begin(path, method, **more).over()

    async def answer(self, path: str = "/", method: str = "GET", **more: Any) -> Answer:
        """The same, of one that is answered."""
        outcome = await self.call(path, method, **more)
        assert isinstance(outcome, Answer), outcome
        return outcome

    async def late(self, told: Told) -> Outcome:
        """Its time is up, now."""
        self.clock.advance(told.timeout + SECOND)
        return await told.over()

    async def follow(self, path: str = "/follow") -> None:
        """A call that nothing hinders gets its own answer."""
        outcome = await self.call(path)
        number = self.told[-1].number
        assert isinstance(outcome, Answer), outcome
        assert (outcome.status, outcome.body, outcome.fault) == (200, number.encode(), None), outcome

    def cancel(self, told: Told) -> None:
        was_done = "done" in told.log
        self.upstream.cancel(told)
        assert was_done or "done" not in told.log, "done inside cancel"

    def watch(self, upstream: Upstream, timeout: int = LONG) -> Watch:
        """A call on another upstream, towards the same server; no rule is applied to it."""
        watch = Watch(Call(), KEY, timeout, self.clock())
        upstream.begin(watch)
        return watch

    async def together(self, count: int) -> None:
        """`count` calls at once, which leave as many idle connections."""
        self.server.gate.clear()
        self.server.on("/together", GATE, ECHO)
        told = [self.begin("/together") for _ in range(count)]
        await until(lambda: self.server.by_path()["/together"] >= count)
        self.server.gate.set()
        for one in told:
            assert isinstance(await one.over(), Answer)
        assert self.server.open == count

    async def cancelled(self, told: Told) -> Outcome:
        """Cancels it, twice, and waits for its end."""
        self.cancel(told)
        self.cancel(told)
        outcome = await told.over()
        self.cancel(told)
        return outcome

    async def end(self) -> None:
        """Closes the upstream and applies the rules to everything that was begun."""
        await self.upstream.close()
        assert all("done" in told.log for told in self.told), "close returned before everything was done"
        await self.server.quiet()
        await passes()
        self.check()

    def check(self) -> None:
        seen, nameless = self.server.seen(), self.server.nameless()
        arrived = {request.number: request.at for request in self.server.requests}
        unseen = 0
        for told in self.told:
            assert told.log in (["done"], ["sent", "done"]), (told.log, told.outcomes)
            outcome, arrivals = told.outcomes[0], seen[told.number]
            where = f"call {told.number} to {told.call.path}: {outcome}, {told.log}, seen {arrivals} times"
            if isinstance(outcome, NotSent):
                assert arrivals == 0, where
                assert not told.sent_at, where
                continue
            assert told.sent_at, where
            assert told.permit.taken_at <= told.sent_at[0], where
            assert arrivals == 1 or (arrivals == 0 and isinstance(outcome, Unknown)), where
            unseen += not arrivals
            if isinstance(outcome, Answer):
                assert told.sent_at[0] <= outcome.answered_at, where
            if told.number in arrived:
                assert told.sent_at[0] <= arrived[told.number], f"{where}, sent after its arrival"
        assert set(seen) <= {told.number for told in self.told}
        assert nameless <= unseen, f"{nameless} cut requests came in, of {unseen} calls that may have sent one"
        assert not self.noise, "\n".join(self.noise)


@dataclass(frozen=True)
class World:
    """A sender, a loop, and TLS or not: what every gate is run in."""

    subject: Subject
    loop: str
    runner: asyncio.Runner
    clock: Clock
    authority: Authority | None  # None: plain

    @property
    def ours(self) -> bool:
        return self.subject.ours

    @property
    def tls(self) -> bool:
        return self.authority is not None

    def run(self, work: Coroutine[Any, Any, None], seconds: float = 50.0) -> None:
        """Runs it to its end; a loop that only waits would outlive the test's timeout."""
        self.runner.run(self.clock.at_most(seconds, work))

    def settings(self, url: str, **more: Any) -> HttpSettings:
        """Settings towards `url`."""
        if self.authority is not None:
            more.setdefault("ca_file", str(self.authority.ca_file))
        return HttpSettings(base_url=url, **more)

    @asynccontextmanager
    async def upstream(self, url: str, **more: Any) -> AsyncIterator[Upstream]:
        """An upstream without a hostile server."""
        upstream = self.subject.make(self.settings(url, **more), self.clock)
        yield upstream
        await upstream.close()

    async def ask(self, url: str, **more: Any) -> Outcome:
        """What becomes of a call to `url`."""
        async with self.upstream(url, **more) as upstream:
            watch = Watch(Call(), KEY, taken_at=self.clock())
            upstream.begin(watch)
            outcome = await watch.over()
            assert bool(watch.sent_at) != isinstance(outcome, NotSent)
            return outcome

    @asynccontextmanager
    async def stage(self, **more: Any) -> AsyncIterator[Stage]:
        with listening(self.subject.protocol) as taken:
            server = Hostile(self.authority.context if self.authority else None, self.clock, taken)
            upstream = self.subject.make(self.settings(server.url, **more), self.clock)
            stage = Stage(server, upstream, self.clock)
            asyncio.get_running_loop().set_exception_handler(lambda _, what: stage.noise.append(str(what)))
            try:
                yield stage
                await stage.end()
            finally:
                await upstream.close()
                await server.stop()


LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
SUBJECTS: Final = {
    "http": Subject(HttpUpstream, Connection, ours=True),
    "aiohttp": Subject(AiohttpUpstream, ResponseHandler, ours=False),
}
