"""`apiflux plan`: how long batches take with these keys, limits and latency, and what holds them back.

Rule: the service's own Scheduler decides, with its windows, pacers and fair queue; only time is virtual. This module
is its pump: a heap of answers, the batches by their arrival, and the scheduler's wake-ups in whole milliseconds, as
the service's timers are.

Modelled: a call goes out with its permit, arrives at once, and is answered after a latency drawn evenly from the
range; its slot is charged with the arrival margin as in the service. All batches are of one caller and equal weight,
every call costs 1, the budgets start unspent, and readers take results at once. The draws are the same each time, so
a plan is repeatable.

Not modelled: a network whose delay differs on the way out, connecting, CPU time, failures and so retries, 429s,
limits that others use up too, and slow readers.
"""

from __future__ import annotations

import json
import random
import sys
from bisect import bisect_right
from collections import Counter, deque
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from apiflux_grpc import charts as report
from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.budget import shape
from apiflux_grpc.core.model import MILLISECOND, SECOND, Counts, Key, Kind, Limit, Pool
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.judge.durations import format_ns, parse_duration
from apiflux_grpc.judge.ledger import most_in_any_window
from apiflux_grpc.judge.options import parse_latency
from apiflux_grpc.judge.options import parse_limit as parse_window
from apiflux_grpc.judge.report import LimitReport
from apiflux_grpc.settings import LONGEST, MOST
from apiflux_grpc.testing import FakePacer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from apiflux_grpc.core.permit import Permit
    from apiflux_grpc.settings import PoolSettings

MOST_CALLS: Final = 200_000  # of one plan: seconds of real time, however long the makespan is
MOST_KEYS: Final = 10_000
LATENCY: Final = "200ms"  # where nothing says how long the upstream takes
HORIZON: Final = 100 * LONGEST  # a plan that takes longer is refused
KEYS_SHOWN: Final = 20

