"""Against servers that others wrote, plain and over TLS: each call arrives once and whole, and so does its answer."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from itertools import count

import psutil
import pytest

from apiflux_grpc.adapters.http_settings import HttpSettings
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.ports import Upstream
from tests.adapters.sender.real_servers import MB, SERVERS, Site, running
from tests.adapters.sender.stage import LOOPS, SUBJECTS, Authority, Told
from tests.adapters.sender.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SITES = [(name, tls) for name in SERVERS for tls in (False, True)]


@pytest.fixture(scope="module", params=SITES, ids=[f"{name}-{'tls' if tls else 'plain'}" for name, tls in SITES])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Site]:
    """A server that runs."""
    name, tls = request.param
    with running(name, tls, tmp_path_factory.mktemp(name), authority) as site:
        yield site


numbers = count()


class Visit:
    """Calls to a site, which are all answered, each once."""

    def __init__(self, site: Site, upstream: Upstream) -> None:
        self.site = site
        self.upstream = upstream
        self.told: list[Told] = []

    async def call(self, path: str, method: str = "GET", body: bytes = b"", **query: str) -> Answer:
        number = f"{next(numbers):06}"
        told = Told(number, Call(method, path, (("n", number), *query.items()), body=body), 60 * SECOND)
        self.told.append(told)
        self.upstream.begin(told)
        outcome = await told.over()
        assert isinstance(outcome, Answer), outcome
        assert (outcome.fault, outcome.truncated) == (None, False), (path, outcome.status, outcome.fault)
        return outcome

    def open(self) -> int:
        """How many connections we have to the site."""
        mine = psutil.Process().net_connections("tcp")
        return sum(bool(one.raddr) and one.raddr.port == self.site.port and one.status == "ESTABLISHED" for one in mine)

    async def end(self) -> None:
        await self.upstream.close()
        assert all(told.log == ["sent", "done"] for told in self.told)
        assert self.open() == 0
        want = Counter(f"n={told.number}" for told in self.told)
        await until(lambda: self.seen(want) == want, "each call in the server's log, once")

    def seen(self, want: Counter[str]) -> Counter[str]:
        return Counter({number: times for number, times in self.site.count().items() if number in want})


@pytest.fixture(params=["http-asyncio", "http-uvloop", "aiohttp-asyncio"])
def visit(request: pytest.FixtureRequest, site: Site) -> Iterator[tuple[asyncio.Runner, Visit]]:
    """A sender on a loop; at the end each of its calls was seen once."""
    subject, loop = request.param.split("-")
    settings = HttpSettings(base_url=site.url, ca_file=str(site.ca_file) if site.ca_file else None, body_cap=8 * MB)
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        visit = Visit(site, SUBJECTS[subject].make(settings))
        noise: list[str] = []
        runner.get_loop().set_exception_handler(lambda _, what: noise.append(str(what)))
        yield runner, visit
        runner.run(visit.end())
        assert noise == []


def echoed(site: Site, answer: Answer) -> bytes:
    """What a site says that it was sent."""
    if site.name != "gunicorn":
        return answer.body
    data: str = json.loads(answer.body)["data"]
    return data.encode()


@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, MB])
def test_methods(visit: tuple[asyncio.Runner, Visit], size: int) -> None:
    """Each method arrives with its whole body, and the answer is read whole."""
    runner, one = visit
    site = one.site
    path = "/anything" if site.name == "gunicorn" else "/echo"
    body = b"abcdefghij" * (size // 10) + b"x" * (size % 10)

    async def go() -> None:
        for method in ("GET", "HEAD", "DELETE", "POST", "PUT", "PATCH"):
            sent = b"" if method in {"GET", "HEAD", "DELETE"} else body
            answer = await one.call(path, method, sent)
            assert answer.status == 200
            if site.name == "gunicorn":
                assert method == "HEAD" or json.loads(answer.body)["method"] == method
            else:
                assert answer.headers["x-method"] == method
            if method == "HEAD":
                assert answer.body == b""
            elif site.name != "nginx":
                assert echoed(site, answer) == sent

    runner.run(go())


def test_answers(visit: tuple[asyncio.Runner, Visit]) -> None:
    """Large ones, chunked ones, empty ones and those that close."""
    runner, one = visit
    httpbin = one.site.name == "gunicorn"

    async def go() -> None:
        for _ in range(5):
            if not httpbin:
                assert (await one.call("/big", size=str(MB))).body == b"x" * MB
                assert (await one.call("/big", "HEAD", size=str(MB))).headers["content-length"] == str(MB)
            chunked = await one.call("/stream/20" if httpbin else "/chunked")
            assert chunked.headers["transfer-encoding"] == "chunked"
            if httpbin:
                assert [json.loads(line)["id"] for line in chunked.body.splitlines()] == list(range(20))
            else:
                assert chunked.body.decode() == "".join(f"{part:05}" for part in range(20))
            assert (await one.call("/status/204" if httpbin else "/none")).status == 204
            assert (await one.call("/status/404" if httpbin else "/missing")).status == 404
        assert one.open() == 1
        if not httpbin:
            for _ in range(5):
                closed = await one.call("/close")
                assert (closed.body, closed.headers["connection"].lower()) == (b"closed", "close")
            assert one.open() == 0

    runner.run(go())


def test_kept(visit: tuple[asyncio.Runner, Visit]) -> None:
    """A hundred calls behind one another share a connection."""
    runner, one = visit
    path = "/anything" if one.site.name == "gunicorn" else "/echo"

    async def go() -> None:
        for place in range(100):
            answer = await one.call(path, "POST", b"%d" % place)
            assert one.site.name == "nginx" or echoed(one.site, answer) == b"%d" % place
        assert one.open() == 1

    runner.run(go())


def test_at_once(visit: tuple[asyncio.Runner, Visit]) -> None:
    """A thousand calls, a hundred at a time: each gets its own answer."""
    runner, one = visit
    site = one.site
    path = "/anything" if site.name == "gunicorn" else "/echo"
    todo = iter(range(1000))

    async def worker() -> None:
        for place in todo:
            body = b"%d " % place * (1 + place % 50)
            answer = await one.call(path, "POST", body)
            assert answer.status == 200
            assert site.name == "nginx" or echoed(site, answer) == body

    async def go() -> None:
        await asyncio.gather(*(worker() for _ in range(100)))
        assert one.open() <= 100

    runner.run(go())
