"""A client whose TLS files are replaced shows the new certificate from then on, and what it has begun goes on."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from apiflux_grpc.client import Call, Client, SyncClient, Unavailable, tls
from apiflux_grpc.core.errors import Draining
from apiflux_grpc.core.units import MILLISECOND
from apiflux_grpc.server.peer import peer_of
from apiflux_grpc.server.service import FluxService
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.server.authority import Served, chain, options, replace
from tests.server.serving import Held, serving


class Noting(FluxService):
    """Notes who asks for GetInfo."""

    seen: list[str]

    async def GetInfo(self, request: pb.GetInfoRequest, context: Any) -> pb.GetInfoResponse:  # noqa: N802
        peer = peer_of(context)
        self.seen.append("" if peer is None else peer.common_name)
        return await super().GetInfo(request, context)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who has asked; and clients look at their files whenever they begin something."""
    monkeypatch.setattr(tls, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(Noting, "seen", [], raising=False)
    return Noting.seen


def named(ca: trustme.CA, name: str) -> trustme.LeafCert:
    return ca.issue_cert("client", common_name=name)


@pytest.mark.parametrize("is_sync", [False, True])
async def test_new_files_count_for_what_begins(tmp_path: Path, seen: list[str], is_sync: bool) -> None:
    """A stream goes on over its connection, though nobody else uses that any more; a file that doesn't fit the other
    one changes nothing."""
    ca = trustme.CA()
    served = Served(tmp_path, ca, mutual=True)
    first, second = named(ca, "first"), named(ca, "second")
    own, upstream = options(tmp_path, ca, first), Held()
    assert own.cert_file is not None
    assert own.key_file is not None

    def blocking(client: SyncClient) -> None:
        client.info()
        stream = client.process([Call()] * 3)
        replace(Path(own.cert_file or ""), chain(second))
        client.info()
        replace(Path(own.key_file or ""), second.private_key_pem.bytes())
        client.info()
        gc.collect()
        upstream.release()
        assert [one.ok for one in stream] == [True] * 3

    async with serving(tls=served.files, service=Noting, upstream=upstream) as server:
        if is_sync:
            with SyncClient(server.address, tls=own) as sync:
                await asyncio.to_thread(blocking, sync)
        else:
            async with Client(server.address, tls=own) as client:
                await client.info()
                stream = client.process([Call()] * 3)
                asked = asyncio.ensure_future(anext(stream))
                replace(Path(own.cert_file), chain(second))
                await client.info()
                replace(Path(own.key_file), second.private_key_pem.bytes())
                await client.info()
                gc.collect()
                upstream.release()
                assert [one.ok for one in [await asked, *[one async for one in stream]]] == [True] * 3
    assert seen == ["first", "first", "second"]


async def test_what_waits_for_its_server_goes_on_waiting(tmp_path: Path, seen: list[str]) -> None:
    """A request that has begun keeps its connection, also one that isn't made yet."""
    ca = trustme.CA()
    served = Served(tmp_path, ca, mutual=True)
    own = options(tmp_path, ca, named(ca, "first"))
    async with serving(tls=served.files) as server:
        port = server.port
    async with Client(f"localhost:{port}", tls=own) as client:
        waits = asyncio.create_task(client.wait_ready(30))
        for _ in range(5):  # passes of the loop until it has begun
            await asyncio.sleep(0)
        options(tmp_path, ca, named(ca, "second"))
        with pytest.raises(Unavailable):
            await client.info()
        gc.collect()
        async with serving(tls=served.files, service=Noting, port=port):
            await waits
    assert seen == ["first"]


async def test_files_that_cannot_be_used_are_told_of_once(
    tmp_path: Path, seen: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The connection goes on; the log names the file."""
    ca = trustme.CA()
    served = Served(tmp_path, ca, mutual=True)
    own = options(tmp_path, ca, named(ca, "first"))
    async with serving(tls=served.files, service=Noting) as server, Client(server.address, tls=own) as client:
        with caplog.at_level(logging.WARNING, "apiflux_grpc.client"):
            replace(Path(own.key_file or ""), b"words")
            await client.info()
            await client.info()
    (line,) = [one.getMessage() for one in caplog.records if one.name == "apiflux_grpc.client"]
    assert f"{own.key_file} has no private key in PEM form" in line
    assert seen == ["first", "first"]


@pytest.mark.parametrize("prefix", ["", "dns:///"])
async def test_a_batch_goes_on_with_new_files(
    tmp_path: Path, seen: list[str], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that resumes makes its next connection with them, alone as over all servers of a name."""
    monkeypatch.setattr(Draining, "retry_after", MILLISECOND)
    old, new = trustme.CA(), trustme.CA()
    (tmp_path / "new").mkdir()
    before, after = Served(tmp_path, old, mutual=True), Served(tmp_path / "new", new, mutual=True)
    own, goes_on = options(tmp_path, old, named(old, "first")), asyncio.Event()

    async def calls() -> AsyncIterator[Call]:
        yield Call(id="one")
        await goes_on.wait()
        yield Call(id="two")

    async with serving(tls=before.files) as server, Client(f"{prefix}localhost:{server.port}", tls=own) as client:
        stream = client.process_stream(calls(), resume=True, give_up_after=5)
        first = await anext(stream)
        options(tmp_path, new, named(new, "second"))
        await server.stop()
        async with serving(tls=after.files, port=server.port):
            goes_on.set()
            results = [first, *[one async for one in stream]]
    assert [(one.id, one.ok) for one in results] == [("one", True), ("two", True)]


def test_files_are_looked_at_now_and_then(tmp_path: Path) -> None:
    """Once in a second at most, by whichever thread; a file that comes is a change as one that goes is."""
    now = 100.0
    file = tmp_path / "ca.pem"
    watch = tls.Watch(tls.TlsOptions(file), lambda: now)
    file.write_bytes(b"1")
    assert not watch.has_changed()
    now += tls.LOOK_EVERY
    asked: list[bool] = []
    threads = [threading.Thread(target=lambda: asked.append(watch.has_changed())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(asked) == [False, False, False, True]
    file.unlink()
    now += tls.LOOK_EVERY
    assert watch.has_changed()
    now += tls.LOOK_EVERY
    assert not watch.has_changed()