# -- the question --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arrival:
    """A batch of `size` calls that arrives at `at` (ns)."""

    size: int
    at: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be planned. `latency` is (least, most) in ns; `notes` are for people.

    Raises ValueError, which says why, for what can't be planned.
    """

    pool: Pool
    arrivals: tuple[Arrival, ...]
    latency: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        calls = sum(arrival.size for arrival in self.arrivals)
        if not self.arrivals or min(arrival.size for arrival in self.arrivals) < 1:
            raise ValueError("a plan needs at least one batch, and a batch at least one call")
        if calls > MOST_CALLS:
            raise ValueError(f"{calls} calls are too many for a plan, which takes at most {MOST_CALLS}: plan a part")
        if self.latency[1] > self.pool.timeout:
            raise ValueError(
                f"a latency of {format_ns(self.latency[1])} is above the pool's timeout of "
                f"{format_ns(self.pool.timeout)}: such calls fail"
            )


def ask(
    pools: Sequence[PoolSettings] | None = None,
    *,
    pool: str | None = None,
    limits: Sequence[str] = (),
    keys: int | None = None,
    max_in_flight: int | None = None,
    max_connections: int | None = None,
    latency: str | None = None,
    calls: int | None = None,
    batches: int | None = None,
    batch: Sequence[str] = (),
) -> Question:
    """The question that the options of the command line make. `pools` are those of --config; None: it wasn't given.

    Raises ValueError, which names the option.
    """
    arrivals = _arrivals(calls, batches, batch)
    if pools is None:
        if pool is not None:
            raise ValueError("--pool names a pool of --config FILE, which is missing")
        asked = _pool_of(
            limits, 1 if keys is None else keys, max_in_flight, 1000 if max_connections is None else max_connections
        )
        return Question(asked, arrivals, _latency(latency or LATENCY))
    described = {"--keys": keys, "--max-in-flight": max_in_flight, "--max-connections": max_connections}
    for name, value in {"--limit": limits or None, **described}.items():
        if value is not None:
            raise ValueError(f"{name} stands beside --config, which has the keys and their limits")
    settings = _chosen(pools, pool)
    if len(settings.pool.keys) > MOST_KEYS:
        raise ValueError(f"pool {settings.pool.name} has more than {MOST_KEYS} keys, the most that a plan takes")
    if latency is not None:
        range_ns = _latency(latency)
    else:
        range_ns = _latency(LATENCY) if settings.base_url else settings.latency
    return Question(settings.pool, arrivals, range_ns, tuple(_notes(settings)))


def _arrivals(calls: int | None, batches: int | None, batch: Sequence[str]) -> tuple[Arrival, ...]:
    if batch and (calls is not None or batches is not None):
        raise ValueError("say either --batch, or --calls and --batches")
    if batch:
        arrivals = sorted(map(parse_batch, batch), key=lambda arrival: arrival.at)
        return tuple(Arrival(arrival.size, arrival.at - arrivals[0].at) for arrival in arrivals)
    if calls is None:
        raise ValueError("--calls N is missing: how many calls a batch has (or --batch SIZE@WHEN)")
    count = 1 if batches is None else batches
    if calls < 1 or count < 1:
        raise ValueError("--calls and --batches must be at least 1")
    if calls * count > MOST_CALLS:  # before so many batches are made
        raise ValueError(f"{calls * count} calls are too many for a plan, which takes at most {MOST_CALLS}")
    return (Arrival(calls),) * count


def parse_batch(text: str) -> Arrival:
    """`2000@0s`, `10@5s` or `10`: so many calls, arriving then. Raises ValueError for any other form."""
    size, at_sign, when = text.partition("@")
    try:
        at = parse_duration(when) if at_sign and when.strip() != "0" else 0
        arrival = Arrival(int(size), at)
    except ValueError:
        arrival = Arrival(0)
    if arrival.size < 1:
        raise ValueError(f"{text!r} is no batch: expected SIZE@WHEN, like 2000@0s or 10@5s")
    if arrival.at > LONGEST:
        raise ValueError(f"{text!r} arrives after more than 366 days")
    return arrival


def parse_limit(text: str) -> Limit:
    """`1000/60s`: a window limit. Raises ValueError for any other form."""
    most, per = parse_window(text)
    if per > LONGEST or most > MOST:
        raise ValueError(f"{text!r} is no limit: at most {MOST} in at most 366 days")
    return Limit(most, per)


def _latency(text: str) -> tuple[int, int]:
    least, most = parse_latency(text)
    if most > LONGEST:
        raise ValueError(f"{text!r} is longer than 366 days")
    return least, most


def _pool_of(limits: Sequence[str], keys: int, max_in_flight: int | None, max_connections: int) -> Pool:
    if not limits:
        raise ValueError("--limit MAX/DURATION is missing, like 1000/60s (or --config FILE)")
    for name, value in (("--max-in-flight", max_in_flight), ("--max-connections", max_connections)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1")
    if not 1 <= keys <= MOST_KEYS:
        raise ValueError(f"--keys must be 1 to {MOST_KEYS}")
    parsed = tuple(map(parse_limit, limits))
    each = tuple(Key(f"key-{place}", "", parsed, max_in_flight) for place in range(1, keys + 1))
    return Pool("default", each, timeout=LONGEST, max_connections=max_connections)


def _chosen(pools: Sequence[PoolSettings], name: str | None) -> PoolSettings:
    by_name = {settings.pool.name: settings for settings in pools}
    name = name or "default"
    if name not in by_name:
        raise ValueError(f"--pool: there is no pool {name!r}; pools here: {', '.join(sorted(by_name))}")
    return by_name[name]


def _notes(settings: PoolSettings) -> Iterable[str]:
    if settings.error_rate:
        yield f"the simulator fails {settings.error_rate:.1%} of its calls; in a plan none fails"
    if any(limit.counts is Counts.COST for key in settings.pool.keys for limit in key.limits):
        yield "every call of a plan costs 1"


# -- the run -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Served:
    """One batch as it went; instants in ns."""

    size: int
    at: int
    first: int = 0
    last: int = 0
    done: int = 0


class Run:
    """What happened, in ns since the first batch.

    `taken` and `answered` have the calls of each key, in the order of their permits. `states` are (since, calls wait,
    every connection is in use). `ended` is the instant of the last result, the makespan.
    """

    def __init__(self, question: Question) -> None:
        keys = question.pool.keys
        self.taken: list[list[int]] = [[] for _ in keys]
        self.answered: list[list[int]] = [[] for _ in keys]
        self.batches = [Served(arrival.size, arrival.at) for arrival in question.arrivals]
        self.states: list[tuple[int, bool, bool]] = [(0, False, False)]
        self.ended = 0

    def __repr__(self) -> str:
        return f"<Run of {len(self.batches)} batches over {len(self.taken)} keys, ended at {self.ended / SECOND:g} s>"


def simulate(question: Question, seed: int = 0) -> Run:
    """The scheduler at work on virtual time. Raises ValueError where it would take more than a hundred years."""
    pool = question.pool
    run = Run(question)
    scheduler = Scheduler(pool, FakePacer, 0)
    draw = random.Random(seed).random
    least, spread = question.latency[0], question.latency[1] - question.latency[0]
    ending: list[tuple[int, int, Permit]] = []  # a heap of (answer, number, permit)
    coming = deque(sorted(enumerate(question.arrivals), key=lambda pair: pair[1].at))
    number = now = 0
    state = (False, False)
    while True:
        while coming and coming[0][1].at <= now:
            place, arrival = coming.popleft()
            scheduler.add(Batch(place, "plan", arrival.size, admitted_at=now))
        while ending and ending[0][0] <= now:
            permit = heappop(ending)[2]
            scheduler.settle(permit, now, now)
            _deliver(run.batches[permit.batch.id], permit.batch, scheduler, now)
        if scheduler.waiting:
            for permit in scheduler.assign(now)[0]:
                scheduler.sent(permit, now)
                answer = now + least + int(spread * draw())
                number += 1
                heappush(ending, (answer, number, permit))
                run.taken[permit.key.index].append(now)
                run.answered[permit.key.index].append(answer)
        waits = scheduler.waiting > 0
        if state != (waits, full := scheduler.in_flight >= pool.max_connections):
            state = (waits, full)
            run.states.append((now, waits, full))
        following = [ending[0][0]] if ending else []
        if coming:
            following.append(coming[0][1].at)
        if waits and (wake_at := scheduler.wake_at) is not None:
            following.append(now + max(1, -(-(wake_at - now) // MILLISECOND)) * MILLISECOND)
        if not following:
            break
        now = max(now, min(following))
        if now > HORIZON:
            raise ValueError("this plan would take more than a hundred years")
    if scheduler.waiting:
        raise ValueError("a call waits that no key can ever pay for")
    run.ended = now
    return run


def _deliver(served: Served, batch: Batch, scheduler: Scheduler, now: int) -> None:
    if not served.done:
        served.first = now
    served.last = now
    served.done += 1
    if served.done == served.size:
        scheduler.over(batch)


# -- what holds back -----------------------------------------------------------------------------


class _Waiting:
    """How long calls waited until an instant, and how long with every connection in use."""

    def __init__(self, run: Run) -> None:
        self._states = run.states
        self._since = [since for since, _, _ in run.states]
        self._sums = [(0, 0)]
        for (since, waits, full), until in zip(run.states, [*self._since[1:], run.ended], strict=True):
            waited, full_for = self._sums[-1]
            length = until - since if waits else 0
            self._sums.append((waited + length, full_for + (length if full else 0)))

    def _until(self, at: int) -> tuple[int, int]:
        place = bisect_right(self._since, at) - 1
        since, waits, full = self._states[place]
        waited, full_for = self._sums[place]
        length = at - since if waits else 0
        return waited + length, full_for + (length if full else 0)

    def between(self, start: int, end: int) -> tuple[int, int]:
        """(time that calls waited, the part of it with every connection in use) from start to end."""
        before, after = self._until(start), self._until(end)
        return after[0] - before[0], after[1] - before[1]

    @property
    def over(self) -> int:
        """When nothing waited any more."""
        return self._since[-1]

    def full_at(self, at: int) -> bool:
        """Whether calls wait for a connection."""
        _, waits, full = self._states[bisect_right(self._since, at) - 1]
        return waits and full


def limit_name(limit: Limit) -> str:
    """`1000 per 60s`, as people say it."""
    counts = "" if limit.counts is Counts.CALLS else " of cost"
    return f"{limit.max}{counts} per {format_ns(limit.per)}"


class _Bound:
    """Something of which `most` may be in use at once: taken at some instants, free again at others."""

    __slots__ = ("_frees", "_most", "_taken", "limit", "name")

    def __init__(self, name: str, most: int, taken: Sequence[int], frees: Iterable[int], limit: Limit | None) -> None:
        self.name = name
        self.limit = limit  # None: calls in flight
        self._most = most
        self._taken = taken
        self._frees = sorted(frees)

    def at(self, instant: int) -> tuple[float, int]:
        """(the share in use, when there is room again), right after this instant."""
        freed = bisect_right(self._frees, instant)
        used = bisect_right(self._taken, instant) - freed
        over = used - self._most
        return used / self._most, self._frees[freed + over] if over >= 0 else instant


def _windows(limits: Iterable[Limit], taken: Sequence[int], arrived: Sequence[int], of: str = "") -> list[_Bound]:
    return [
        _Bound(limit_name(limit) + of, limit.max, taken, (at + limit.per for at in arrived), limit)
        for limit in limits
        if limit.kind is Kind.WINDOW
    ]


def held_back(pool: Pool, run: Run) -> list[Counter[str]]:
    """For each key, how long (ns) what held it back while calls waited.

    Between two permits of a key it is the full limit that opens last: a window, its group's too, or the calls in
    flight. Where every connection is in use beyond that, it is the pool's connections; where nothing is full, a
    burst or a bucket, else the fullest window.
    """
    waiting = _Waiting(run)
    arrived = [
        [min(answer, take + pool.arrival_jitter) for take, answer in zip(*pair, strict=True)]
        for pair in zip(run.taken, run.answered, strict=True)
    ]
    shared: dict[str, tuple[tuple[Limit, ...], list[_Bound]]] = {}
    for group in pool.groups:
        members = [place for place, key in enumerate(pool.keys) if key.label in group.keys]
        taken = sorted(at for place in members for at in run.taken[place])
        bounds = _windows(group.limits, taken, [at for place in members for at in arrived[place]], " of a group")
        shared |= dict.fromkeys(group.keys, (group.limits, bounds))
    held = []
    for place, key in enumerate(pool.keys):
        limits, bounds = shared.get(key.label, ((), []))
        bounds = [*_windows(key.limits, run.taken[place], arrived[place]), *bounds]
        if key.max_in_flight is not None:
            name = f"{key.max_in_flight} in flight"
            bounds.append(_Bound(name, key.max_in_flight, run.taken[place], run.answered[place], None))
        smooth = _smoothest((*key.limits, *limits))
        held.append(_held_back(run.taken[place], bounds, smooth, f"{pool.max_connections} connections", waiting))
    return held


def _held_back(
    taken: Sequence[int], bounds: Sequence[_Bound], smooth: str | None, connections: str, waiting: _Waiting
) -> Counter[str]:
    held: Counter[str] = Counter()
    for start, end in pairwise((0, *taken, waiting.over)):
        waited, full_for = waiting.between(start, end) if end > start else (0, 0)
        if not waited:
            continue
        opens, name, fullest = start, smooth, 0.0
        for bound in bounds:
            share, until = bound.at(start)
            if until > opens:
                opens, name = until, bound.name
            elif opens == start and smooth is None and bound.limit is not None and share >= fullest:
                name, fullest = bound.name, share
        if opens > start and not waiting.full_at(opens):
            full_for = waiting.between(opens, end)[1] if end > opens else 0
        if full_for:
            held[connections] += full_for
        if name is not None and waited > full_for:
            held[name] += waited - full_for
    return held


def _smoothest(limits: Iterable[Limit]) -> str | None:
    """The slowest of the limits that let fewer calls pass at once than a window holds; None: there is none."""
    bursts = [limit for limit in limits if limit.kind is Kind.BUCKET or limit.depth < limit.max]
    if not bursts:
        return None
    slowest = min(bursts, key=lambda limit: limit.max / limit.per)
    return f"bursts of {slowest.depth} at {limit_name(slowest)}"


# -- the answer ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """One key's part. `use` is its share of its steady capacity, None without limits; `binding` "": nothing."""

    label: str
    calls: int
    use: float | None
    limits: tuple[LimitReport, ...]
    binding: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer. Times are ns; rates are calls a second.

    `capacity` is the sum over the keys of max / (per + min(latency, J)), None where a key has no limit; `use` can
    pass 1, since windows start empty. `held` has the shares of the makespan, over all keys, by what held calls back,
    the largest first. `more` is the same work with one more key like the last.
    """

    question: Question
    run: Run
    more: Run
    keys: tuple[KeyPlan, ...]
    capacity: float | None
    held: tuple[tuple[str, float], ...]

    @property
    def calls(self) -> int:
        return sum(arrival.size for arrival in self.question.arrivals)

    @property
    def makespan(self) -> int:
        return self.run.ended

    @property
    def rate(self) -> float | None:
        """Calls a second; None where everything happened at once."""
        return self.calls * SECOND / self.makespan if self.makespan else None

    @property
    def use(self) -> float | None:
        return None if self.capacity is None or self.rate is None else self.rate / self.capacity

    @property
    def binding(self) -> str:
        """What holds back most of the time; "": nothing ever does."""
        return self.held[0][0] if self.held else ""

    def first(self, part: float) -> int:
        """After how long that part of the batches has its first result."""
        return report.quantile((batch.first - batch.at for batch in self.run.batches), part)

    def last(self, part: float) -> int:
        """After how long that part of the batches has its last result."""
        return report.quantile((batch.last - batch.at for batch in self.run.batches), part)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; seconds, calls a second and shares."""
        question = self.question
        return {
            "pool": question.pool.name,
            "calls": self.calls,
            "batches": len(question.arrivals),
            "latency_seconds": [length / SECOND for length in question.latency],
            "arrival_jitter_seconds": question.pool.arrival_jitter / SECOND,
            "makespan_seconds": self.makespan / SECOND,
            "calls_per_second": self.rate,
            "capacity_per_second": self.capacity,
            "use": self.use,
            "first_result_seconds": {"p50": self.first(0.5) / SECOND, "p99": self.first(0.99) / SECOND},
            "last_result_seconds": {"p50": self.last(0.5) / SECOND, "p99": self.last(0.99) / SECOND},
            "binding": [{"name": name, "share": share} for name, share in self.held],
            "keys": [
                {
                    "label": key.label,
                    "calls": key.calls,
                    "use": key.use,
                    "limits": [
                        {"max": each.max, "per_seconds": each.per_ns / SECOND, "most": each.most, "ratio": each.ratio}
                        for each in key.limits
                    ],
                    "binding": key.binding or None,
                }
                for key in self.keys
            ],
            "one_more_key": {
                "makespan_seconds": self.more.ended / SECOND,
                "saved_seconds": (self.makespan - self.more.ended) / SECOND,
            },
            "notes": list(question.notes),
        }


