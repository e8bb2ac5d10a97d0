"""How long work will take, against the real scheduler at work on virtual time."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

import pytest

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.bucket import FAR, PacerFactory
from apiflux_grpc.core.cost import LARGEST_COST
from apiflux_grpc.core.forecast import Forecast
from apiflux_grpc.core.hints import Hint
from apiflux_grpc.core.model import Counts, Key, Kind, Limit, Pool
from apiflux_grpc.core.outlook import Outlook
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.core.turns import work_before
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.testing import FakePacer
from tests.core.building import block

MINUTE: Final = 60 * SECOND
LATENCY: Final = 80 * MILLISECOND
PLENTY: Final = 1 << 40


def pool_of(*limits: tuple[Limit, ...], slots: int = PLENTY) -> Pool:
    keys = tuple(Key(f"key-{place}", "secret", own) for place, own in enumerate(limits))
    return Pool("default", keys, max_connections=slots)


def batch_of(total: int, id: int = 1, caller: str = "a", weight: float = 1.0) -> Batch:
    return Batch(id, caller, total, admitted_at=0, weight=weight)


def forecast(scheduler: Scheduler, now: int, latency: int = LATENCY) -> Forecast:
    return Forecast(scheduler.keys, now, latency, scheduler.pool.max_connections)


class Run:
    """A scheduler whose calls go out at once and are answered after the latency."""

    def __init__(self, pool: Pool, latency: int = LATENCY, make_pacer: PacerFactory | None = None) -> None:
        self.scheduler = Scheduler(pool, make_pacer)
        self.now = 0
        self.made: dict[int, int] = {}  # calls of each batch that have got their permit
        self.made_before: dict[int, int] = {}  # for each batch: the calls of all until its last permit
        self._latency = latency
        self._flying: list[tuple[int, int, Permit]] = []

    def until(self, at: int | None = None) -> int:
        """Go on to `at`, else until the last call has its result; returns that instant."""
        done = self.now
        while True:
            permits, _ = self.scheduler.assign(self.now)
            for permit in permits:
                self._begin(permit)
            wake_at = self.scheduler.wake_at  # what was sent just now comes back too
            if not self._flying and wake_at is None:
                return done
            ends = self._flying[0][0] if self._flying else PLENTY << 20
            then = ends if wake_at is None else min(ends, wake_at)
            if at is not None and then > at:
                self.now = at
                return done
            self.now = then
            while self._flying and self._flying[0][0] <= then:
                done, _, permit = heappop(self._flying)
                self.scheduler.settle(permit, then, then)

    def _begin(self, permit: Permit) -> None:
        batch = permit.batch
        self.made[batch.id] = self.made.get(batch.id, 0) + 1
        if self.made[batch.id] == batch.total:
            self.made_before[batch.id] = sum(self.made.values())
        self.scheduler.sent(permit, self.now)
        heappush(self._flying, (self.now + self._latency, sum(self.made.values()), permit))


# -- time_for ------------------------------------------------------------------------------------


@pytest.mark.parametrize("latency", [0, LATENCY, 2 * SECOND])
@pytest.mark.parametrize(
    ("pool", "calls"),
    [
        (pool_of((Limit(10, SECOND),)), 1),
        (pool_of((Limit(10, SECOND),)), 10),
        (pool_of((Limit(10, SECOND),)), 11),
        (pool_of((Limit(10, SECOND),)), 995),
        (pool_of(*[(Limit(100, MINUTE),)] * 5), 4321),
        (pool_of((Limit(10, SECOND),), (Limit(1000, MINUTE),)), 5000),
        (pool_of((Limit(1, SECOND),), (Limit(7, 10 * SECOND),), (Limit(90, MINUTE),)), 777),
        (pool_of((Limit(100, SECOND), Limit(10, SECOND))), 300),
        (pool_of((Limit(5, SECOND),), slots=3), 200),
        (pool_of((Limit(1000, SECOND),), slots=3), 200),
    ],
)
def test_time_for_is_what_it_takes(pool: Pool, calls: int, latency: int) -> None:
    """From a fresh start the estimate is within 5 % of what the scheduler then needs."""
    run = Run(pool, latency)
    estimate = forecast(run.scheduler, 0, latency).time_for(calls)
    run.scheduler.add(batch_of(calls))
    assert estimate == pytest.approx(run.until(), rel=0.05, abs=2 * MILLISECOND)


@pytest.mark.parametrize("calls", [150, 200, 250, 1000])
def test_time_for_under_two_limits_that_bind_in_turn(calls: int) -> None:
    """Where a short limit shapes the calls of a long one, they come back as slowly as they went."""
    run = Run(pool_of((Limit(10, SECOND), Limit(100, MINUTE))))
    estimate = forecast(run.scheduler, 0).time_for(calls)
    run.scheduler.add(batch_of(calls))
    assert estimate == pytest.approx(run.until(), rel=0.05)


@pytest.mark.parametrize("at", [0, SECOND, 20 * SECOND, 59 * SECOND])
def test_time_for_from_the_middle_of_work(at: int) -> None:
    """What is spent, and what is on its way, is part of the estimate."""
    run = Run(pool_of((Limit(10, SECOND),), (Limit(100, MINUTE),)))
    batch = batch_of(900)
    run.scheduler.add(batch)
    run.until(at)
    estimate = forecast(run.scheduler, at).time_for(batch.waiting)
    assert estimate == pytest.approx(run.until() - at, rel=0.05)


def test_an_outlook_holds_while_permits_are_handed_out() -> None:
    """Made once, it tells at any later instant how long the rest still takes, within 3 %."""
    run = Run(pool_of((Limit(10, SECOND),), (Limit(100, MINUTE),)))
    batch = batch_of(900)
    run.scheduler.add(batch)
    outlook = Outlook(forecast(run.scheduler, 0), 1.0, run.scheduler.assigned)
    estimates = []
    for at in (0, SECOND, 20 * SECOND, 59 * SECOND):
        run.until(at)
        estimates.append((at, outlook.time_for(batch.waiting, run.scheduler.assigned, at, LATENCY)))
    end = run.until()
    for at, estimate in estimates:
        assert estimate == pytest.approx(end - at, rel=0.03)


def test_an_outlook_is_made_anew_when_it_is_not_true_any_more() -> None:
    """Kept while permits go as it says; not when capacity was left unused, the cost is another, or it is old."""
    run = Run(pool_of(*[(Limit(10, SECOND),)] * 500))
    outlook = Outlook(forecast(run.scheduler, 0), 1.0, 0)
    assert outlook.holds(SECOND - 1, 1.0, 0)
    assert not outlook.holds(SECOND - 1, 2.0, 0)
    assert not outlook.holds(3 * SECOND, 1.0, 0)  # five thousand permits should have gone at once
    assert outlook.holds(3 * SECOND, 1.0, 5000 * 3)
    assert not outlook.holds(11 * SECOND, 1.0, 5000 * 11)


def test_many_keys_that_differ_make_no_exact_forecast_late() -> None:
    """A thousand keys, each usable at its own instant: what they can do together is told as for one kind of key."""
    run = Run(pool_of(*[(Limit(30, MINUTE),)] * 200))
    for place, key in enumerate(run.scheduler.keys):
        block(run.scheduler, key, MINUTE + 1 + place)
        for slot in range(30):
            at = slot * 2 * SECOND
            key.budget.windows[0].used += 1
            key.budget.windows[0].record(at, 1)
    exact = forecast(run.scheduler, MINUTE, 0)
    assert exact.permits_for(1000) == pytest.approx(8 * SECOND, rel=0.03)
    coarse = Forecast(run.scheduler.keys, MINUTE, 0, PLENTY, coarse=True).permits_for(1000)
    assert coarse is not None
    assert coarse >= 8 * SECOND


def test_a_thousand_lookups_cost_little_more_than_one() -> None:
    """One curve serves all: what a search evaluated the next ones find again."""

    class Counting(Forecast):
        evaluated = 0

        def permits_by(self, at: int, cost: float = 1.0) -> float:
            Counting.evaluated += 1
            return super().permits_by(at, cost)

    run = Run(pool_of((Limit(10, SECOND),), (Limit(100, MINUTE),)))
    counting = Counting(run.scheduler.keys, 0, 0, 1000)
    outlook = Outlook(counting, 1.0, 0)
    exact = [forecast(run.scheduler, 0, 0).time_for(calls) for calls in range(1, 10_000, 100)]
    told = [outlook.time_for(calls, 0, 0, 0) for calls in range(1, 10_000, 10)]
    assert told[::10] == pytest.approx(exact, rel=0.02, abs=2 * MILLISECOND)
    assert Counting.evaluated < 1_000


@pytest.mark.parametrize("spent", [False, True])
@pytest.mark.parametrize("calls", [5, 50, 95])
def test_time_for_with_a_blocked_key(calls: int, spent: bool) -> None:
    """A blocked key counts from the end of its block, whatever comes back to it before."""
    run = Run(pool_of((Limit(10, 10 * SECOND),)))
    if spent:
        run.scheduler.add(batch_of(10))
        run.until()
    block(run.scheduler, run.scheduler.keys[0], MINUTE)
    start = run.now
    estimate = forecast(run.scheduler, start).time_for(calls)
    run.scheduler.add(batch_of(calls, id=2))
    assert estimate == pytest.approx(run.until() - start, rel=0.05)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("keys", [1, 2])
@pytest.mark.parametrize("calls", [1, 800, 2_500])
def test_time_for_while_a_debt_is_paid_off(kind: Kind, keys: int, calls: int) -> None:
    """A call cost far more than it was charged: that key pays first, and only that key."""
    limit = Limit(1_000, 5 * SECOND, Counts.COST, kind, 1_000)
    run = Run(pool_of(*[(limit,)] * keys), make_pacer=FakePacer)
    run.scheduler.add(Batch(1, "a", 1, admitted_at=0, costs=[10]))
    ((permit,), _) = run.scheduler.assign(0)
    run.scheduler.sent(permit, 0)
    run.scheduler.settle(permit, LATENCY, LATENCY, 11_000)
    run.now = LATENCY
    run.scheduler.advance(run.now)
    expected = forecast(run.scheduler, run.now).time_for(calls)
    run.scheduler.add(Batch(2, "a", calls, admitted_at=run.now, costs=[1] * calls))
    assert expected == pytest.approx(run.until() - LATENCY, rel=0.05, abs=2 * MILLISECOND)


def test_a_debt_beyond_reason_ends_within_an_hour() -> None:
    """One wrong figure of the upstream's doesn't take a bucket's key for ever."""
    limit = Limit(1_000, SECOND, Counts.COST, Kind.BUCKET)
    run = Run(pool_of((limit,)), make_pacer=FakePacer)
    run.scheduler.add(Batch(1, "a", 2, admitted_at=0, costs=[500, 500]))
    ((permit,), _) = run.scheduler.assign(0)
    run.scheduler.sent(permit, 0)
    run.scheduler.settle(permit, LATENCY, LATENCY, LARGEST_COST)
    run.now = LATENCY
    assert run.until() == pytest.approx(3_600 * SECOND, rel=0.01)


