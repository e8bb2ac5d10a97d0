"""TLS of a served process with workers, whose files are replaced under load."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import trustme

from apiflux_grpc.client import ApifluxError, Client, TlsOptions
from apiflux_grpc.testing.served import ServedProcess
from tests.e2e.pairs import OWN_CONNECTION, until
from tests.server.authority import Served, options, replace

CONFIG = """
[server]
workers = 2
tls = {{ cert_file = "{files.cert_file}", key_file = "{files.key_file}", client_ca_file = "{files.client_ca_file}" }}
"""
CHANGED = "TLS files changed"


def clients(served: ServedProcess, tls: TlsOptions) -> Client:
    return Client(f"localhost:{served.target.rpartition(':')[2]}", tls=tls, options=OWN_CONNECTION)


async def worker_of(served: ServedProcess, tls: TlsOptions) -> int:
    """Which worker takes a new connection."""
    async with clients(served, tls) as client:
        return (await client.info()).worker


@pytest.mark.slow
async def test_workers_follow_their_files_under_load(tmp_path: Path) -> None:
    """Each takes a new certificate, an authority, and the end of one, by itself; no request of a trusted client fails,
    those of the other do; and no key is in the log."""
    stays, goes = trustme.CA(), trustme.CA()
    files = Served(tmp_path, stays, mutual=True)
    files.trust(stays, goes)
    ours, theirs = (
        options(tmp_path, stays, authority.issue_cert(name), name) for authority, name in ((stays, "a"), (goes, "b"))
    )
    over = asyncio.Event()

    async def load(served: ServedProcess) -> int:
        count = 0
        async with clients(served, ours) as client:
            while not over.is_set():
                results = [one async for one in client.repeat(20)]
                assert all(one.ok for one in results)
                count += len(results) + await worker_of(served, ours)
        return count

    with ServedProcess(CONFIG.format(files=files.files), {"RATE_LIMIT": "1000000"}, log_level="info") as served:
        async with AsyncExitStack() as stack:
            bad: dict[int, Client] = {}

            async def is_at_each() -> bool:
                client = await stack.enter_async_context(clients(served, theirs))
                bad.setdefault((await client.info()).worker, client)
                return bad.keys() == {1, 2}

            async def have_changed() -> bool:
                return all(f"{CHANGED} worker={number}" in served.stderr for number in (1, 2))

            async def is_refused(client: Client) -> bool:
                try:
                    await client.info()
                except ApifluxError as error:
                    return error.reason == "PEER_NOT_TRUSTED"
                return False

            await until(is_at_each)
            loads = [asyncio.create_task(load(served)) for _ in range(2)]
            try:
                files.give(stays.issue_cert("localhost"))
                await until(have_changed)
                replace(files.files.key_file, b"words")
                files.give(stays.issue_cert("localhost"))
                files.trust(stays)
                for client in bad.values():
                    await until(partial(is_refused, client))
            finally:
                over.set()
            assert all(await asyncio.gather(*loads))
            with pytest.raises(ApifluxError, match="UNAVAILABLE"):
                await worker_of(served, theirs)
        said = served.stderr
        assert served.terminate() == 0
    for name in ("key.pem", "a-key.pem", "b-key.pem"):
        assert (tmp_path / name).read_text().splitlines()[1] not in said
