"""What the sender's tests run in: each sender, on each loop, plain and over TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.adapters.sender.stage import LOOPS, SUBJECTS, Authority, World
from tests.clock import Clock

slow = pytest.mark.slow
# Between them the quick ones have both loops, plain and TLS.
OURS: list[Any] = [
    "http-asyncio-plain",
    "http-uvloop-tls",
    pytest.param("http-uvloop-plain", marks=slow),
    pytest.param("http-asyncio-tls", marks=slow),
]
CONTROL: list[Any] = ["aiohttp-asyncio-plain"]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority, and a server's certificate of it for 127.0.0.1."""
    folder: Path = tmp_path_factory.mktemp("authority")
    ca = trustme.CA()
    server = ca.issue_cert("127.0.0.1", "localhost")
    made = Authority(
        folder / "ca.pem", folder / "chain.pem", folder / "key.pem", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    )
    ca.cert_pem.write_to_path(str(made.ca_file))
    server.private_key_pem.write_to_path(str(made.key_file))
    for pem in server.cert_chain_pems:
        pem.write_to_path(str(made.chain_file), append=True)
    server.configure_cert(made.context)
    return made


@contextmanager
def made(name: str, authority: Authority) -> Iterator[World]:
    subject, loop, wire = name.split("-")
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        yield World(SUBJECTS[subject], loop, runner, Clock(runner.get_loop()), authority if wire == "tls" else None)


@pytest.fixture(params=OURS)
def ours(request: pytest.FixtureRequest, authority: Authority) -> Iterator[World]:
    """Our sender, on each loop, plain and over TLS."""
    with made(request.param, authority) as world:
        yield world


@pytest.fixture(params=[one for one in OURS if "tls" in str(one)])
def secure(request: pytest.FixtureRequest, authority: Authority) -> Iterator[World]:
    """Our sender over TLS, on each loop."""
    with made(request.param, authority) as world:
        yield world


@pytest.fixture(params=CONTROL)
def control(request: pytest.FixtureRequest, authority: Authority) -> Iterator[World]:
    """aiohttp, which shows that what is asked for isn't only our own idea."""
    with made(request.param, authority) as world:
        yield world


@pytest.fixture
def aiohttp(authority: Authority) -> Iterator[World]:
    """aiohttp as a way upstream of its own, for what only it can do: to go through an egress proxy."""
    with made("aiohttp-asyncio-plain", authority) as world:
        yield world


@pytest.fixture(params=["http-asyncio-plain", "aiohttp-asyncio-plain"])
def both(request: pytest.FixtureRequest, authority: Authority) -> Iterator[World]:
    """Both senders, for what depends neither on the loop nor on TLS."""
    with made(request.param, authority) as world:
        yield world


@pytest.fixture(params=OURS + CONTROL)
def world(request: pytest.FixtureRequest, authority: Authority) -> Iterator[World]:
    """Our sender and aiohttp, on each loop, plain and over TLS."""
    with made(request.param, authority) as world:
        yield world
