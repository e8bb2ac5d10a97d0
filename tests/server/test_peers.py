"""An authority that is removed takes its clients with it, also those that are connected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from apiflux_grpc.client import ApifluxError, Call, Client
from apiflux_grpc.server import transport
from apiflux_grpc.server.issuers import Issuers
from apiflux_grpc.server.lifecycle import Server
from tests.server.authority import Served, chain, options
from tests.server.serving import Held, health_of, serving, until


async def trust(server: Server, served: Served, *authorities: trustme.CA) -> None:
    """Only these, from now on."""
    served.trust(*authorities)
    await server.transport.look()
    await server.transport.look()


async def refused(asked: Any) -> str:
    """The reason of it."""
    with pytest.raises(ApifluxError) as caught:
        await asked
    assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
    return caught.value.reason


async def forever() -> AsyncIterator[Call]:
    """A call, and maybe another."""
    yield Call()
    await asyncio.Event().wait()


async def test_an_authority_that_is_removed_takes_its_clients_with_it(tmp_path: Path) -> None:
    """Their open streams of each kind end with a reason, their batches with them, and what they ask is refused; others
    notice nothing."""
    stays, goes = trustme.CA(), trustme.CA()
    served = Served(tmp_path, stays, mutual=True)
    served.trust(stays, goes)
    upstream = Held()
    between = stays.create_child_ca().issue_cert("behind-another")
    theirs = options(tmp_path, stays, goes.issue_cert("theirs"), "theirs")
    ours = options(tmp_path, stays, between, "ours")
    async with (
        serving(tls=served.files, upstream=upstream) as server,
        Client(server.address, tls=theirs) as bad,
        Client(server.address, tls=ours) as good,
    ):
        streams = [bad.repeat(3), bad.process_stream(forever())]
        kept = good.repeat(3)
        asked = [asyncio.ensure_future(anext(one)) for one in (*streams, kept)]
        await until(lambda: server.engine.admission.batches == 3)
        await trust(server, served, stays, trustme.CA())
        assert [await refused(one) for one in asked[:2]] == ["PEER_NOT_TRUSTED"] * 2
        assert await refused(bad.info()) == "PEER_NOT_TRUSTED"
        assert await refused(anext(bad.repeat(1))) == "PEER_NOT_TRUSTED"
        await until(lambda: server.engine.admission.batches == 1)
        await good.info()
        await trust(server, served, stays, goes)
        await bad.info()  # over the same connection
        upstream.release()
        assert len([await asked[2], *[one async for one in kept]]) == 3


async def test_more_authorities_end_nothing(tmp_path: Path) -> None:
    """A client stays whose authority stays; a watch of the health is a stream too."""
    first, second = trustme.CA(), trustme.CA()
    served = Served(tmp_path, first, mutual=True)
    tls = options(tmp_path, first, first.issue_cert("client"))
    async with serving(tls=served.files) as server, Client(server.address, tls=tls) as client:
        await client.info()
        await trust(server, served, first, second)
        await client.info()
        await trust(server, served, first)
        await client.info()
        await trust(server, served, second)
        assert await refused(client.info()) == "PEER_NOT_TRUSTED"


async def test_a_request_that_is_refused_is_not_read(tmp_path: Path) -> None:
    """A peer whose authority was removed is told so though it sends nothing."""
    first, second = trustme.CA(), trustme.CA()
    served = Served(tmp_path, first, mutual=True)
    tls = options(tmp_path, first, first.issue_cert("client"))
    async with (
        serving(tls=served.files) as server,
        grpc.aio.secure_channel(server.address, tls.credentials()) as channel,
    ):
        await health_of(channel)
        await trust(server, served, second)
        call: Any = channel.stream_stream("/apiflux.v1.FluxService/Process")()
        with pytest.raises(grpc.aio.AioRpcError, match="isn't trusted any more"):
            await call.read()
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_connections_are_closed_after_a_while_and_streams_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With clients' certificates: the connection takes no new requests, a stream on it ends as it would have."""
    monkeypatch.setattr(transport, "CONNECTION_AGE", 0.05)
    ca = trustme.CA()
    served = Served(tmp_path, ca, mutual=True)
    upstream = Held()
    async with serving(tls=served.files, upstream=upstream) as server:
        tls = options(tmp_path, ca, ca.issue_cert("client"))
        credentials = tls.credentials()
        async with (
            grpc.aio.secure_channel(server.address, credentials) as channel,
            Client(server.address, credentials=credentials) as client,
        ):
            stream = client.repeat(3)
            asked = asyncio.ensure_future(anext(stream))
            await health_of(channel)
            while channel.get_state() is grpc.ChannelConnectivity.READY:
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
            await health_of(channel)  # on a new one
            upstream.release()
            assert len([await asked, *[one async for one in stream]]) == 3


def test_signatures_count_and_not_names() -> None:
    """An authority of the same name that has another key has issued nothing; who was issued by one that an authority
    issued was issued by that."""
    root, other = trustme.CA(), trustme.CA()
    leaf = root.issue_cert("client")
    assert Issuers([root.cert_pem.bytes()]).issued(leaf.cert_chain_pems[0].bytes())
    assert not Issuers([other.cert_pem.bytes()]).issued(leaf.cert_chain_pems[0].bytes())
    one, two = (trustme.CA(organization_name="same", organization_unit_name="same") for _ in range(2))
    leaf = one.issue_cert("client")
    assert Issuers([two.cert_pem.bytes(), one.cert_pem.bytes()]).issued(chain(leaf))
    assert not Issuers([two.cert_pem.bytes()]).issued(chain(leaf))
    first = root.create_child_ca()
    second = first.create_child_ca()
    deep = second.issue_cert("client")
    own, *between = (blob.bytes() for blob in deep.cert_chain_pems)
    trusted = Issuers([root.cert_pem.bytes()])
    assert trusted.issued(own, b"".join(between))
    assert trusted.issued(own, b"".join(reversed(between)))
    assert not trusted.issued(own, between[0])
    assert not trusted.issued(own)
    assert not trusted.issued(b"words")
    assert Issuers([first.cert_pem.bytes()]).issued(own, b"".join(between))
    with pytest.raises(ValueError, match="PEM"):
        Issuers([b"words"])
