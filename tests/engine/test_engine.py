"""The doors between server and engine: each rule of places, endings, failure and drain, on one loop in virtual time.

The engine in these tests shares the test's loop; tests/engine/test_thread.py runs it in a thread of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from apiflux_grpc.core.batch import Batch, Ending
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.errors import Draining, EngineFailed, Overloaded, PoolNotFound
from apiflux_grpc.core.model import Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.outcome import Cause, NotSent, Reason, Result, Unknown
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.admission import Bounds
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.messages import BatchSpec, Over
from apiflux_grpc.engine.outbox import BYTES, PLACES, Outbox
from apiflux_grpc.engine.ticket import Ticket
from apiflux_grpc.testing import FakeUpstream, loop_clock
from tests.engine.told import Told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from apiflux_grpc.engine.ports import Attempt

pytestmark = pytest.mark.looptime

POLICY = RetryPolicy(max_attempts=3, initial_backoff=SECOND, max_backoff=SECOND)


class Bench:
    """An engine over a FakeUpstream, and what a server would do with it."""

    def __init__(
        self,
        *limits: Limit,
        bounds: Bounds | None = None,
        on_health: Callable[[bool], None] = lambda healthy: None,
    ) -> None:
        self.upstream = FakeUpstream(loop_clock)
        self.told = Told()
        pool = Pool("default", (Key("key-1", "secret", limits),), arrival_jitter=0, max_connections=1 << 40)
        parts = PoolParts(pool, lambda: self.upstream, None)
        self.engine = Engine([parts], self.told, bounds=bounds, clock=loop_clock, on_health=on_health)

    def submit(self, calls: int, *, ordered: bool = False, idempotent: bool = True) -> Ticket:
        each = Call(idempotent=idempotent)
        return self.engine.submit(BatchSpec("default", "caller", [each] * calls, POLICY, size=calls, ordered=ordered))

    async def turn(self, seconds: float = 0.0) -> None:
        """Let everything happen that is due."""
        for _ in range(6):
            await asyncio.sleep(0)
        if seconds:
            await asyncio.sleep(seconds)

    async def answer_all(self) -> None:
        """Answer whatever is open, until nothing is."""
        while self.upstream.open:
            for attempt in list(self.upstream.open):
                self.upstream.answer(attempt)
            await self.turn()


async def read(ticket: Ticket, credit: bool = True) -> tuple[list[Result], Over]:
    """Everything to the end."""
    results: list[Result] = []
    while True:
        message = await ticket.next(100)
        results += message.items
        if credit:
            ticket.credit(len(message.items), message.size)
        if message.over is not None:
            return results, message.over


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench(Limit(1_000_000, SECOND))
    await made.engine.start(own_thread=False)
    yield made
    await made.engine.stop()
    assert made.told.crashes == []


async def test_every_call_gets_one_result_and_counts_come_back(bench: Bench) -> None:
    """One result per call; `over` comes with the last; admission is back at zero."""
    ticket = bench.submit(250)
    await bench.turn()
    await bench.answer_all()
    results, over = await read(ticket)
    assert sorted(result.index for result in results) == list(range(250))
    assert over.ending is Ending.COMPLETE
    assert over.tally.succeeded == 250
    assert (bench.engine.admission.batches, bench.engine.admission.calls, bench.engine.admission.size) == (0, 0, 0)


@pytest.mark.parametrize("dial", [0.0, 0.5])
async def test_calls_that_hang_leave_no_capacity_idle(dial: float) -> None:
    """A slot comes back when its call must have arrived, answered or not: the pump wakes up for it by itself."""
    bench = Bench(Limit(10, SECOND))
    await bench.engine.start(own_thread=False)
    begin = bench.upstream.begin

    def begin_and_send(attempt: Attempt) -> None:
        begin(attempt)
        if dial:
            asyncio.get_running_loop().call_later(dial, bench.upstream.send, attempt)
        else:
            bench.upstream.send(attempt)

    bench.upstream.begin = begin_and_send  # type: ignore[method-assign]
    bench.submit(100)
    await asyncio.sleep(5.5 + 5 * dial)
    assert len(bench.upstream.begun) == 60
    await bench.engine.stop()


async def test_a_reader_that_takes_nothing_bounds_its_batch(bench: Bench) -> None:
    """Places: no more calls are begun than the outbox has places; credit lets as many more begin."""
    ticket = bench.submit(PLACES + 5000)
    await bench.turn()
    await bench.answer_all()
    assert len(bench.upstream.begun) == PLACES
    message = await ticket.next(100)
    ticket.credit(len(message.items), message.size)
    await bench.turn()
    assert len(bench.upstream.begun) == PLACES + len(message.items)


async def test_large_results_bound_a_batch_by_bytes(bench: Bench) -> None:
    """Bytes: with a stalled reader, what is held stays under the bound plus what was in flight."""
    bench.submit(3000)
    await bench.turn()
    first = len(bench.upstream.open)
    held = 0
    while bench.upstream.open:
        bench.upstream.answer(bench.upstream.open[0], body=bytes(1 << 20))
        held += 1 << 20
        await bench.turn()
    assert held <= BYTES + (first + 1) * (1 << 20)
    assert len(bench.upstream.begun) <= first + 8


async def test_an_empty_outbox_always_starts_one_call() -> None:
    """However large results are expected to be, a batch with nothing held and nothing in flight goes on."""
    outbox = Outbox(Batch(1, "caller", 5, admitted_at=0), bytes_bound=10)
    assert outbox.batch.reach == 1


async def test_a_last_result_that_makes_room_is_the_last(bench: Bench) -> None:
    """Seven large results fill the outbox; the eighth and last is small, so that there is room again for nobody."""
    ticket = bench.submit(8)
    await bench.turn()
    while bench.upstream.open:
        last = len(bench.upstream.begun) == 8 and len(bench.upstream.open) == 1
        bench.upstream.answer(bench.upstream.open[0], body=bytes(16 if last else BYTES // 8))
        await bench.turn()
    results, over = await read(ticket)
    assert (len(results), over.ending) == (8, Ending.COMPLETE)


def test_results_that_wait_for_their_turn_leave_room_for_the_call_they_wait_for() -> None:
    """Ordered: wrong calls of a stream may fill every place before the first call could start."""
    outbox = Outbox(Batch(1, "caller", 1, admitted_at=0), ordered=True, places=5)
    for index in range(1, 8):
        outbox.put(Result(index, None, Reason.INVALID_CALL, "", 0, 0, 0, 0))
    assert not outbox.ready
    assert outbox.batch.has_work


async def test_a_retry_needs_no_new_room(bench: Bench) -> None:
    """An ordered batch whose first call is retried does not deadlock behind its own results."""
    ticket = bench.submit(PLACES + 10, ordered=True)
    await bench.turn()
    first = bench.upstream.open[0]
    for attempt in bench.upstream.open[1:]:
        bench.upstream.answer(attempt)
    bench.upstream.fail(first, NotSent(Cause.UNREACHABLE, "refused"))
    await bench.turn(2)
    reading = asyncio.create_task(read(ticket))
    while not reading.done():
        await bench.answer_all()
        await bench.turn(0.2)
    results, _ = await reading
    assert [result.index for result in results] == list(range(PLACES + 10))


@pytest.mark.parametrize(("idempotent", "attempts"), [(True, 3), (False, 1)])
async def test_what_may_have_run_is_sent_again_only_if_idempotent(
    bench: Bench, idempotent: bool, attempts: int
) -> None:
    """At most once unless safe; each attempt is charged to the key."""
    ticket = bench.submit(1, idempotent=idempotent)
    for _ in range(attempts):
        await bench.turn(1.5)
        (attempt,) = bench.upstream.open
        bench.upstream.send(attempt)
        bench.upstream.fail(attempt, Unknown("cut"))
    (result,), over = await read(ticket)
    assert result.failure is Reason.UNKNOWN
    assert result.attempts == attempts
    assert over.tally.failed == {Reason.UNKNOWN: 1}


async def test_a_call_never_sent_is_refunded_and_one_sent_stays_charged() -> None:
    """With a limit of one call a minute: NotSent gives the permit back at once, Unknown keeps it a minute."""
    bench = Bench(Limit(1, 60 * SECOND))
    await bench.engine.start(own_thread=False)
    bench.submit(2)
    await bench.turn()
    bench.upstream.fail(bench.upstream.open[0], NotSent(Cause.UNREACHABLE, "refused"))
    await bench.turn(1.5)
    assert len(bench.upstream.begun) == 2
    bench.upstream.send(bench.upstream.open[0])
    bench.upstream.fail(bench.upstream.open[0], Unknown("cut"))
    await bench.turn(50)
    assert len(bench.upstream.begun) == 2
    await bench.turn(11)
    assert len(bench.upstream.begun) == 3
    await bench.engine.stop()


async def test_cancel_drops_unsent_calls_and_spends_nothing_for_them() -> None:
    """Cancel: what was not begun never is, what is in flight is stopped, `over` comes when none is left."""
    bench = Bench(Limit(3, 60 * SECOND))
    await bench.engine.start(own_thread=False)
    ticket = bench.submit(10)
    await bench.turn()
    assert len(bench.upstream.open) == 3
    ticket.cancel()
    ticket.cancel()
    _, over = await read(ticket)
    assert over.ending is Ending.CANCELLED
    assert bench.upstream.open == []
    assert bench.engine.admission.calls == 0
    await bench.turn(120)
    assert len(bench.upstream.begun) == 3
    await bench.engine.stop()


async def test_a_cancel_that_crosses_the_end_is_ignored(bench: Bench) -> None:
    """An unknown batch is nobody's: cancel and credit after `over` do nothing."""
    ticket = bench.submit(1)
    await bench.turn()
    await bench.answer_all()
    ticket.cancel()
    await bench.turn()
    _, over = await read(ticket)
    assert over.ending is Ending.COMPLETE
    ticket.cancel()
    ticket.credit(1, 1)
    await bench.turn()
    assert bench.engine.healthy


