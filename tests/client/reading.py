"""Both clients as one function: a stream that resumes, read to its end, so that one test holds for both.

Rule: what comes before an error counts too, so it is kept, and the error stands beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

from apiflux_grpc.client import Call, Client, Result, Stream, Summary, SyncClient, SyncStream

BeforeSend = Callable[[Sequence[int]], None]


@dataclass
class Read:
    """What came of a stream; `error` is what ended it."""

    results: list[Result] = field(default_factory=list)
    error: Exception | None = None
    summary: Summary | None = None
    unsent: list[int] = field(default_factory=list)

    @property
    def indexes(self) -> list[int]:
        """Those of the results, as they came."""
        return [one.index for one in self.results]

    def end(self, stream: Stream | SyncStream) -> None:
        self.summary, self.unsent = stream.summary, stream.unsent


class Reader(Protocol):
    """Run a stream of calls with `resume`. `each` is called after every result, `before_send` as the client has it."""

    async def __call__(
        self,
        target: str,
        calls: Iterable[Call],
        *,
        each: Callable[[Read], object] = ...,
        before_send: BeforeSend | None = None,
        **options: Any,
    ) -> Read: ...


async def read_async(
    target: str,
    calls: Iterable[Call],
    *,
    each: Callable[[Read], object] = lambda _: None,
    before_send: BeforeSend | None = None,
    **options: Any,
) -> Read:
    """With Client."""
    read = Read()
    async with Client(target) as client:

        async def note(indexes: Sequence[int]) -> None:
            await client.info()  # over the same connection: what was written before it has arrived now
            assert before_send is not None
            before_send(indexes)

        if before_send is not None:
            options["before_send"] = note
        stream = client.process_stream(calls, resume=True, **options)
        try:
            async for one in stream:
                read.results.append(one)
                each(read)
        except Exception as error:
            read.error = error
        read.end(stream)
    return read


async def read_blocking(
    target: str,
    calls: Iterable[Call],
    *,
    each: Callable[[Read], object] = lambda _: None,
    before_send: BeforeSend | None = None,
    **options: Any,
) -> Read:
    """With SyncClient, in a thread."""

    def work() -> Read:
        read = Read()
        with SyncClient(target) as client:

            def note(indexes: Sequence[int]) -> None:
                client.info()
                assert before_send is not None
                before_send(indexes)

            if before_send is not None:
                options["before_send"] = note
            stream = client.process_stream(calls, resume=True, **options)
            try:
                for one in stream:
                    read.results.append(one)
                    each(read)
            except Exception as error:
                read.error = error
            read.end(stream)
        return read

    return await asyncio.to_thread(work)


with_both_clients = pytest.mark.parametrize("read", [read_async, read_blocking], ids=["async", "blocking"])
