"""A judge and a server as processes, batches, and the last questions to the judge.

Rule: every test ends with `ask`, which knows of each call how often it arrived. Secrets begin with CANARY, and `ask`
looks for that in whatever the server said. A server costs 0.6 s of CPU to start and a judge 0.15: the tests of a file
share one server, and each pool of it has a judge of its own, so that what one test asks is not about another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from apiflux_grpc.client import ApifluxError, Call, Client, Info, Pool, Result, Stream
from apiflux_grpc.judge.faults import Chance
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.judge.report import Report
from apiflux_grpc.judge.request import with_body
from apiflux_grpc.testing.served import ServedProcess

CANARY = "canary-b41c"
# Late arrivals that the server must allow for: more than a busy machine delays one.
JITTER = "1s"
MILLISECOND = 1_000_000
OWN_CONNECTION: tuple[tuple[str, Any], ...] = (("grpc.use_local_subchannel_pool", 1),)


@dataclass(frozen=True)
class Pair:
    """A server, one of its pools, and the judge that this pool's calls go to."""

    judge: JudgeProcess
    served: ServedProcess
    pool: str = "default"

    @property
    def target(self) -> str:
        return self.served.target

    def fresh(self) -> Pair:
        """The same, with a judge that has forgotten what came so far."""
        self.judge.reset()
        return self


@dataclass(frozen=True)
class Front:
    """A pool to be: its lines in the configuration, and the judge behind it, which answers in `latency` ms."""

    limit: Limit
    lines: str = ""
    latency: tuple[int, int] = (1, 10)
    keys: int = 2
    chances: tuple[Chance, ...] = ()


def keys_of(pools: Iterable[str], keys: int) -> dict[str, str]:
    """Labels and secrets of the keys that some pools have."""
    return {f"{pool}-{number}": f"{CANARY}-{pool}-{number}" for pool in pools for number in range(1, keys + 1)}


def pool_toml(name: str, url: str, limits: Sequence[Limit], keys: int, lines: str, *, keys_from: str = "") -> str:
    """The configuration of a pool in front of a judge, with the keys of its name or of another."""
    rows = ", ".join(f'{{ max = {limit.max}, per = "{limit.per_ns // MILLISECOND}ms" }}' for limit in limits)
    own = keys_of([keys_from or name], keys).items()
    entries = ", ".join(f'{{ label = "{label}", secret = "{secret}" }}' for label, secret in own)
    head = f'[pools.{name}]\nbase_url = "{url}"\narrival_jitter = "{JITTER}"\nlimits = [{rows}]\n'
    return f"{head}keys = [{entries}]\n{lines}\n"


def toml(urls: str | Mapping[str, str], pools: Mapping[str, str], limits: Sequence[Limit], keys: int) -> str:
    """The configuration of these pools, each with some lines and keys of its own, and maybe a URL of its own."""
    return "".join(
        pool_toml(pool, urls if isinstance(urls, str) else urls[pool], limits, keys, lines)
        for pool, lines in pools.items()
    )


@contextmanager
def judging(
    pools: Iterable[str],
    limits: Sequence[Limit],
    keys: int = 2,
    *,
    latency: tuple[int, int] = (1, 10),
    chances: tuple[Chance, ...] = (),
    port: int = 0,
) -> Iterator[JudgeProcess]:
    """A judge that knows the keys of these pools and answers within some milliseconds."""
    low, high = latency
    options = JudgeOptions(
        keys_of(pools, keys),
        tuple(limits),
        port=port,
        latency_ns=(low * MILLISECOND, high * MILLISECOND),
        faults=chances,
    )
    with JudgeProcess(options) as judge:
        yield judge


@contextmanager
def fronted(fronts: Mapping[str, Front], server: str = "", more: str = "") -> Iterator[dict[str, Pair]]:
    """One server with these pools, each in front of a judge of its own; `more` is TOML of other pools."""
    with ExitStack() as stack:
        text, judges = f"[server]\n{server}\n", {}
        for name, front in fronts.items():
            judges[name] = stack.enter_context(
                judging([name], [front.limit], front.keys, latency=front.latency, chances=front.chances)
            )
            text += pool_toml(name, judges[name].url, [front.limit], front.keys, front.lines)
        served = stack.enter_context(ServedProcess(text + more, {}))
        yield {name: Pair(judge, served, name) for name, judge in judges.items()}


@contextmanager
def paired(
    pools: Mapping[str, str],
    limits: Sequence[Limit],
    keys: int = 2,
    *,
    server: str = "",
    latency: tuple[int, int] = (1, 10),
    chances: tuple[Chance, ...] = (),
    files: int | None = None,
) -> Iterator[Pair]:
    """One judge, and a server with these pools in front of it; `files`: how many the server may have open."""
    with judging(pools, limits, keys, latency=latency, chances=chances) as judge:
        text = f"[server]\n{server}\n" + toml(judge.url, pools, limits, keys)
        with ServedProcess(text, {}, files=files) as served:
            yield Pair(judge, served)