async def test_a_429_blocks_that_key_for_as_long_as_it_says(bench: Bench) -> None:
    """Retry-After on a 429 keeps the key waiting exactly so long, and the call is made again."""
    ticket = bench.submit(1, idempotent=False)
    await bench.turn()
    bench.upstream.answer(bench.upstream.open[0], 429, {"retry-after": "7"})
    await bench.turn(6.9)
    assert len(bench.upstream.begun) == 1
    await bench.turn(0.2)
    assert len(bench.upstream.begun) == 2
    await bench.answer_all()
    (result,), _ = await read(ticket)
    assert (result.failure, result.attempts) == (None, 2)
    assert bench.told.events[0] == "key-1 blocked 7"


async def test_drain_ends_what_was_not_sent_and_lets_the_rest_finish() -> None:
    """Drain: new batches are refused, unsent calls end as DRAINING, calls in flight get their answer."""
    bench = Bench(Limit(3, 60 * SECOND))
    await bench.engine.start(own_thread=False)
    ticket = bench.submit(10)
    await bench.turn()
    bench.engine.drain(15 * SECOND)
    with pytest.raises(Draining):
        bench.submit(1)
    await bench.turn()
    await bench.answer_all()
    results, over = await read(ticket)
    assert over.ending is Ending.DRAINING
    assert sorted(result.index for result in results) == list(range(10))
    assert [result.failure for result in results].count(Reason.DRAINING) == 7
    assert await bench.engine.wait_idle(1)
    await bench.engine.stop()