def test_one_blocked_key_does_not_stop_the_others() -> None:
    """The others work on, and the blocked one joins them."""
    run = Run(pool_of((Limit(10, SECOND),), (Limit(10, SECOND),)))
    block(run.scheduler, run.scheduler.keys[1], 30 * SECOND)
    estimate = forecast(run.scheduler, 0).time_for(900)
    run.scheduler.add(batch_of(900))
    assert estimate == pytest.approx(run.until(), rel=0.05)


def test_a_rejected_key_is_not_counted_on() -> None:
    """It is tried again in 10 s, and that this succeeds is a hope: until it does, the others do all."""
    scheduler = Scheduler(pool_of((Limit(10, SECOND),), (Limit(10, SECOND),)), None)
    both, alone = forecast(scheduler, 0), forecast(Scheduler(pool_of((Limit(10, SECOND),)), None), 0)
    breaker = scheduler.keys[1].breaker
    for _ in range(3):
        breaker.failed(0, breaker.era)
    rejected = forecast(scheduler, 0)
    assert (rejected.permits_for(900), rejected.rate()) == (alone.permits_for(900), alone.rate())
    breaker.succeeded(0, breaker.began(10 * SECOND))
    again = forecast(scheduler, 0)
    assert (again.permits_for(900), again.rate()) == (both.permits_for(900), both.rate())


