"""Section upstreams: those that tell what is left of their limits, that others use too, or that refuse for a while.

Rule: every run is bounded in time, and what is said of it is what the judge saw. Runs that differ in nothing but the
upstream go on at once, a part of a window apart, so that their bursts don't meet: they wait nearly all the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from apiflux_grpc.client import Call, Client
from apiflux_grpc.core.units import MILLISECOND, SECOND, format_duration
from apiflux_grpc.judge.dialects import DIALECTS
from apiflux_grpc.judge.faults import Fault, Rejection
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for
from bench import foreign
from bench.cpu import AT_ONCE, WIDE, batches, through
from bench.figures import Figure

Answer = TypeVar("Answer")

LIMIT: Final = Limit(100, 10 * SECOND)
LATENCY: Final = (10 * MILLISECOND, 50 * MILLISECOND)
APART: Final = LIMIT.per_ns / SECOND / len(DIALECTS)  # seconds between the beginnings of runs that go on at once
KEYS: Final = {f"key-{number}": f"bench-secret-{number}" for number in range(1, 6)}
BATCH, IDEAL = 1_500, 20.0
DEADLINE: Final = 90.0  # seconds, of a batch

KINDS: Final = (LIMIT, LIMIT._replace(kind="fixed"), LIMIT._replace(kind="bucket", depth=20))
SHARE: Final = 0.5  # that others take
LONG: Final = (20 * SECOND, 20 * SECOND)
WINDOWS: Final = 6  # that are watched, after those that aren't counted

PAIRS, COSTED = 4, ("ietf", "openai")

REFUSED, REFUSING = 200, 6  # calls, and seconds that their key refuses them


async def figures() -> list[Figure]:
    found = await told()
    found += await beside_others()
    found += await foreign.figures()
    found += await cost_of_headers()
    found += await recovery()
    return found


async def staggered(runs: Iterable[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """The results of these runs, each of which begins a little after the one before."""

    async def later(place: int, run: Coroutine[Any, Any, Answer]) -> Answer:
        await asyncio.sleep(place * APART)
        return await run

    return await asyncio.gather(*(later(place, run) for place, run in enumerate(runs)))


def config(url: str, limit: Limit, keys: Iterable[str], extra: str = "") -> str:
    """The pool in front of this upstream; a fixed window is kept by keeping a sliding one."""
    if limit.kind != "bucket":
        return config_for(url, (limit,), list(keys), extra)
    bucket = f'{{ max = {limit.max}, per = "{format_duration(limit.per_ns)}", kind = "bucket", burst = {limit.depth} }}'
    return config_for(url, (), list(keys), extra).replace("limits = []", f"limits = [{bucket}]")


# -- a batch, with each dialect -------------------------------------------------------------------


async def told() -> list[Figure]:
    """The batch of section peers, against a judge that tells what is left in each dialect, or nothing."""
    with ExitStack() as stack:
        judges, targets = [], []
        for dialect in DIALECTS:
            options = JudgeOptions(KEYS, (LIMIT,), latency_ns=LATENCY, headers=dialect)
            judges.append(stack.enter_context(JudgeProcess(options)))
            text = config(judges[-1].url, LIMIT, KEYS, f"max_connections = {BATCH}")
            targets.append(stack.enter_context(ServedProcess(text, secrets_for(KEYS))).target)
        runs = await staggered(batch(target, BATCH) for target in targets)
        reports = [judge.report() for judge in judges]
    found = []
    for dialect, (seconds, answered), report in zip(DIALECTS, runs, reports, strict=True):
        found += [
            Figure("batch / ideal", [seconds / IDEAL], target=1.02, case=dialect),
            Figure("refused", [report.rejected], target=0, case=dialect, must=True),
            Figure("answered of 1,500", [answered], target=BATCH, better="more", case=dialect, must=True),
        ]
    return found


async def batch(target: str, calls: int) -> tuple[float, int]:
    """The seconds that so many calls took, and how many of them were answered with 200."""
    async with Client(target) as client:
        start = time.perf_counter()
        stream = client.process([Call(f"/{number}") for number in range(calls)], timeout=DEADLINE)
        answered = sum([result.ok async for result in stream])
        return time.perf_counter() - start, answered


# -- beside others --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shared:
    """An upstream of which others take half, from its start on."""

    limit: Limit
    latency: tuple[int, int]

    @property
    def case(self) -> str:
        return f"{self.limit.kind}, {'calls of 20 s' if self.latency is LONG else 'short calls'}"

    async def watch(self) -> tuple[float, float]:
        """(use of what others leave, share of our arrivals that was refused), the beginning not counted."""
        keys = dict([*KEYS.items()][:2])
        options = JudgeOptions(keys, (self.limit,), latency_ns=self.latency, headers="ietf", others=SHARE)
        # Hundreds of calls may be in flight for 20 s, and more than the limits allow have to wait.
        extra = 'max_connections = 2000\ntimeout = "60s"'
        with JudgeProcess(options) as judge:
            text = config(judge.url, self.limit, keys, extra)
            with ServedProcess(text, secrets_for(keys)) as served, suppress(TimeoutError):
                async with Client(served.target) as client:
                    work = asyncio.ensure_future(backlog(client))
                    period = self.limit.per_ns / SECOND
                    # The first window has its own burst; what a long call tells comes as late as its answer.
                    await asyncio.sleep(period + self.latency[1] / SECOND)
                    before, start = seen(judge), time.perf_counter()
                    await asyncio.sleep(WINDOWS * period)
                    after, seconds = seen(judge), time.perf_counter() - start
                    waiting = not work.done()
                    work.cancel()
                    await asyncio.gather(work, return_exceptions=True)
        if not waiting:
            raise RuntimeError(f"{self.case}: no more calls waited")
        accepted, refused = (now - then for now, then in zip(after, before, strict=True))
        left = (1 - SHARE) * self.limit.max * len(keys) * seconds / period
        return accepted / left, refused / max(1, accepted + refused)


async def backlog(client: Client) -> None:
    """More calls than the limits allow."""
    async for _ in client.process([Call(f"/{number}") for number in range(5_000)]):
        pass


def seen(judge: JudgeProcess) -> tuple[int, int]:
    """Calls accepted and refused so far."""
    keys = judge.live().keys.values()
    return sum(accepted for accepted, _ in keys), sum(refused for _, refused in keys)


async def beside_others() -> list[Figure]:
    """Short calls and calls of 20 s, for each kind of limit, all at once."""
    upstreams = [Shared(limit, latency) for latency in (LATENCY, LONG) for limit in KINDS]
    found = []
    for upstream, (use, refused) in zip(upstreams, await staggered(each.watch() for each in upstreams), strict=True):
        short = upstream.latency is not LONG
        found += [
            Figure(
                "use of what others leave", [use], target=0.95 if short else None, better="more", case=upstream.case
            ),
            Figure("refused beside others", [100 * refused], "%", 3.0 if short else None, case=upstream.case),
        ]
    return found


# -- what headers cost ----------------------------------------------------------------------------


async def cost_of_headers() -> list[Figure]:
    """The server's CPU per call where every answer has these headers, over the same without, turn by turn."""
    keys = dict([*KEYS.items()][:2])
    dialects = ("none", *COSTED)
    with ExitStack() as stack:
        served = {}
        for dialect in dialects:
            judge = stack.enter_context(JudgeProcess(JudgeOptions(keys, (WIDE,), headers=dialect)))
            text = config(judge.url, WIDE, keys, f"max_connections = {AT_ONCE}")
            served[dialect] = stack.enter_context(ServedProcess(text, secrets_for(keys)))
            await through(served[dialect], batches("warm", 1))
        ratios: dict[str, list[float]] = {dialect: [] for dialect in COSTED}
        for turn in range(PAIRS):
            order: Sequence[str] = dialects if turn % 2 else dialects[::-1]
            spent = {dialect: await through(served[dialect], batches(f"turn-{turn}", 1)) for dialect in order}
            for dialect in COSTED:
                ratios[dialect].append(spent[dialect] / spent["none"])
    return [
        Figure("CPU per call, with headers / without", found, target=1.10, case=dialect)
        for dialect, found in ratios.items()
    ]


# -- a key that refuses ---------------------------------------------------------------------------


async def recovery() -> list[Figure]:
    """200 calls meet a key that answers 429 for six seconds and doesn't say until when.

    Calls that were in flight when the first of them was refused are refused too, however many there were.
    """
    keys = dict([*KEYS.items()][:1])
    silence = Rejection("key-1", until_ns=REFUSING * SECOND, fault=Fault("429"))
    limit = Limit(1_000, 10 * SECOND)
    found = []
    with JudgeProcess(JudgeOptions(keys, (limit,), latency_ns=LATENCY, rejections=(silence,))) as judge:
        for at_once in (5, REFUSED):
            text = config(judge.url, limit, keys, f"max_in_flight = {at_once}")
            with ServedProcess(text, secrets_for(keys)) as served:
                judge.reset()  # from now on it refuses
                seconds, answered = await batch(served.target, REFUSED)
            refused = judge.report().faults.get("429", 0)
            case = f"{at_once} at once"
            found += [
                Figure("refused after the first burst", [max(0, refused - at_once)], target=10, case=case),
                Figure("answered of 200 calls", [answered], target=REFUSED, better="more", case=case, must=True),
                Figure("over, after the 6 s", [seconds - REFUSING], "s", case=case),
            ]
    return found