async def test_the_grace_ends_what_hangs(bench: Bench) -> None:
    """After the grace a call that still hangs is stopped, and has its result all the same."""
    ticket = bench.submit(1)
    await bench.turn()
    bench.upstream.send(bench.upstream.open[0])
    bench.engine.drain(15 * SECOND)
    await bench.turn(14)
    assert bench.upstream.cancelled == []
    await bench.turn(2)
    (result,), over = await read(ticket)
    assert result.failure is Reason.UNKNOWN
    assert over.ending is Ending.DRAINING


async def test_the_engine_answers_its_watchdog() -> None:
    """It stays healthy as long as it runs, and its snapshot is new at every beat."""
    bench = Bench(Limit(1, SECOND))
    await bench.engine.start(own_thread=False)
    await bench.turn(20)
    assert bench.engine.healthy
    before = bench.engine.snapshot
    await bench.turn(1)
    assert bench.engine.snapshot is not before
    await bench.engine.stop()
    assert not bench.engine.healthy


async def test_a_fault_of_ours_ends_every_stream_and_health() -> None:
    """A crash says Down first: what is ready is delivered, then EngineFailed; submit is refused; health is off."""
    changes: list[bool] = []
    bench = Bench(Limit(1_000, SECOND), on_health=changes.append)
    await bench.engine.start(own_thread=False)
    ticket = bench.submit(2)
    await bench.turn()
    bench.upstream.answer(bench.upstream.open[0])
    await bench.turn()

    def broken(attempt: Attempt) -> None:
        raise ZeroDivisionError("ours")

    bench.upstream.begin = broken  # type: ignore[method-assign]
    bench.submit(1)
    await bench.turn()
    assert len((await ticket.next(100)).items) == 1
    with pytest.raises(EngineFailed):
        await ticket.next(100)
    with pytest.raises(EngineFailed):
        bench.submit(1)
    assert changes == [True, False]
    assert [type(error) for error in bench.told.crashes] == [ZeroDivisionError]
    await bench.engine.stop()