def test_nothing_is_expected_while_the_upstream_is_left_alone() -> None:
    """All keys count from the next try on; while that try is out, nobody knows."""
    run = Run(pool_of((Limit(10, SECOND),), (Limit(10, SECOND),)))
    block(run.scheduler, run.scheduler.keys[1], 30 * SECOND)
    keys = run.scheduler.keys
    assert Forecast(keys, 0, 0, PLENTY, upstream_at=8 * SECOND).permits_for(20) == pytest.approx(9 * SECOND, rel=0.01)
    assert Forecast(keys, 0, 0, PLENTY, upstream_at=FAR).permits_for(1) is None


def test_what_the_upstream_says_is_left_counts() -> None:
    """Nothing is left until its reset: the key counts from then on, whatever its own limits say."""
    run = Run(pool_of((Limit(10, SECOND),)))
    (key,) = run.scheduler.keys
    key.budget.listen(0).allow(Hint(0, 20 * SECOND, None, None, Counts.CALLS), None, 0, 0, limited=False)
    assert forecast(run.scheduler, 0).permits_for(25) == pytest.approx(22 * SECOND, rel=0.01)


def test_what_others_take_counts() -> None:
    """Others take half of the limit: the same calls last twice as long."""
    run = Run(pool_of((Limit(10, SECOND),)))
    (key,) = run.scheduler.keys
    alone = forecast(run.scheduler, 0).permits_for(100)
    told = key.budget.listen(0)
    told.hear(0, Hint(5, None, 10, SECOND, Counts.CALLS), 0, None, 0)
    round_ = SECOND + LATENCY
    assert (alone, forecast(run.scheduler, 0).permits_for(100)) == pytest.approx((9 * round_, 19 * round_), rel=0.01)


