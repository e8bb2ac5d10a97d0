"""The operations port has the certificates of gRPC's port, and follows their files."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
import trustme

from apiflux_grpc.core.callers import Access, Caller, Callers, Role
from tests.ops.ports import Served as Port
from tests.ops.ports import ops_served, problem_in
from tests.server.authority import Served, replace
from tests.server.serving import Held, until


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def client(ca: trustme.CA, own: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """Of one that trusts this authority, and has this certificate."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    if own is not None:
        own.configure_cert(context)
    return context


async def status(port: Port, path: str, tls: ssl.SSLContext) -> int:
    """Over a connection of its own. 0: there was none."""
    async with aiohttp.ClientSession() as http:
        try:
            async with http.get(f"{port.url}{path}", ssl=tls) as answer:
                return answer.status
        except (aiohttp.ClientConnectionError, ssl.SSLError):
            return 0


async def looks(port: Port) -> None:
    """A change counts at the second look."""
    await port.server.transport.look()
    await port.server.transport.look()


async def test_new_connections_have_the_new_certificate(tmp_path: Path, ca: trustme.CA) -> None:
    """Once its file has changed; an answer that has begun goes on with the old one, and what is bad changes nothing."""
    served, other, upstream = Served(tmp_path, ca), trustme.CA(), Held()
    async with ops_served(tls=served.files, upstream=upstream) as port:
        url, tls = f"{port.url}/process", client(ca)
        posting = asyncio.ensure_future(port.http.post(url, json={"repeat": {"count": 2}}, ssl=tls))
        await until(lambda: len(upstream.open) == 2)
        upstream.release_one()
        async with await posting as answer:
            served.give(other.issue_cert("localhost", "127.0.0.1"))
            await looks(port)
            assert (await status(port, "/livez", client(ca)), await status(port, "/livez", client(other))) == (0, 200)
            replace(served.files.key_file, b"nothing")
            await looks(port)
            assert await status(port, "/livez", client(other)) == 200
            upstream.release()
            assert b'"summary"' in await answer.read()


async def test_who_shows_a_certificate_that_counts_may_call(tmp_path: Path, ca: trustme.CA) -> None:
    """A probe needs none. One of another authority isn't let in at all, and a removed one's connections end."""
    served, other = Served(tmp_path, ca, mutual=True), trustme.CA()
    async with ops_served(tls=served.files) as port:
        without, own = client(ca), client(ca, ca.issue_cert("client"))
        strange = client(ca, other.issue_cert("client"))
        assert [await status(port, "/livez", one) for one in (without, own, strange)] == [200, 200, 0]
        assert [await status(port, "/health", one) for one in (without, own)] == [401, 200]
        async with port.http.get(f"{port.url}/health", ssl=without) as answer:
            assert (await problem_in(answer))["reason"] == "PEER_NOT_TRUSTED"
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port.port.port, ssl=own, server_hostname="localhost"
        )
        served.trust(other)
        await looks(port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with suppress(ConnectionError):
            assert await reader.readline() == b""
        writer.close()
        assert await status(port, "/livez", own) == 0


async def test_a_handshake_that_was_begun_before_ends_so_too(tmp_path: Path, ca: trustme.CA) -> None:
    """Who begins one and ends it once their authority was removed would be let in by what counted before."""
    served = Served(tmp_path, ca, mutual=True)
    async with ops_served(tls=served.files) as port, port.raw() as (reader, writer):
        coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client(ca, ca.issue_cert("client")).wrap_bio(coming, going, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(going.read())
                coming.write(await reader.read(65_536))
        served.trust(trustme.CA())
        await looks(port)
        tls.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        writer.write(going.read())
        heard = b""
        with suppress(ConnectionError, ssl.SSLError):
            while not heard and (some := await reader.read(65_536)):
                coming.write(some)
                with suppress(ssl.SSLWantReadError):
                    heard = tls.read()
        assert heard == b""


async def test_one_connection_too_many_leaves_nothing(tmp_path: Path, ca: trustme.CA) -> None:
    """Its client need not say goodbye: else each would keep its file for half a minute, as many as come."""
    served = Served(tmp_path, ca)
    async with ops_served(tls=served.files, most_connections=0) as port, port.raw() as (reader, writer):
        coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client(ca).wrap_bio(coming, going, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(going.read())
                coming.write(await reader.read(65_536))
        writer.write(going.read())
        async with asyncio.timeout(10):  # bounds only what fails
            with suppress(ConnectionError):
                while await reader.read(65_536):
                    pass


async def test_a_certificate_says_who_calls(tmp_path: Path, ca: trustme.CA) -> None:
    """By its subject as gRPC writes it; one that is nobody's may call nothing."""
    served = Served(tmp_path, ca, mutual=True)
    known, nobody = (
        ca.issue_cert("a.example", common_name=name, organization_name="Example", organization_unit_name="Tests")
        for name in ("a", "b")
    )
    callers = Callers([Caller("team-a", Access(Role.READER), names=("CN=a,OU=Tests,O=Example",))])
    async with ops_served(tls=served.files, callers=callers) as port:
        assert [await status(port, "/health", client(ca, one)) for one in (known, nobody)] == [200, 401]