async def test_the_door_is_bounded() -> None:
    """Too many batches, calls or bytes are refused with the time until there is room; nothing of them is begun."""
    bench = Bench(Limit(1, 60 * SECOND), bounds=Bounds(batches=2, calls=10, size=12))
    await bench.engine.start(own_thread=False)
    bench.submit(8)
    await bench.turn(1.1)  # a beat brings the drain time
    with pytest.raises(Overloaded, match="queued calls") as caught:
        bench.submit(3)
    assert caught.value.reason == "TOO_MANY_CALLS"
    assert 6 * 60 * SECOND < caught.value.retry_after < 8 * 60 * SECOND
    bench.submit(1)
    with pytest.raises(Overloaded) as caught:
        bench.submit(1)
    assert caught.value.reason == "TOO_MANY_BATCHES"
    with pytest.raises(PoolNotFound):
        bench.engine.submit(BatchSpec("nowhere", "caller", [Call()], POLICY))
    await bench.engine.stop()


async def test_the_standing_comes_once_a_second_with_an_eta() -> None:
    """While nothing completes, a batch is told how it stands and how long it will take, by what the limit allows."""
    bench = Bench(Limit(10, 60 * SECOND))
    await bench.engine.start(own_thread=False)
    ticket = bench.submit(40)
    await bench.turn()
    await bench.answer_all()
    message = await ticket.next(100)
    while message.standing.eta is None:
        message = await ticket.next(100)
    assert 165 * SECOND < message.standing.eta < 190 * SECOND
    assert message.standing.done == 10
    await bench.engine.stop()


async def test_the_first_eta_comes_within_a_second() -> None:
    """Though something else was told a moment before, when it wasn't known yet."""
    bench = Bench(Limit(10, 60 * SECOND))
    await bench.engine.start(own_thread=False)
    await bench.turn(0.5)
    began = loop_clock()
    ticket = bench.submit(40)
    await bench.turn()
    await bench.answer_all()
    message = await ticket.next(100)
    assert message.standing.eta is None
    message = await ticket.next(100)
    assert message.standing.eta is not None
    assert loop_clock() - began <= SECOND
    await bench.engine.stop()