@contextmanager
def again(pair: Pair, pools: Mapping[str, str], limits: Sequence[Limit], keys: int = 2) -> Iterator[Pair]:
    """Another server in front of the same judge."""
    with ServedProcess(toml(pair.judge.url, pools, limits, keys), {}) as served:
        yield Pair(pair.judge, served)


# -- batches -------------------------------------------------------------------------------------


def name_of(call: Call) -> str:
    """What the judge calls it."""
    return with_body(f"{call.method} {call.path}", call.body)


async def collect(stream: Stream) -> list[Result]:
    """Every result, by index."""
    return sorted([result async for result in stream], key=lambda result: result.index)


async def run(client: Client, calls: Sequence[Call], pool: str = "") -> dict[str, Result]:
    """The results of a batch by the names of its calls; each has exactly one."""
    results = await collect(client.process(calls, pool=pool))
    assert [result.index for result in results] == list(range(len(calls)))
    return dict(zip(map(name_of, calls), results, strict=True))


async def read(stream: Stream, into: list[Result]) -> ApifluxError | None:
    """Read to the end, keep what came, and give the error that ended it."""
    try:
        async for result in stream:
            into.append(result)  # noqa: PERF401  # a comprehension would lose what came before the error
    except ApifluxError as error:
        return error
    return None


def gets(name: str, count: int) -> list[Call]:
    """Calls that may be made twice."""
    return [Call(f"/{name}/{number}") for number in range(count)]


def posts(name: str, count: int) -> list[Call]:
    """Calls that may not."""
    return [Call(f"/{name}/{number}", method="POST", body=b"{}") for number in range(count)]


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds; the test's own timeout is the bound, for a slow machine is no fault."""
    while not await look():  # noqa: ASYNC110  # another process has no event for us
        await asyncio.sleep(0.025)


def is_idle(info: Info) -> bool:
    """Nothing is admitted, waits or is in flight, by every count there is."""
    pools = info.pools
    counts = [info.open_batches, info.open_calls]
    counts += [count for pool in pools for count in (pool.in_flight, pool.waiting)]
    counts += [key.in_flight for pool in pools for key in pool.keys]
    return not any(counts)


async def idle(client: Client) -> Info:
    """Wait until the server has nothing to do."""
    infos: list[Info] = []

    async def look() -> bool:
        infos.append(await client.info())
        return is_idle(infos[-1])

    await until(look)
    return infos[-1]


def attempts_in(info: Info, pool: str = "") -> int:
    """Attempts with all keys since the start, of one pool or of all."""
    return sum(key.attempts for one in info.pools if pool in ("", one.name) for key in one.keys)


def pool_of(info: Info, name: str) -> Pool:
    """How one pool stands."""
    return next(pool for pool in info.pools if pool.name == name)


async def stands_still(client: Client, pool: str) -> int:
    """Wait until the pool's batches have no room for more results; how many attempts it has made.

    While anything between the server and its reader still takes results, attempts go on. Each answer comes after what
    the server did before it, so when ten in a row say the same, and nothing is in flight, nothing is on its way.
    """
    made, same = -1, 0

    async def look() -> bool:
        nonlocal made, same
        info = await client.info()
        now = attempts_in(info, pool)
        same = same + 1 if now == made and not pool_of(info, pool).in_flight else 0
        made = now
        return same >= 10

    await until(look)
    return made


@asynccontextmanager
async def health_of(target: str) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Asks on a connection of its own whether the server says SERVING."""
    options = [("grpc.enable_http_proxy", 0), *OWN_CONNECTION]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its stub file names no methods

        async def serving() -> bool:
            answer = await stub.Check(health_pb2.HealthCheckRequest())
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        yield serving


# -- the judge -----------------------------------------------------------------------------------


def ask(pair: Pair, *batches: Mapping[str, Result]) -> Report:
    """The judge's last word on all that arrived; see `ask_of`. The server's log has no secret."""
    assert CANARY not in pair.served.stderr
    return ask_of(pair.judge, *batches)


def ask_of(judge: JudgeProcess, *batches: Mapping[str, Result]) -> Report:
    """No violation, no honest 429, no window over its limit, no call sent again without cause.

    With batches given: these calls and no others arrived, each as often as its result says that it was attempted,
    those attempts excepted that certainly were not sent.
    """
    report = judge.report()
    assert report.violations == []
    assert (report.rejected, report.resent, report.unknown_arrivals) == (0, 0, 0)
    assert report.worst <= 1.0
    if batches:
        assert CANARY not in repr(batches)
        arrivals = {name: sent_times(result) for batch in batches for name, result in batch.items()}
        assert judge.calls() == {name: times for name, times in arrivals.items() if times}
        assert report.arrivals == sum(arrivals.values())
    return report


def sent_times(result: Result) -> int:
    """Attempts that may have arrived; where the last was NOT_SENT, so were the others in all of these tests."""
    never = result.error is not None and result.error.reason == "NOT_SENT"
    return 0 if never else result.attempts
