"""What is to be planned: a pool, batches that arrive, and how long answers take.

Rule: what can't be planned is refused here, before anything runs, and the error names the option.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.model import MAX_CONNECTIONS, Counts, Key, Limit, Pool, default_of
from apiflux_grpc.core.units import LONGEST, format_duration
from apiflux_grpc.judge.limits import parse_limit as parse_any_limit
from apiflux_grpc.judge.options import parse_latency
from apiflux_grpc.plan.draws import Draws
from apiflux_grpc.plan.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from apiflux_grpc.plan.load import Load
    from apiflux_grpc.plan.work import Arrival
    from apiflux_grpc.settings import PoolSettings


MOST_KEYS: Final = 10_000
SHOWN: Final = 10  # labels in an error
LATENCY: Final = "200ms"  # of an upstream of which nothing is known


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be planned. `draws` is the upstream; `notes` are for people.

    Raises ValueError, which says why, for what can't be planned.
    """

    pool: Pool
    arrivals: tuple[Arrival, ...]
    draws: Draws = field(default_factory=Draws)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.arrivals or min(arrival.size for arrival in self.arrivals) < 1:
            raise ValueError("a plan needs at least one batch of at least one call")
        if self.draws.latency[1] > self.pool.timeout:
            raise ValueError(
                f"a latency of {format_duration(self.draws.latency[1])} is above the pool's timeout of "
                f"{format_duration(self.pool.timeout)}, so such calls fail; raise the timeout or lower --latency"
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
    cost: int | None = None,
    calls_from: Callable[[Pool], Load] | None = None,
    fail: float | None = None,
    limited: float | None = None,
    reject: Sequence[str] = (),
    seed: int = 0,
) -> Question:
    """The question that the options of the command line make. `pools` are those of --config; None: it wasn't given.
    `calls_from` reads the calls of a file for the pool that is planned.

    Raises ValueError, which names the option, and what `calls_from` raises.
    """
    work = Work(calls, batches, batch, cost, calls_from)
    if pools is None:
        if pool is not None:
            raise ValueError("--pool needs --config FILE")
        asked = _pool_of(
            limits,
            1 if keys is None else keys,
            max_in_flight,
            MAX_CONNECTIONS if max_connections is None else max_connections,
        )
        upstream = _draws(asked, parse_latency(latency or LATENCY), fail or 0.0, limited or 0.0, reject, seed)
        return _question(asked, work, upstream)
    described = {"--keys": keys, "--max-in-flight": max_in_flight, "--max-connections": max_connections}
    for name, value in {"--limit": limits or None, **described}.items():
        if value is not None:
            raise ValueError(f"{name} conflicts with --config, which has the keys and their limits; set one of them")
    settings = _chosen(pools, pool)
    if len(settings.pool.keys) > MOST_KEYS:
        raise ValueError(
            f"pool {settings.pool.name} has {len(settings.pool.keys)} keys; a plan takes at most {MOST_KEYS}"
        )
    if latency is not None:
        range_ns = parse_latency(latency)
    else:
        range_ns = parse_latency(LATENCY) if settings.base_url else settings.latency
    failing = settings.error_rate if fail is None else fail
    upstream = _draws(settings.pool, range_ns, failing, limited or 0.0, reject, seed)
    return _question(settings.pool, work, upstream)


def _question(pool: Pool, work: Work, upstream: Draws) -> Question:
    planned = _without_paths(pool) if work.is_alike else pool
    return Question(planned, work.arrivals(planned), upstream, tuple(_notes(pool, work)))


def _draws(
    pool: Pool, latency: tuple[int, int], fail: float, limited: float, reject: Sequence[str], seed: int
) -> Draws:
    for name, share in (("--fail", fail), ("--limited", limited)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be a share from 0 to 1, such as 0.05")
    if fail + limited > 1:
        raise ValueError("--fail and --limited must be at most 1 together")
    labels = [key.label for key in pool.keys]
    for label in reject:
        if label not in labels:
            raise ValueError(f"--reject: no key {label!r}; use one of {', '.join(labels[:SHOWN])}")
    low, high = pool.success[0]
    return Draws(latency, fail, limited, frozenset(reject), seed, 200 if low <= 200 <= high else low)


def parse_limit(text: str) -> Limit:
    """`1000/60s`, `200000/60s:cost`: a window limit. Raises ValueError for any other form."""
    limit = parse_any_limit(text)
    if limit.kind != "sliding":
        raise ValueError(f"{text!r}: a plan takes sliding windows; write MAX/DURATION, or MAX/DURATION:cost")
    return Limit(limit.max, limit.per_ns, Counts(limit.counts))


def _pool_of(limits: Sequence[str], keys: int, max_in_flight: int | None, max_connections: int) -> Pool:
    if not limits:
        raise ValueError("set --limit MAX/DURATION, such as 1000/60s, or --config FILE")
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
    chosen = name or default_of(by_name)
    if chosen not in by_name:
        what = f"no pool {name!r} in --config" if name else "--config has several pools, and none was named"
        raise ValueError(f"--pool: {what}; use one of {', '.join(sorted(by_name))}")
    return by_name[chosen]


def _without_paths(pool: Pool) -> Pool:
    """The pool with the limits alone that every call meets: the calls of a plan have no path."""
    keys = tuple(replace(key, limits=_for_all(key.limits)) for key in pool.keys)
    return replace(
        pool, keys=keys, groups=tuple(replace(group, limits=_for_all(group.limits)) for group in pool.groups)
    )


def _for_all(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    return tuple(limit for limit in limits if not limit.paths)


def _notes(pool: Pool, work: Work) -> Iterable[str]:
    limits = [limit for key in pool.keys for limit in key.limits]
    limits += [limit for group in pool.groups for limit in group.limits]
    counts_cost = any(limit.counts is Counts.COST for limit in limits)
    if counts_cost and work.is_alike and work.cost is None:
        yield "every call of a plan costs 1; --cost and --calls-from say otherwise"
    if not counts_cost and work.cost is not None:
        yield "no limit counts cost, so --cost changes nothing"
    if counts_cost and pool.cost_from is not None:
        yield f"answers tell what calls really cost ({pool.cost_from}); a plan takes what they are expected to cost"
    if any(limit.paths for limit in limits) and work.is_alike:
        yield "limits with paths are left out: the calls of a plan have none, but for those of --calls-from"
