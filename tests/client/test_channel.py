"""TLS and the token, against a plain server with certificates of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from apiflux_grpc.client import ApifluxError, Call, Client, SyncClient, TlsOptions, Unavailable
from apiflux_grpc.client.channel import check_target
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc

TOKEN = "canary-a81f"


class Recording(apiflux_pb2_grpc.FluxServiceServicer):
    """Answers everything, and notes the authorization of every request."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []

    def _note(self, method: str, context: Any) -> None:
        self.seen.append((method, dict(context.invocation_metadata()).get("authorization")))

    async def Process(self, request: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:  # noqa: N802
        self._note("Process", context)
        yield pb.ProcessResponse(summary=pb.Summary())

    async def ProcessStream(self, request_iterator: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:  # noqa: N802
        self._note("ProcessStream", context)
        await anext(request_iterator)
        yield pb.ProcessResponse(summary=pb.Summary())

    async def Estimate(self, request: Any, context: Any) -> pb.EstimateResponse:  # noqa: N802
        self._note("Estimate", context)
        return pb.EstimateResponse()

    async def GetInfo(self, request: Any, context: Any) -> pb.GetInfoResponse:  # noqa: N802
        self._note("GetInfo", context)
        return pb.GetInfoResponse()


@asynccontextmanager
async def secured(folder: Path, *, mutual: bool = False) -> AsyncIterator[tuple[str, TlsOptions, Recording]]:
    """(target, what a client needs, what it saw); `mutual`: it asks for the client's certificate."""
    ca = trustme.CA()
    cert, own = ca.issue_cert("localhost"), ca.issue_cert("client")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    own.private_key_pem.write_to_path(folder / "key.pem")
    own.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    chain = b"".join(pem.bytes() for pem in cert.cert_chain_pems)
    roots = ca.cert_pem.bytes() if mutual else None
    credentials = grpc.ssl_server_credentials([(cert.private_key_pem.bytes(), chain)], roots, mutual)
    service = Recording()
    server = grpc.aio.server()
    apiflux_pb2_grpc.add_FluxServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call,unused-ignore]
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        options = TlsOptions(folder / "ca.pem", folder / "cert.pem", folder / "key.pem", server_name="localhost")
        yield f"127.0.0.1:{port}", options, service
    finally:
        await server.stop(None)


async def test_every_request_carries_the_token_over_tls(tmp_path: Path) -> None:
    """With both clients, and whatever they ask."""
    async with secured(tmp_path) as (target, tls, service):
        async with Client(target, tls=TlsOptions(tls.ca_file, server_name="localhost"), token=TOKEN) as client:
            await client.wait_ready()
            await client.info()
            await client.estimate(1)
            assert [one async for one in client.process([Call()])] == []
            assert [one async for one in client.process_stream([])] == []
            assert [one async for one in client.process_stream([], resume=True)] == []
            assert TOKEN not in repr(client)

        def blocking() -> None:
            with SyncClient(target, tls=tls, token=TOKEN) as client:
                client.wait_ready()
                client.info()
                client.estimate(1)
                assert list(client.process([Call()])) == []
                assert list(client.process_stream([])) == []

        await asyncio.to_thread(blocking)
    assert {token for _, token in service.seen} == {f"Bearer {TOKEN}"}
    assert len(service.seen) == 11


async def test_a_server_may_ask_for_the_clients_certificate(tmp_path: Path) -> None:
    """With it the request goes through, without it nothing does."""
    async with secured(tmp_path, mutual=True) as (target, tls, service):
        async with Client(target, tls=tls) as client:
            await client.info()
        async with Client(target, tls=TlsOptions(tls.ca_file, server_name="localhost")) as client:
            with pytest.raises(Unavailable):
                await client.info()
    assert service.seen == [("GetInfo", None)]


async def test_a_certificate_of_somebody_else_is_not_trusted(tmp_path: Path) -> None:
    """Neither of another authority, nor for another name, nor without TLS."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    async with secured(tmp_path) as (target, tls, service):
        for options in (
            TlsOptions(tmp_path / "other.pem", server_name="localhost"),
            TlsOptions(tls.ca_file, server_name="elsewhere"),
            TlsOptions(tls.ca_file),
            None,
        ):
            async with Client(target, tls=options, token=TOKEN) as client:
                with pytest.raises(ApifluxError):
                    await client.info(timeout=5)
    assert service.seen == []


async def test_credentials_of_grpc_do_as_well(tmp_path: Path) -> None:
    """For what TlsOptions doesn't have."""
    async with secured(tmp_path) as (target, tls, _):
        name = [("grpc.ssl_target_name_override", "localhost")]
        async with Client(target, credentials=tls.credentials(), options=name) as client:
            await client.info()


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    """With a message that names it, and never the token."""
    with pytest.raises(ValueError, match="key_file"):
        TlsOptions(cert_file="cert.pem")
    with pytest.raises(ValueError, match="set one of them"):
        Client("x:1", tls=TlsOptions(), credentials=grpc.ssl_channel_credentials())
    for bad in ("", "a b", "ä", f"{TOKEN}\n"):
        with pytest.raises(ValueError, match="token") as caught:
            Client("x:1", token=bad)
        assert TOKEN not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        SyncClient("x:1", tls=TlsOptions(tmp_path / "missing.pem"))


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("127.0.0.1:999999", "1 to 65535"),
        ("127.0.0.1:0", "1 to 65535"),
        ("127.0.0.1:²", "1 to 65535"),
        ("127.0.0.1", "no port"),
        ("", "no port"),
        ("http://127.0.0.1:1", "is a URL"),
        ("::1:50051", "brackets"),
        ("[::x]:1", "neither a name nor an address"),
        ("a b:1", "neither a name nor an address"),
        (":1", "neither a name nor an address"),
    ],
)
def test_what_is_no_target_is_said(target: str, why: str) -> None:
    """Before anything is dialled, by both clients."""
    for kind in (Client, SyncClient):
        with pytest.raises(ValueError, match=why):
            kind(target)


