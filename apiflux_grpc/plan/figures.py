"""A plan's figures as texts, for the terminal and the page alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.units import SECOND, counted, format_duration, spoken

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apiflux_grpc.plan.held import Span
    from apiflux_grpc.plan.plan import KeyPlan, Plan


KEY_HEAD: Final = ("key", "calls", "worst window", "use", "held back by")
LIMIT_HEAD: Final = ("limit", "keys", "fullest window", "binds", "from - to")
SPANS_SHOWN: Final = 3


def title_of(plan: Plan) -> str:
    """What was asked."""
    batches = len(plan.question.arrivals)
    what = f"{plan.calls:,} calls in {counted(batches, 'batch', 'batches')} over {counted(len(plan.keys), 'key')}"
    least, most = map(format_duration, plan.question.draws.latency)
    return f"{what}, latency {least if least == most else f'{least} to {most}'}"


def figures(plan: Plan) -> list[tuple[str, str]]:
    """The figures of the whole, as texts."""
    saved = plan.makespan - plan.more.ended
    change = f"{spoken(abs(saved))} {'less' if saved > 0 else 'more'}" if saved else "the same"
    rows = [("pool", plan.question.pool.name), ("makespan", spoken(plan.makespan)), *_costs(plan), *_outcomes(plan)]
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


def _costs(plan: Plan) -> list[tuple[str, str]]:
    """Only if not every call costs 1."""
    least, most, whole = plan.costs
    if least == most == 1:
        return []
    each = f"{least:,} a call" if least == most else f"{least:,} to {most:,} a call"
    return [("cost", f"{whole:,}, {each}")]


def _outcomes(plan: Plan) -> list[tuple[str, str]]:
    """Only if not every call succeeded with its first attempt."""
    failed = plan.failed
    if plan.attempts == plan.calls and not failed:
        return []
    lost = sum(failed.values())
    why = ", ".join(f"{count:,} {reason}" for reason, count in failed.items())
    return [
        ("attempts", f"{plan.attempts:,}"),
        ("succeeded", f"{plan.calls - lost:,} of {plan.calls:,} calls"),
        *([("failed", why)] if failed else []),
        *([("limits made smaller", f"{counted(plan.run.cuts, 'time')}, after 429s")] if plan.run.cuts else []),
    ]


def key_rows(keys: Iterable[KeyPlan]) -> Iterable[tuple[str, str, str, str, str]]:
    """A row of texts for each key, under KEY_HEAD."""
    for key in keys:
        worst = "\n".join(f"{each.most:,} of {each.max:,} per {format_duration(each.per_ns)}" for each in key.limits)
        use = "-" if key.use is None else f"{key.use:.1%}"
        yield key.label, f"{key.calls:,}", worst or "-", use, key.binding or "nothing"


def limit_rows(plan: Plan) -> Iterable[tuple[str, str, str, str, str]]:
    """A row of texts for each limit, under LIMIT_HEAD."""
    for limit in plan.limits:
        fullest = "-" if limit.most is None else f"{limit.most:,} of {limit.limit.max:,}"
        binds = f"{limit.share:.1%}" if limit.spans else "never"
        yield limit.name, f"{limit.keys:,}", fullest, binds, _when(limit.spans) or "-"


def _when(spans: Sequence[Span]) -> str:
    """`0 s - 58 min`, one span on each line; of many the first ones, and when the last ends."""
    lines = [f"{_instant(since)} - {_instant(until)}" for since, until in spans[:SPANS_SHOWN]]
    if len(spans) > SPANS_SHOWN:
        lines.append(f"and {len(spans) - SPANS_SHOWN:,} times until {_instant(spans[-1][1])}")
    return "\n".join(lines)


def _instant(at: int) -> str:
    return spoken(at) if at else "0 s"


def per_second(plan: Plan, bins: int) -> list[float]:
    """Calls a second that went out, in so many equal parts of the makespan."""
    span = max(plan.makespan, 1)
    counts = [0] * bins
    for sends in plan.run.sends:
        for at in sends.taken:
            counts[min(at * bins // span, bins - 1)] += 1
    return [count * bins * SECOND / span for count in counts]
