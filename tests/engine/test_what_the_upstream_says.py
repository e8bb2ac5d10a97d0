"""What the upstream says, and what the engine makes of it: blocks, cuts, hints, breakers, retries, giving up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping

import pytest

from apiflux_grpc.core.batch import Ending
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.fields import JsonField
from apiflux_grpc.core.model import Counts, Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.outcome import (
    CANCELLED,
    CLOSED,
    LATE,
    NO_CONNECTION,
    OUT_OF_TIME,
    Cause,
    NotSent,
    Reason,
    Result,
)
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.messages import BatchSpec, Over
from apiflux_grpc.engine.ports import Attempt
from apiflux_grpc.engine.ticket import Ticket
from apiflux_grpc.testing import FakeUpstream, loop_clock
from tests.engine.told import Told

pytestmark = pytest.mark.looptime

POLICY = RetryPolicy(max_attempts=3, initial_backoff=SECOND // 10, max_backoff=SECOND // 10)
Reply = tuple[int, Mapping[str, str]]
AnswerTo = Callable[[Attempt], Reply | NotSent | None]


class Scripted(FakeUpstream):
    """Ends every attempt after `latency` seconds as `answer_to` says; None: it can't be reached."""

    def __init__(self, clock: Callable[[], int], answer_to: AnswerTo, latency: float) -> None:
        super().__init__(clock)
        self._answer_to = answer_to
        self._latency = latency
        self.at: list[float] = []

    def begin(self, attempt: Attempt) -> None:
        super().begin(attempt)
        loop = asyncio.get_running_loop()
        self.at.append(loop.time())
        loop.call_later(self._latency, self._end_it, attempt)

    def _end_it(self, attempt: Attempt) -> None:
        if attempt not in self.open:
            return
        reply = self._answer_to(attempt)
        if reply is None:
            self.fail(attempt, NotSent(Cause.UNREACHABLE, "can't connect: connection refused"))
        elif isinstance(reply, NotSent):
            self.fail(attempt, reply)
        else:
            self.answer(attempt, reply[0], reply[1], b'{"usage": {"total": 30}}')


class Bench:
    """An engine with some keys over a scripted upstream."""

    def __init__(
        self,
        answer_to: AnswerTo,
        *limits: Limit,
        keys: int = 2,
        latency: float = 0.01,
        **pool: object,
    ) -> None:
        self.told = Told()
        self.upstream = Scripted(loop_clock, answer_to, latency)
        each = tuple(Key(f"key-{number}", "secret", limits) for number in range(keys))
        made = Pool("default", each, arrival_jitter=0, **pool)  # type: ignore[arg-type]
        self.engine = Engine([PoolParts(made, lambda: self.upstream, None)], self.told, clock=loop_clock)

    async def run(self, calls: int, *, policy: RetryPolicy = POLICY, costs: list[int] | None = None) -> list[Result]:
        """The results of one batch."""
        if not self.engine.healthy:
            await self.engine.start(own_thread=False)
        spec = BatchSpec("default", "caller", [Call()] * calls, policy, size=calls, costs=costs)
        self.ticket = self.engine.submit(spec)
        results, self.over = await read(self.ticket)
        return results

    def attempts(self, key: str) -> int:
        return sum(attempt.key.label == key for attempt in self.upstream.begun)


async def read(ticket: Ticket) -> tuple[list[Result], Over]:
    results: list[Result] = []
    while True:
        message = await ticket.next(100)
        results += message.items
        ticket.credit(len(message.items), message.size)
        if message.over is not None:
            return results, message.over


def failures(results: list[Result]) -> Counter[Reason | None]:
    return Counter(result.failure for result in results)


async def test_429_blocks_that_key_alone_and_the_call_goes_to_another() -> None:
    """The other key goes on; the call that drew it is made again, with the other key."""
    first = True

    def answer(attempt: Attempt) -> Reply:
        nonlocal first
        if first and attempt.key.label == "key-0":
            first = False
            return 429, {"retry-after": "30"}
        return 200, {}

    bench = Bench(answer, Limit(100, 60 * SECOND))
    results = await bench.run(20)
    assert failures(results) == {None: 20}
    assert bench.told.events[0] == "key-0 blocked 30"
    assert [result.attempts for result in results if result.attempts > 1] == [2]
    (again,) = [result for result in results if result.attempts == 2]
    assert again.key == "key-1"
    assert (await bench.run(20))[0].key == "key-1"  # still blocked
    await bench.engine.stop()