def test_at_best_every_probe_ends_well_at_once() -> None:
    """Told waits and cool-downs count, since nothing goes before; what only a probe can tell doesn't."""
    run = Run(pool_of((Limit(10, SECOND),)))
    (key,) = run.scheduler.keys
    for era in [key.breaker.began(0)] * 3:
        key.breaker.failed(0, era)

    def at_best(now: int, upstream_at: int = 0) -> int | None:
        return Forecast([key], now, 0, PLENTY, upstream_at=upstream_at, at_best=True).permits_for(10)

    assert at_best(0) == 10 * SECOND  # of the breaker
    assert at_best(0, upstream_at=15 * SECOND) == 15 * SECOND
    key.breaker.began(10 * SECOND)
    assert forecast(run.scheduler, 10 * SECOND).permits_for(10) is None
    assert at_best(10 * SECOND) == at_best(10 * SECOND, upstream_at=FAR) == 0


def test_what_others_take_is_no_capacity_but_at_best() -> None:
    """Half of each window is left for us; what they leave, and what was cut, may all be ours from now on."""
    run = Run(pool_of((Limit(10, SECOND),)))
    keys = run.scheduler.keys
    (window,) = keys[0].budget.windows
    window.set_others(5)
    assert forecast(run.scheduler, 0, 0).permits_for(50) == pytest.approx(9 * SECOND, rel=0.01)
    window.cut(0, 0)
    assert forecast(run.scheduler, 0, 0).permits_for(10) == pytest.approx(4 * SECOND, rel=0.01)
    assert Forecast(keys, 0, 0, PLENTY, at_best=True).permits_for(10) == 0