def make_plan(question: Question) -> Plan:
    """Run it, run it with one more key like the last (in no group), and tell what came of it.

    Raises ValueError as simulate does.
    """
    pool = question.pool
    run = simulate(question)
    last = pool.keys[-1]
    more = replace(pool, keys=(*pool.keys, replace(last, label=f"{last.label}+1")))
    held: Counter[str] = Counter()
    keys = []
    for key, taken, here in zip(pool.keys, run.taken, held_back(pool, run), strict=True):
        held += here
        windows = [limit for limit in key.limits if limit.kind is Kind.WINDOW]
        limits = tuple(LimitReport(each.max, each.per, most_in_any_window(taken, each.per)) for each in windows)
        capacity = _capacity(key.limits, question)
        use = len(taken) * SECOND / run.ended / capacity if capacity and run.ended else None
        binding = here.most_common(1)[0][0] if here else ""
        keys.append(KeyPlan(key.label, len(taken), use, limits, binding))
    whole = max(run.ended, 1) * len(keys)
    return Plan(
        question=question,
        run=run,
        more=simulate(replace(question, pool=more)),
        keys=tuple(keys),
        capacity=_capacity_of_all(question),
        held=tuple((name, length / whole) for name, length in held.most_common()),
    )


def _charged(latency: tuple[int, int], jitter: int) -> float:
    """The mean of min(latency, jitter), the latency evenly between its ends: what a slot is held beyond its window."""
    least, most = latency
    if most <= jitter:
        return (least + most) / 2
    if least >= jitter:
        return jitter
    return ((jitter**2 - least**2) / 2 + jitter * (most - jitter)) / (most - least)


