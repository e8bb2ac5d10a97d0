"""A batch's way back: one writer, messages of the asked size, and an end in every case."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

import grpc
import pytest

from apiflux_grpc.client import Client, InternalError
from apiflux_grpc.core.errors import ReaderStalled
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.server import wire
from apiflux_grpc.server.defaults import Defaults
from apiflux_grpc.server.service import FluxService
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.server.direct import Context, direct
from tests.server.serving import Bulky, connected, repeated, serving, stub_of, until


class OneAtATime:
    """A context that notices who writes, and whether somebody else does at the same time."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.writing = False
        self.overlaps = 0
        self.writers: Counter[object] = Counter()

    async def write(self, message: Any) -> None:
        self.overlaps += self.writing
        self.writing = True
        self.writers[asyncio.current_task()] += 1
        for _ in range(5):  # whoever doesn't wait for this one is seen
            await asyncio.sleep(0)
        await self._context.write(message)
        self.writing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


async def test_results_progress_and_summary_have_one_writer() -> None:
    """Two writes at once would hang the client; all that a stream carries comes from one task, one by one."""
    contexts: list[OneAtATime] = []

    class Watched(FluxService):
        async def Process(  # type: ignore[override]  # noqa: N802  # as in FluxService
            self, request: pb.ProcessRequest, context: Any
        ) -> None:
            contexts.append(OneAtATime(context))
            await super().Process(request, contexts[-1])

    defaults = Defaults(progress_every=0.0, batch_size=20)
    async with serving(service=Watched, defaults=defaults) as server, Client(server.address) as client:

        async def run() -> int:
            return len([result async for result in client.repeat(200)])

        assert await asyncio.gather(*(run() for _ in range(8))) == [200] * 8
    assert len(contexts) == 8
    assert [context.overlaps for context in contexts] == [0] * 8
    assert [len(context.writers) for context in contexts] == [1] * 8
    assert min(context.writers.total() for context in contexts) >= 10


async def test_results_come_in_pieces_of_the_asked_size() -> None:
    """No message has more results than BATCH_SIZE, and the summary is in the last one alone."""
    async with serving(defaults=Defaults(batch_size=10)) as server, Client(server.address) as client:
        messages = [message async for message in client.send(repeated(95, ordered=True)).raw()]
    assert max(len(message.results) for message in messages) <= 10
    assert [result.index for message in messages for result in message.results] == list(range(95))
    assert [message.HasField("summary") for message in messages] == [False] * (len(messages) - 1) + [True]


async def test_large_results_fit_a_client_with_grpc_s_default_limit() -> None:
    """A message over 4 MiB would kill the stream, so results are parted by bytes too."""
    async with serving(upstream=Bulky(1 << 20)) as server, connected(server) as channel:
        messages = [message async for message in stub_of(channel).Process(repeated(12))]
    assert sum(len(message.results) for message in messages) == 12
    assert all(len(result.response.body) == 1 << 20 for message in messages for result in message.results)
    assert messages[-1].summary.succeeded == 12


async def test_a_fault_in_the_middle_of_a_stream_ends_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before it is good; then INTERNAL with an id, and the engine has dropped the rest."""
    encode = wire.encode

    def breaking(results: Any, *rest: Any) -> Any:
        if any(result.index == 400 for result in results):
            raise ZeroDivisionError("canary text")
        return encode(results, *rest)

    monkeypatch.setattr(wire, "encode", breaking)
    # The window lets 500 calls through: the others still wait when the fault comes.
    async with serving(limits=(Limit(500, 3600 * SECOND),)) as server, Client(server.address) as client:
        stream = client.send(repeated(1000, ordered=True))
        indices: list[int] = []

        async def read() -> None:
            async for result in stream:
                indices.append(result.index)  # noqa: PERF401  # a comprehension would lose what came before

        with pytest.raises(InternalError) as caught:
            await read()
        assert indices == list(range(len(indices)))
        assert 0 < len(indices) <= 400
        assert caught.value.metadata["error_id"] in str(caught.value)
        assert "canary" not in str(caught.value)
        assert await server.engine.wait_idle(30)
        assert server.engine.admission.calls == 0


@pytest.mark.looptime
async def test_a_reader_has_so_long_to_take_a_message() -> None:
    """Then its stream ends as READER_STALLED, at the bound and not before, and its batch is stopped."""
    async with direct(Limit(1000, SECOND), defaults=Defaults(write_timeout=300)) as service:
        context = Context()
        context.stalled = True
        start = asyncio.get_running_loop().time()
        with pytest.raises(ReaderStalled):
            await service.process(10, context)
        assert asyncio.get_running_loop().time() - start == pytest.approx(300, abs=0.1)
        assert await service.engine.wait_idle(1)
        assert len(await service.process(10)) == 10


async def test_a_reader_that_stalls_ends_its_own_stream_alone() -> None:
    """Its places are free then, and another stream on the connection goes on."""
    async with (
        serving(defaults=Defaults(write_timeout=1.0), upstream=Bulky(1 << 16)) as server,
        connected(server) as channel,
        Client(server.address) as client,
    ):
        stalled = stub_of(channel).Process(repeated(1000))  # 64 MB: far more than is sent ahead of a reader
        await stalled.read()
        assert len([result async for result in client.repeat(20)]) == 20
        await until(lambda: server.engine.admission.batches == 0)
        assert server.engine.admission.calls == 0
        assert len([result async for result in client.repeat(20)]) == 20
        with suppress(grpc.aio.AioRpcError):  # its status comes after what was sent ahead
            while await stalled.read() is not grpc.aio.EOF:
                pass
        assert await stalled.code() is grpc.StatusCode.ABORTED