@pytest.mark.parametrize(("slots", "expected"), [(PLENTY, 1), (100, 10), (1, 1000)])
def test_keys_without_limits_are_bound_by_slots_alone(slots: int, expected: int) -> None:
    """An unlimited key makes as many calls at a time as there are slots."""
    scheduler = Scheduler(pool_of((), (Limit(1, MINUTE),), slots=slots), None)
    assert forecast(scheduler, 0).time_for(1000) == expected * LATENCY


def test_no_calls_take_no_time() -> None:
    """Nothing to do is done."""
    assert forecast(Scheduler(pool_of((Limit(1, SECOND),)), None), 0).time_for(0) == 0


def test_without_keys_it_takes_for_ever() -> None:
    """None says that no key will ever have room."""
    assert forecast(Scheduler(pool_of(), None), 0).time_for(1) is None


def test_permits_are_counted_from_now() -> None:
    """What is free goes at once, and again one period later, to the ns."""
    supply = forecast(Scheduler(pool_of((Limit(10, SECOND),)), None), 7)
    period = SECOND + SECOND // 10_000 + 1 + LATENCY
    instants = [7, 7 + period - 1, 7 + period, 7 + 3 * period]
    assert [supply.permits_by(at) for at in instants] == [10, 10, 20, 40]


def test_many_different_ends_are_merged_and_never_early() -> None:
    """A log of many groups is summed up to 64 ends without promising anything too soon."""
    scheduler = Scheduler(pool_of(*[(Limit(100, MINUTE),)] * 3), None)
    scheduler.add(batch_of(300))
    instants = []
    for place, permit in enumerate(scheduler.assign(0)[0]):
        at = place * 190 * MILLISECOND
        scheduler.sent(permit, at)
        scheduler.settle(permit, at, at)
        instants.append(at)
    now = 58 * SECOND
    scheduler.advance(now)
    supply = forecast(scheduler, now)
    for at in range(now, 119 * SECOND, 500 * MILLISECOND):
        assert supply.permits_by(at) <= sum(instant + MINUTE <= at for instant in instants)
    assert supply.permits_by(119 * SECOND) >= 300


# -- work_before ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        [(100, "a", 1.0)],
        [(100, "a", 1.0), (100, "b", 1.0)],
        [(10, "a", 1.0), (2000, "b", 1.0)],
        [(100, "a", 1.0), (200, "b", 1.0), (300, "c", 1.0), (50, "d", 1.0)],
        [(100, "a", 1.0), (200, "a", 1.0), (300, "a", 1.0)],
        [(100, "a", 1.0), (200, "a", 4.0), (300, "a", 0.5)],
        [(100, "a", 8.0), (100, "b", 0.5)],
        [(40, "a", 1.0), (400, "a", 1.0), (400, "b", 1.0)],
    ],
)
def test_work_before_is_what_the_fair_queue_does(rows: list[tuple[int, str, float]]) -> None:
    """For each batch: the calls that the pool makes until the batch has made its last one, within 5 % and a turn."""
    batches = [batch_of(total, id, caller, weight) for id, (total, caller, weight) in enumerate(rows)]
    work = work_before(batches)
    run = Run(pool_of((Limit(1 << 20, SECOND),)))
    for batch in batches:
        run.scheduler.add(batch)
    run.until()
    assert work == {id: pytest.approx(made, rel=0.05, abs=len(rows)) for id, made in run.made_before.items()}


def test_the_last_batch_waits_for_all_the_work() -> None:
    """Nothing is counted twice, and a batch with nothing left isn't named."""
    done = batch_of(0, id=9)
    work = work_before([batch_of(10), batch_of(70, id=2, caller="b", weight=2.0), done])
    assert max(work.values()) == 80
    assert set(work) == {1, 2}
