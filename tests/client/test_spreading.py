"""One stream of the asynchronous client over several servers: what each takes, and what becomes of one that is lost."""

from __future__ import annotations

from apiflux_grpc.client import Client
from tests.client.scripted import answers_all, gets, scripted


async def test_each_server_takes_calls_and_every_call_has_one_result() -> None:
    """The servers take from one source, and both work."""
    async with (
        scripted(answers_all) as (one, first),
        scripted(answers_all) as (other, second),
        Client([one, other]) as client,
    ):
        stream = client.process_stream(gets(3_000), resume=True)
        seen = [item.index async for item in stream]
    assert sorted(seen) == list(range(3_000))
    assert first.connections == second.connections == 1
    assert stream.summary is not None
    assert stream.summary.total == 3_000
