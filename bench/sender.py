"""Section sender: our sender alone against aiohttp, plain and over TLS, and a storm of faults and cancels."""

from __future__ import annotations

import asyncio
import random
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import psutil
import trustme

from apiflux_grpc.adapters.http_settings import HttpSettings
from apiflux_grpc.adapters.upstream_http import HttpUpstream
from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.keys import KeyState
from apiflux_grpc.core.model import Key
from apiflux_grpc.core.outcome import Answer, NotSent, Outcome
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.engine.ports import Attempt
from apiflux_grpc.judge.faults import parse_chances
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from bench.figures import Figure

SECRET = "bench-secret-1"
KEYS = {"key-1": SECRET}
KEY = Key("key-1", SECRET, ())


RUNS = 3


async def figures() -> list[Figure]:
    found = []
    for case, tls in (("plain", False), ("TLS", True)):
        ratios = [await sender_alone(tls) for _ in range(RUNS)]
        found.append(Figure("sender alone / bare aiohttp loop, 50 at once", ratios, target=0.2, case=case))
    arrivals, twice, left, outcomes = await storm()
    came = ", ".join(f"{count:,} {name}" for name, count in outcomes.most_common())
    name = "storm of 50,000 calls"
    return [
        *found,
        Figure(name, [abs(arrivals)], target=0, case="arrivals other than calls - NotSent", must=True, note=came),
        Figure(name, [twice], target=0, case="calls seen twice", must=True),
        Figure(name, [left], target=0, case="connections left", must=True),
    ]


@contextmanager
def certificate() -> Iterator[tuple[str, str]]:
    """A certificate of 127.0.0.1 that signs itself into trust, and its key: two PEM files."""
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    with tempfile.TemporaryDirectory() as folder:
        cert, key = Path(folder, "cert.pem"), Path(folder, "key.pem")
        cert.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems) + authority.cert_pem.bytes())
        key.write_bytes(server.private_key_pem.bytes())
        yield str(cert), str(key)


class Driver:
    """Keeps `at_once` attempts of an upstream going, without an engine."""

    def __init__(self, upstream: HttpUpstream, at_once: int) -> None:
        self.upstream = upstream
        self.outcomes: Counter[str] = Counter()
        self._loop = asyncio.get_running_loop()
        self._at_once = at_once
        self._state = KeyState(0, KEY, Budget((), 0, None))
        self._batch = Batch(1, "bench", 1, admitted_at=0)
        self._all = asyncio.Event()
        self._next = 0
        self._left = 0
        self.on_begin: Callable[[Attempt], None] = lambda attempt: None

    async def run(self, calls: list[Call], timeout: int = 30 * SECOND) -> None:
        self._calls, self._timeout = calls, timeout
        self._next, self._left = 0, len(calls)
        self._all.clear()
        for _ in range(min(self._at_once, len(calls))):
            self._go()
        await self._all.wait()

    def _go(self) -> None:
        if self._next >= len(self._calls):
            return
        call = self._calls[self._next]
        self._next += 1
        permit = Permit(self._state, self._batch, 0, 1, 1, time.monotonic_ns(), 0)
        attempt = Attempt(permit, call, self._timeout, lambda _, at: None, self._done)
        self.upstream.begin(attempt)
        self.on_begin(attempt)

    def _done(self, attempt: Attempt, outcome: Outcome) -> None:
        name = type(outcome).__name__
        if isinstance(outcome, Answer) and outcome.fault is not None:
            name += ", cut"
        self.outcomes[name] += 1
        self._left -= 1
        if not self._left:
            self._all.set()
        self._loop.call_soon(self._go)


async def sender_alone(tls: bool, calls: int = 10_000, at_once: int = 50) -> float:
    """CPU per call of our sender / of a bare aiohttp loop with a task per call."""
    with certificate() as (cert, key):
        options = JudgeOptions(KEYS, tls_cert=cert if tls else None, tls_key=key if tls else None)
        with JudgeProcess(options) as judge:
            upstream = HttpUpstream(HttpSettings(base_url=judge.url, ca_file=cert if tls else None))
            driver = Driver(upstream, at_once)
            await driver.run([Call(path=f"/warm/{number}") for number in range(at_once)])
            work = [Call(path=f"/own/{number}") for number in range(calls)]
            start = time.process_time()
            await driver.run(work)
            own = time.process_time() - start
            await upstream.close()
            bare = await bare_loop(judge.url, calls, at_once, upstream_tls=cert if tls else None)
            if judge.report().accepted != 2 * calls + 2 * at_once:
                raise RuntimeError("not every call arrived")
    return own / bare


async def bare_loop(url: str, calls: int, at_once: int, upstream_tls: str | None = None, name: str = "bare") -> float:
    """Seconds of CPU of a bare aiohttp loop with a task per call, warm."""
    context = ssl.create_default_context(cafile=upstream_tls) if upstream_tls else True
    gate = asyncio.Semaphore(at_once)
    connector = aiohttp.TCPConnector(limit=0, ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(path: str) -> None:
            async with gate, session.get(f"{url}{path}", headers={"X-API-Key": SECRET}) as got:
                await got.read()

        await asyncio.gather(*(one(f"/{name}-warm/{number}") for number in range(at_once)))
        start = time.process_time()
        await asyncio.gather(*(one(f"/{name}/{number}") for number in range(calls)))
        return time.process_time() - start


async def storm(calls: int = 50_000, seed: int = 1) -> tuple[int, int, int, Counter[str]]:
    """(arrivals - (calls - NotSent), calls seen twice, connections left, outcomes) after a storm of one attempt each.

    A tenth of the calls meets a fault, a tenth is cancelled at some moment, and all have a short timeout.
    """
    random_ = random.Random(seed)
    hundredths = ("503;retry-after=1", "hang", "reset-in-head", "close", "garbage", "cut", "cut-chunked")
    faults = parse_chances(["500=0.02", "reset=0.02", *(f"{fault}=0.01" for fault in hundredths)])
    options = JudgeOptions(KEYS, latency_ns=(0, 20 * MILLISECOND), faults=faults, seed=seed)
    with JudgeProcess(options) as judge:
        upstream = HttpUpstream(HttpSettings(base_url=judge.url))
        driver = Driver(upstream, 300)
        loop = asyncio.get_running_loop()

        def on_begin(attempt: Attempt) -> None:
            if random_.random() < 0.1:
                loop.call_later(random_.random() * 0.02, upstream.cancel, attempt)

        driver.on_begin = on_begin
        work = [Call("POST" if number % 3 else "GET", f"/storm/{number}") for number in range(calls)]
        await driver.run(work, timeout=300 * MILLISECOND)
        await upstream.close()
        await asyncio.sleep(0.2)
        ports = [getattr(one.raddr, "port", 0) for one in psutil.Process().net_connections()]
        left = ports.count(judge.port)
        report = judge.report()
    arrivals = report.arrivals - (calls - driver.outcomes[NotSent.__name__])
    return arrivals, report.seen_twice, left, driver.outcomes