def test_what_is_a_target() -> None:
    """Names, both kinds of address."""
    for target in ("localhost:1", "flux.example.com:443", "my_service:50051", "10.0.0.1:65535", "[::1]:50051", "a.:1"):
        assert check_target(target) == target


def test_what_is_not_pem_is_named(tmp_path: Path) -> None:
    """The file that is at fault; a good one passes with words around it."""
    ca = trustme.CA()
    own = ca.issue_cert("client")
    good, key, bad = tmp_path / "good.pem", tmp_path / "key.pem", tmp_path / "bad.pem"
    good.write_bytes("é\n".encode() + own.cert_chain_pems[0].bytes())
    key.write_bytes(own.private_key_pem.bytes())
    TlsOptions(good, good, key).credentials()
    broken = "-----BEGIN {0}-----\n%%\n-----END {0}-----\n"
    for text in ("", "words", broken.format("CERTIFICATE"), key.read_text()):
        bad.write_text(text)
        for options in (TlsOptions(bad), TlsOptions(good, bad, key)):
            with pytest.raises(ValueError, match=r"bad\.pem has"):
                options.credentials()
    for text in (
        "",
        broken.format("PRIVATE KEY"),
        broken.format("ENCRYPTED PRIVATE KEY"),
        ca.cert_pem.bytes().decode(),
    ):
        bad.write_text(text)
        with pytest.raises(ValueError, match=r"bad\.pem"):
            TlsOptions(good, good, bad).credentials()
    bad.write_bytes(ca.issue_cert("another").private_key_pem.bytes())
    with pytest.raises(ValueError, match=r"bad\.pem isn't the key of the certificate"):
        TlsOptions(good, good, bad).credentials()


async def test_a_timeout_that_grpc_cannot_keep_is_refused() -> None:
    """It would be over at once."""
    async with Client("127.0.0.1:1") as client:
        for timeout in (float("inf"), float("nan"), 1e300):
            with pytest.raises(ValueError, match="at most"):
                await client.info(timeout=timeout)
            with pytest.raises(ValueError, match="at most"):
                client.process([Call()], timeout=timeout)
            for resume in (True, False):
                with pytest.raises(ValueError, match="at most"):
                    client.process_stream([Call()], timeout=timeout, resume=resume)
