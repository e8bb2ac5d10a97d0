"""An ordered batch whose calls may pass each other, for they meet different limits."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.headers import NO_HEADERS
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.outbox import Outbox

PLACES = 5
WALL = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("bytes_bound", [1 << 20, 600])
def test_calls_that_pass_an_earlier_one_keep_within_the_outbox(bytes_bound: int) -> None:
    """While a search waits for its limit, no more results wait for it than there are places; and it isn't kept out."""
    limits = (Limit(100, SECOND), Limit(1, SECOND, paths=("/search/",)))
    dispatcher = Dispatcher(Pool("pool", (Key("key-1", "secret", limits),), 0), None)
    paths = ["/search/", "/search/", *["/other"] * 20, "/search/"]
    batch = Batch(1, "caller", len(paths), admitted_at=0, calls=[Call(path=path) for path in paths])
    outbox = Outbox(batch, ordered=True, places=PLACES, bytes_bound=bytes_bound)
    dispatcher.submit(batch, 0)
    now, order = 0, list[int]()
    while len(order) < len(paths):
        permits, wake_at = dispatcher.assign(now, 100)
        for permit in permits:
            dispatcher.sent(permit, now)
            result = dispatcher.settle(permit, Answer(200, NO_HEADERS, b"", now), now, WALL, 0.5)
            assert result is not None
            if outbox.put(result):
                dispatcher.room(batch)
            assert len(outbox.kept) < PLACES
        read, outbox.ready = outbox.ready, []
        order += [result.index for result in read]
        if read and outbox.credit(len(read), sum(result.size for result in read)):
            dispatcher.room(batch)
        if not permits:
            assert wake_at is not None
            now = wake_at
    assert order == [*range(len(paths))]
    assert now < 3 * SECOND