def _capacity(limits: Iterable[Limit], question: Question) -> float | None:
    """Calls a second that these limits allow in the long run; None: any number."""
    jitter = question.pool.arrival_jitter
    charged = _charged(question.latency, jitter)
    rates = []
    for limit in limits:
        if limit.kind is Kind.WINDOW:
            rates.append(limit.max * SECOND / (limit.per + charged))
        else:
            burst, seconds = shape(limit, jitter)
            rates.append(burst / seconds)
    return min(rates, default=None)


def _capacity_of_all(question: Question) -> float | None:
    """Calls a second that the limits of all keys and groups allow in the long run; None: any number."""
    pool = question.pool
    capacities = {key.label: _capacity(key.limits, question) for key in pool.keys}
    supplies: list[float | None] = []
    for group in pool.groups:
        members = _sum([capacities.pop(label) for label in group.keys])
        bounds = [rate for rate in (members, _capacity(group.limits, question)) if rate is not None]
        supplies.append(min(bounds, default=None))
    return _sum([*supplies, *capacities.values()])


def _sum(rates: Iterable[float | None]) -> float | None:
    known = [*rates]
    return None if None in known else sum(rate for rate in known if rate is not None)


# -- showing it ----------------------------------------------------------------------------------


def run_plan(question: Question, *, as_json: bool = False, html: Path | None = None) -> int:
    """Plan, and show it on standard output; also as a page. Returns the exit code: 0, or 2 if it can't be planned or
    the page can't be made."""
    errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    try:
        if html is not None:
            report.ready(html)
        plan = make_plan(question)
        if html is not None:
            report.write(html, to_html(plan))
    except (ValueError, report.CannotReport) as error:
        errors.print(str(error))
        return 2
    if as_json:
        json.dump(plan.to_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        show(plan, Console(markup=False, highlight=False))
    return 0


def show(plan: Plan, console: Console) -> None:
    """The tables and the chart, for a terminal."""
    summary = Table(title=title_of(plan))
    for name in ("figure", "value"):
        summary.add_column(name, overflow="fold")  # the other ways to cut a text aren't ASCII
    for name, value in figures(plan):
        summary.add_row(name, value)
    console.print(summary)
    keys = Table(title="Keys")
    for name in KEY_HEAD:
        keys.add_column(name, overflow="fold")
    for row in key_rows(plan.keys[:KEYS_SHOWN]):
        keys.add_row(*row)
    console.print(keys)
    if len(plan.keys) > KEYS_SHOWN:
        console.print(f"and {len(plan.keys) - KEYS_SHOWN} more keys")
    for note in plan.question.notes:
        console.print(f"note: {note}")
    console.print(text_chart(plan, min(console.width, 100), plain=console.options.ascii_only))


def title_of(plan: Plan) -> str:
    """What was asked."""
    batches = len(plan.question.arrivals)
    what = f"{plan.calls:,} calls in {_some(batches, 'batch', 'batches')} over {_some(len(plan.keys), 'key', 'keys')}"
    least, most = map(format_ns, plan.question.latency)
    return f"{what}, latency {least if least == most else f'{least} to {most}'}"


def figures(plan: Plan) -> list[tuple[str, str]]:
    """The figures of the whole, as texts."""
    saved = plan.makespan - plan.more.ended
    change = f"{spoken(abs(saved))} {'less' if saved > 0 else 'more'}" if saved else "the same"
    rows = [("pool", plan.question.pool.name), ("makespan", spoken(plan.makespan))]
    if plan.rate is not None:
        rows.append(("calls a second", f"{plan.rate:,.1f}"))
    if plan.capacity is not None:
        rows.append(("steady capacity", f"{plan.capacity:,.1f} calls a second"))
    if plan.use is not None:
        rows.append(("use of it", f"{plan.use:.1%}{', since windows start empty' if plan.use > 1 else ''}"))
    rows += [
        ("first result p50 / p99", f"{spoken(plan.first(0.5))} / {spoken(plan.first(0.99))}"),
        ("last result p50 / p99", f"{spoken(plan.last(0.5))} / {spoken(plan.last(0.99))}"),
    ]
    rows += [("held back by", f"{name}: {share:.1%} of the time") for name, share in plan.held]
    free = max(0.0, 1 - sum(share for _, share in plan.held))
    rows += [
        ("held back by nothing", f"{free:.1%} of the time"),
        ("one more key", f"{spoken(plan.more.ended)}, {change}"),
    ]
    return rows


KEY_HEAD: Final = ("key", "calls", "worst window", "use", "held back by")


def key_rows(keys: Iterable[KeyPlan]) -> Iterable[tuple[str, str, str, str, str]]:
    """A row of texts for each key, under KEY_HEAD."""
    for key in keys:
        worst = "\n".join(f"{each.most} of {each.max} per {format_ns(each.per_ns)}" for each in key.limits)
        use = "-" if key.use is None else f"{key.use:.1%}"
        yield key.label, f"{key.calls:,}", worst or "-", use, key.binding or "nothing"


def spoken(ns: int) -> str:
    """A length of time as people say it: `12.3 s`, `3 min 20 s`, `2 h 3 min`."""
    seconds = ns / SECOND
    if seconds < 1:
        return f"{ns / MILLISECOND:.{0 if ns >= 10 * MILLISECOND else 1}f} ms"
    if seconds < 120:
        return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"
    whole = round(seconds)
    big, small, size, unit = ("min", "s", 60, 1)
    if whole >= 86400:
        big, small, size, unit = ("d", "h", 86400, 3600)
    elif whole >= 3600:
        big, small, size, unit = ("h", "min", 3600, 60)
    return f"{whole // size} {big} {whole % size // unit} {small}"


def _some(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


# -- charts --------------------------------------------------------------------------------------


def per_second(plan: Plan, bins: int) -> list[float]:
    """Calls a second that went out, in so many equal parts of the makespan."""
    span = max(plan.makespan, 1)
    counts = [0] * bins
    for taken in plan.run.taken:
        for at in taken:
            counts[min(at * bins // span, bins - 1)] += 1
    return [count * bins * SECOND / span for count in counts]


def text_chart(plan: Plan, width: int, *, plain: bool) -> str:
    """Calls a second over time, and the steady capacity as a line."""
    gutter = 10
    values = per_second(plan, max(20, width - gutter - 2))
    highest = max([*values, plan.capacity or 0.0])
    rows = report.columns(values, plan.capacity, plain=plain)
    edge = "|" if plain else "│"
    marks = {0: f"{highest:,.0f}", len(rows) - 1: "0"}
    if plan.capacity is not None:
        marks.setdefault(len(rows) - 1 - min(len(rows) - 1, int(plan.capacity / highest * len(rows))), "capacity")
    lines = [f"{marks.get(place, ''):>{gutter - 1}} {edge}{row}" for place, row in enumerate(rows)]
    end = spoken(plan.makespan)
    foot = " " * (gutter + 1) + "0" + end.rjust(len(values) - 1)
    title = "Calls a second"
    if plan.capacity is not None:
        title += f"; the line is the steady capacity, {plan.capacity:,.1f}"
    return "\n".join([title, *lines, foot])


def to_html(plan: Plan) -> str:
    """One page: the figures, the keys and the charts."""
    title = f"apiflux plan: {title_of(plan)}"
    parts = [report.table((), figures(plan))]
    parts += [f"<p>Note: {escape(note)}.</p>" for note in plan.question.notes]
    parts += [report.svg(chart) for chart in charts(plan)]
    parts += ["<h2>Keys</h2>", report.table(KEY_HEAD, key_rows(plan.keys))]
    return report.page(title, parts)


def charts(plan: Plan) -> list[report.Chart]:
    """Calls a second, each key's window, the batches where there are several, and the results with one more key."""
    scale, unit = report.time_unit(plan.makespan / SECOND)
    end = plan.makespan / SECOND / scale
    bins = 120
    rates = per_second(plan, bins)
    sent = [(place * end / bins, rate) for place, rate in enumerate(rates)] + [(end, rates[-1])]
    level = [] if plan.capacity is None else [report.Line(f"steady capacity, {plan.capacity:,.1f}", plan.capacity)]
    series = [report.Series("sent", sent, step=True, area=True)]
    made = [report.Chart("Calls a second", unit, "calls a second", series, level, end)]
    windows = [
        report.Series(key.label, _window(plan, place, scale), step=True)
        for place, key in enumerate(plan.keys[: report.DISTINCT])
        if key.limits
    ]
    if windows:
        which = "each key" if len(plan.keys) <= report.DISTINCT else f"the first {report.DISTINCT} keys"
        about = f"Sent within the longest window of {which}"
        made.append(report.Chart(about, unit, "% of the limit", windows, [report.Line("limit", 100)], end))
    if len(plan.run.batches) > 1:
        made.append(_batches(plan))
    done = [
        report.Series(_some(len(plan.keys), "key", "keys"), _done(plan.run, scale)),
        report.Series("one more key", _done(plan.more, scale)),
    ]
    later = max(plan.makespan, plan.more.ended) / SECOND / scale
    made.append(report.Chart("Results", unit, "results", done, x_end=later))
    return made


def _window(plan: Plan, place: int, scale: float) -> list[tuple[float, float]]:
    """How full the key's longest window is over time, in percent."""
    limit = max(plan.keys[place].limits, key=lambda limit: limit.per_ns)
    counts = report.counted(plan.run.taken[place], plan.makespan, limit.per_ns)
    return [(at / SECOND / scale, 100 * count / limit.max) for at, count in counts]


def _batches(plan: Plan) -> report.Chart:
    """After how long the batches had their first and their last result: the steeper the last, the fairer."""
    batches = plan.run.batches
    scale, unit = report.time_unit(max(batch.last - batch.at for batch in batches) / SECOND)
    first = report.spread((batch.first - batch.at) / SECOND / scale for batch in batches)
    last = report.spread((batch.last - batch.at) / SECOND / scale for batch in batches)
    series = [report.Series("first result", first, step=True), report.Series("last result", last, step=True)]
    return report.Chart("How long the batches took", f"{unit} since it came", "% of the batches", series)


def _done(run: Run, scale: float) -> list[tuple[float, float]]:
    """Results over time."""
    ends = sorted(at for answered in run.answered for at in answered)
    return [(at / SECOND / scale, count) for at, count in report.counted(ends, run.ended)]
