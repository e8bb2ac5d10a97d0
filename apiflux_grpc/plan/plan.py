"""The plan: the run's figures, what held it back, and what one more key would bring.

Rule: figures only; how they are shown is in figures.py, show.py and page.py.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from apiflux_grpc import charts
from apiflux_grpc.core.classes import classes_of
from apiflux_grpc.core.model import Kind
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.report import LimitReport
from apiflux_grpc.plan.binding import LimitPlan, limit_plans, worst_window
from apiflux_grpc.plan.bounds import meeting, only
from apiflux_grpc.plan.capacity import Capacity
from apiflux_grpc.plan.held import held_back
from apiflux_grpc.plan.simulation import simulate

if TYPE_CHECKING:
    from collections.abc import Callable

    from apiflux_grpc.plan.question import Question
    from apiflux_grpc.plan.record import Run


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """One key's part. `calls` are its attempts, `use` their share of its steady capacity, None without limits;
    `binding` "": nothing."""

    label: str
    calls: int
    use: float | None
    limits: tuple[LimitReport, ...]
    binding: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer. Times are ns; rates are calls a second.

    `capacity` is what the keys that work allow in the long run, None if one of them has no limit; `use` can pass 1,
    since windows start empty. `held` has the shares of the makespan, over all keys, by what held calls back,
    the largest first. `limits` are those of keys and groups, each told once, the one that held back most first. `more`
    is the same work with one more key like the last.
    """

    question: Question
    run: Run
    more: Run
    keys: tuple[KeyPlan, ...]
    capacity: float | None
    held: tuple[tuple[str, float], ...]
    limits: tuple[LimitPlan, ...]

    @property
    def calls(self) -> int:
        return sum(arrival.size for arrival in self.question.arrivals)

    @property
    def costs(self) -> tuple[int, int, int]:
        """(the least cost of a call, the most, that of all calls together)"""
        rows = [row for each in self.question.arrivals for row in each.load.mix(each.size)]
        costs = [cost for _, cost, _ in rows]
        return min(costs), max(costs), sum(cost * count for _, cost, count in rows)

    @property
    def makespan(self) -> int:
        return self.run.ended

    @property
    def attempts(self) -> int:
        return sum(key.calls for key in self.keys)

    @property
    def failed(self) -> dict[str, int]:
        """How many calls ended without success, by reason."""
        return dict(sorted((reason.value, count) for reason, count in self.run.failed.items()))

    @property
    def rate(self) -> float | None:
        """Attempts a second; None if everything happened at once."""
        return self.attempts * SECOND / self.makespan if self.makespan else None

    @property
    def use(self) -> float | None:
        """The rate as a share of the capacity; None if there is no such figure, or no key that works."""
        return self.rate / self.capacity if self.capacity and self.rate is not None else None

    @property
    def binding(self) -> str:
        """What holds back most of the time; "": nothing ever does."""
        return self.held[0][0] if self.held else ""

    def first(self, part: float) -> int:
        """After how long that part of the batches has its first result."""
        return charts.quantile((batch.first - batch.at for batch in self.run.batches), part)

    def last(self, part: float) -> int:
        """After how long that part of the batches has its last result."""
        return charts.quantile((batch.last - batch.at for batch in self.run.batches), part)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; seconds, calls a second and shares."""
        question = self.question
        return {
            "pool": question.pool.name,
            "calls": self.calls,
            "cost": self.costs[2],
            "batches": len(question.arrivals),
            "latency_seconds": [length / SECOND for length in question.draws.latency],
            "arrival_jitter_seconds": question.pool.arrival_jitter / SECOND,
            "attempts": self.attempts,
            "failed": self.failed,
            "limit_cuts": self.run.cuts,
            "fail_share": question.draws.fail,
            "limited_share": question.draws.limited,
            "rejected_keys": sorted(question.draws.rejected),
            "seed": question.draws.seed,
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
            "limits": [limit.to_json() for limit in self.limits],
            "one_more_key": {
                "makespan_seconds": self.more.ended / SECOND,
                "saved_seconds": (self.makespan - self.more.ended) / SECOND,
            },
            "notes": list(question.notes),
        }


def make_plan(question: Question, tell: Callable[[float], object] = lambda share: None) -> Plan:
    """Run it, run it with one more key like the last (in no group), and tell what came of it.

    `tell` is told, now and then, which share of the work is done. Raises ValueError as simulate does.
    """
    pool = question.pool
    work = 2 * sum(arrival.size for arrival in question.arrivals)
    run = simulate(question, tell=lambda done: tell(done / work))
    last = pool.keys[-1]
    longer = replace(pool, keys=(*pool.keys, replace(last, label=f"{last.label}+1")))
    more = simulate(replace(question, pool=longer), tell=lambda done: tell(0.5 + done / work))
    held_of = held_back(pool, run)
    held: Counter[str] = Counter()
    capacity = Capacity(question)
    classes = classes_of(pool)
    keys = []
    for key, sends, here in zip(pool.keys, run.sends, held_of, strict=True):
        lengths = Counter({name: total.length for name, total in here.whole.items()})
        held += lengths
        windows = [limit for limit in key.limits if limit.kind is Kind.WINDOW]
        limits = tuple(
            LimitReport(each.max, each.per, worst_window(each, only(sends, meeting(each, classes)))) for each in windows
        )
        rate = capacity.of(key.limits)
        use = len(sends) * SECOND / run.ended / rate if rate and run.ended else None
        binding = lengths.most_common(1)[0][0] if lengths else ""
        keys.append(KeyPlan(key.label, len(sends), use, limits, binding))
    whole = max(run.ended, 1) * len(keys)
    return Plan(
        question=question,
        run=run,
        more=more,
        keys=tuple(keys),
        capacity=capacity.of_all(),
        held=tuple((name, length / whole) for name, length in held.most_common()),
        limits=limit_plans(pool, run, held_of),
    )