async def test_a_429_cuts_the_limit_and_it_comes_back() -> None:
    """0.7 of it once per window, however many 429s the calls in flight draw; 5 % more in each window without one."""
    refuse = True

    def answer(attempt: Attempt) -> Reply:
        return (429, {"retry-after": "1"}) if refuse else (200, {})

    bench = Bench(answer, Limit(100, 10 * SECOND), keys=1)
    policy = RetryPolicy(reasons=RetryPolicy().reasons - {Reason.LIMITED})
    await bench.run(50, policy=policy)
    assert bench.told.events.count("key-0 cut 100 calls per 10s") == 1
    refuse = False
    await asyncio.sleep(5)
    window = 10.002
    begun = len(bench.upstream.begun)
    start = asyncio.get_running_loop().time()
    await bench.run(500, policy=policy)
    at = [at - start for at in bench.upstream.at[begun:]]
    first = sum(instant < 0.1 for instant in at)
    assert first == 20  # 70, less the 50 that are still in the window
    steady = [sum(start + step * window < instant <= start + (step + 1) * window for instant in at) for step in (1, 2)]
    assert all(count <= 85 for count in steady)
    await asyncio.sleep(120)
    begun = len(bench.upstream.begun)
    start = asyncio.get_running_loop().time()
    await bench.run(100, policy=policy)
    assert sum(at - start < 0.1 for at in bench.upstream.at[begun:]) == 100
    await bench.engine.stop()


async def test_of_a_limit_that_is_not_configured_no_more_goes_than_is_left() -> None:
    """Fewer than our limit allows: no more go until the reset, then one that asks; more: our limit holds."""
    left = iter([5, 4, 3, 2, 1, 0, *range(99, 0, -1)])

    def answer(attempt: Attempt) -> Reply:
        return 200, {
            "x-ratelimit-limit-requests": "9",
            "x-ratelimit-remaining-requests": str(next(left)),
            "x-ratelimit-reset-requests": "20s",
        }

    bench = Bench(answer, Limit(100, 10 * SECOND), keys=1, latency=0.01)
    await bench.run(1)
    start = asyncio.get_running_loop().time()
    await bench.run(10)
    at = [round(at - start, 1) for at in bench.upstream.at[1:]]
    assert at == [0] * 5 + [20] * 5
    await bench.engine.stop()
    plenty = Bench(lambda _: (200, {"ratelimit": '"default";r=5000;t=20'}), Limit(10, 10 * SECOND), keys=1)
    await plenty.run(20)
    assert plenty.upstream.at[10] - plenty.upstream.at[9] > 9
    await plenty.engine.stop()


async def test_503_with_retry_after_holds_back_that_call_alone() -> None:
    """Its own retry waits as long as it was told; others go on."""
    told = False

    def answer(attempt: Attempt) -> Reply:
        nonlocal told
        if not told:
            told = True
            return 503, {"retry-after": "20"}
        return 200, {}

    bench = Bench(answer, Limit(100, 60 * SECOND), keys=1)
    start = asyncio.get_running_loop().time()
    results = await bench.run(10)
    assert failures(results) == {None: 10}
    late = sorted(result.ended_at / 1e9 - start for result in results)
    assert late[-2] < 1
    assert late[-1] > 20
    assert not bench.told.events
    await bench.engine.stop()


async def test_a_rejected_key_is_left_alone_and_comes_back_by_itself() -> None:
    """Calls that it refused are made with another; one call at a time tries it again."""
    reject = True

    def answer(attempt: Attempt) -> Reply:
        return (401, {}) if reject and attempt.key.label == "key-0" else (200, {})

    bench = Bench(answer, Limit(1000, SECOND))
    assert failures(await bench.run(200)) == {None: 200}
    assert bench.told.events == ["key-0 rejected 10"]
    drawn = bench.attempts("key-0")
    await asyncio.sleep(9)
    assert failures(await bench.run(100)) == {None: 100}
    assert bench.attempts("key-0") == drawn
    await asyncio.sleep(2)
    assert failures(await bench.run(100)) == {None: 100}
    assert bench.attempts("key-0") == drawn + 1
    assert bench.told.events[-1] == "key-0 rejected 20"
    reject = False
    await asyncio.sleep(21)
    assert failures(await bench.run(100)) == {None: 100}
    assert bench.told.events[-1] == "key-0 accepted"
    before = bench.attempts("key-0")
    await bench.run(100)
    assert bench.attempts("key-0") > before + 10
    await bench.engine.stop()


async def test_calls_wait_for_a_usable_key_no_longer_than_the_patience() -> None:
    """With every key rejected, what waits ends as NO_USABLE_KEY after the pool's patience, and not before."""
    bench = Bench(lambda _: (401, {}), Limit(5, SECOND), patience=60 * SECOND)
    start = asyncio.get_running_loop().time()
    results = await bench.run(100)
    assert sum(failures(results).values()) == 100
    assert failures(results)[Reason.NO_USABLE_KEY] > 80
    assert 60 <= asyncio.get_running_loop().time() - start < 65
    assert bench.over.ending is Ending.GIVEN_UP
    assert "it rejects every key" in bench.told.events[-1]
    await bench.engine.stop()


@pytest.mark.parametrize(
    "unsent",
    [LATE, OUT_OF_TIME, CANCELLED, CLOSED, NO_CONNECTION, NotSent(Cause.UNREACHABLE, "the host name was not found")],
    ids=str,
)
async def test_what_we_kept_from_being_sent_says_nothing_of_the_upstream(unsent: NotSent) -> None:
    """Any number of calls that we were too late for, or gave up, leave the breaker closed; no connection opens it."""
    bench = Bench(lambda _: unsent, Limit(1000, 10 * SECOND))
    await bench.run(30, policy=RetryPolicy(max_attempts=1))
    opened = [event for event in bench.told.events if event.startswith("failing")]
    assert bool(opened) == (not unsent.cause.ours)
    await bench.engine.stop()


@pytest.mark.parametrize("status", [429, 500])
async def test_what_waits_to_be_tried_again_never_ran_if_it_must_not_run_twice(status: int) -> None:
    """A call that isn't idempotent waits for a retry only after an attempt that was certainly not executed."""
    bench = Bench(lambda _: (status, {"retry-after": "100"}), Limit(1000, SECOND), keys=1)
    await bench.engine.start(own_thread=False)
    calls = [Call(idempotent=place % 2 > 0) for place in range(20)]
    ticket = bench.engine.submit(BatchSpec("default", "caller", calls, POLICY, size=20))
    await asyncio.sleep(5)
    ticket.end_unsent()
    results, over = await read(ticket)
    assert over.ending is Ending.STOPPED
    tried = [result for result in results if result.outcome is None and result.attempts]
    assert tried
    assert {result.never_ran for result in tried if not calls[result.index].idempotent} <= {True}
    assert {result.never_ran for result in tried if calls[result.index].idempotent} <= {False}
    await bench.engine.stop()


async def test_a_failing_upstream_is_tried_one_call_at_a_time() -> None:
    """A run of failures stops the pool, so that retries don't spend its budgets; it goes on when a probe succeeds."""
    down = True
    bench = Bench(lambda _: None if down else (200, {}), Limit(1000, SECOND), keys=3)
    task = asyncio.create_task(bench.run(500, policy=RetryPolicy(max_attempts=3)))
    await asyncio.sleep(0.5)
    tried = len(bench.upstream.begun)
    assert bench.told.events[0] == "failing 1: can't connect: connection refused"
    await asyncio.sleep(10)
    assert len(bench.upstream.begun) - tried <= 4  # probes after 1, 2, 4 s
    down = False
    results = await task
    assert "back" in bench.told.events
    assert failures(results)[None] > 400
    await bench.engine.stop()


async def test_the_cost_of_an_answer_corrects_the_budget() -> None:
    """Declared 10, really 30: the overrun is paid by waiting, and no window ever holds more than its limit."""
    limit = Limit(100, 10 * SECOND, counts=Counts.COST)
    bench = Bench(
        lambda _: (200, {}), limit, keys=1, latency=0.01, cost_from=JsonField(("usage", "total")), max_connections=1
    )
    await bench.run(20, costs=[10] * 20)
    at = bench.upstream.at
    for start in at:
        assert sum(30 for instant in at if start <= instant < start + 10) <= 120  # the last one was declared as 10
    assert at[-1] > 40
    await bench.engine.stop()


async def test_a_path_that_is_forbidden_does_not_take_the_keys_from_others() -> None:
    """A 403 now and then, among calls that succeed, rejects no key."""
    count = 0

    def answer(attempt: Attempt) -> Reply:
        nonlocal count
        count += 1
        return (403, {}) if count % 3 == 0 else (200, {})

    bench = Bench(answer, Limit(1000, SECOND), keys=1)
    await bench.run(200, policy=RetryPolicy(max_attempts=1))
    assert bench.told.events == []
    await bench.engine.stop()
