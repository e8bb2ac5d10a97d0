"""A pool of the TOML file: what needs several of its fields, and the pool that comes out.

Rule: everything is judged, whatever is wrong before it, so that all faults of a pool are reported at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from apiflux_grpc.core.call import decoded
from apiflux_grpc.core.model import (
    MAX_CONNECTIONS,
    RETRY_REASONS,
    X_API_KEY,
    Counts,
    HeaderKey,
    Kind,
    Limit,
    Pool,
    QueryKey,
    RetryPolicy,
)
from apiflux_grpc.core.outcome import Reason
from apiflux_grpc.core.rules import CallRule, CostOfCall
from apiflux_grpc.core.units import MILLISECOND, format_duration, is_loopback
from apiflux_grpc.settings.answers import field_of, rules_of
from apiflux_grpc.settings.descriptors import for_upstream
from apiflux_grpc.settings.keys import groups_of, keys_of, secret_files_of
from apiflux_grpc.settings.limits import check_classes
from apiflux_grpc.settings.tables import SimulatorTable
from apiflux_grpc.settings.tls import tls_files
from apiflux_grpc.settings.types import PoolSettings
from apiflux_grpc.settings.values import NAME_RULE, is_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.core.fields import Field
    from apiflux_grpc.settings.findings import Findings, Place
    from apiflux_grpc.settings.sources import Sources
    from apiflux_grpc.settings.tables import KeyInTable, PoolTable, RetryTable

LEAST_JITTER: Final = 2 * MILLISECOND  # if a limit is a bucket


def pool_settings(sources: Sources, name: str, table: PoolTable, latency: tuple[int, int]) -> PoolSettings:
    """A pool of the file; `latency` is the simulator's unless the pool says another."""
    findings, here = sources.findings, sources.toml_place("pools", name)
    if not is_name(name):
        findings.fault(here, f"the name of a pool {NAME_RULE}")
    keys = keys_of(sources, here, table)
    groups = groups_of(findings, here, table)
    each = [key.limits for key in keys] + [group.limits for group in groups]
    limits = [limit for one in each for limit in one]
    _check_jitter(findings, here, table, limits)
    check_classes(findings, here, table, limits)
    simulated = table.base_url is None
    preset_rules = sources.preset_rules.get(name, 0)
    pool = Pool(
        name=name,
        keys=keys,
        arrival_jitter=table.arrival_jitter,
        timeout=table.timeout,
        retry=_retry(findings, here, table.retry),
        patience=table.patience,
        longest_wait=table.longest_wait,
        answers=rules_of(findings, here, table.answers, preset_rules),
        idempotent=_idempotent(findings, here, table),
        cost=_cost(findings, here, table, limits),
        cost_from=_cost_from(findings, here, table, limits),
        is_unmasked=not table.mask_secrets,
        max_connections=_connections(findings, here, table.max_connections),
        allow_repeat=table.allow_repeat or simulated,
        success=_success(findings, here, table),
        allow_paths=_allow_paths(findings, here, table),
        key_in=X_API_KEY if table.key_in is None else _key_in(findings, here, table.key_in),
        upstream="simulated" if simulated else "http",
        base_url=table.base_url or "",
        groups=groups,
    )
    _warn_of_doubled_paths(findings, here, pool)
    _warn_of_doubled_prefix(findings, here, pool)
    simulator = _simulator(findings, here, table)
    files = tls_files(sources, here, table)
    return PoolSettings(
        pool=pool,
        base_url=pool.base_url,
        body_cap=table.body_cap,
        idle_timeout=table.idle_timeout,
        ca_file=files.ca_file,
        cert_file=files.cert_file,
        key_file=files.key_file,
        egress_proxy=None if table.egress_proxy is None else table.egress_proxy.get_secret_value(),
        mask_secrets=table.mask_secrets,
        latency=simulator.latency or latency,
        error_rate=simulator.error_rate,
        preset=table.preset or "",
        preset_rules=preset_rules,
        secret_files=secret_files_of(sources, table),
    )


def default_connections() -> int:
    """The most calls of a pool at once that says nothing of it."""
    return min(MAX_CONNECTIONS, for_upstream())


def warn_of_plain_http(findings: Findings, place: Place, base_url: str) -> None:
    """Keys that leave the machine should be encrypted."""
    parts = urlsplit(base_url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        findings.warn(place, "is not https, so keys are sent unencrypted")


def _connections(findings: Findings, here: Place, asked: int | None) -> int:
    most = for_upstream()
    if asked is not None and asked > most:
        text = f"must be at most {most}, 80 % of the files that this process may open; raise `ulimit -n` for more"
        findings.fault((*here, "max_connections"), text)
    return default_connections() if asked is None else asked


def _key_in(findings: Findings, here: Place, table: KeyInTable) -> HeaderKey | QueryKey:
    place, names = (*here, "key_in"), ("header", "query")
    findings.exclusive(place, [name for name in names if getattr(table, name) is not None], names)
    if table.prefix is not None and table.header is None:
        findings.fault((*place, "prefix"), "needs `header`; remove it or set `header`", (*place, "header"))
    if table.prefix is not None and table.prefix.isalpha():
        text = f'has no space at its end, so the key follows it at once; most APIs want "{table.prefix} "'
        findings.warn((*place, "prefix"), text)
    return HeaderKey(table.header or "", table.prefix or "") if table.query is None else QueryKey(table.query)


def _check_jitter(findings: Findings, here: Place, table: PoolTable, limits: Iterable[Limit]) -> None:
    """A call of a bucket that isn't written within half the jitter isn't sent, so that must be possible."""
    if table.base_url is None or table.arrival_jitter >= LEAST_JITTER:
        return
    if any(limit.kind is Kind.BUCKET for limit in limits):
        least = format_duration(LEAST_JITTER)
        text = f"must be at least {least} if a limit is a bucket: a call must be written within half of it"
        findings.fault((*here, "arrival_jitter"), text)


def _cost(findings: Findings, here: Place, table: PoolTable, limits: Iterable[Limit]) -> CostOfCall | None:
    place, cost = (*here, "cost"), table.cost
    if cost is None:
        return None
    per_byte = (*place, "per_byte")
    if cost.json_path is None and not cost.per_byte:
        text = "is missing; set `json` or `per_byte`, or every call would cost the same"
        findings.fault((*place, "json"), text, per_byte, (*place, "per_byte_of"))
    elif cost.per_byte_of is not None and not cost.per_byte:
        findings.fault((*place, "per_byte_of"), "has no effect without `per_byte`; set it, or remove this", per_byte)
    _warn_without_cost(findings, place, table, limits)
    paths = [None if path is None else tuple(path.split(".")) for path in (cost.json_path, cost.per_byte_of)]
    return CostOfCall(paths[0], cost.per_byte, paths[1], cost.at_least)


def _cost_from(findings: Findings, here: Place, table: PoolTable, limits: Iterable[Limit]) -> Field | None:
    if table.cost_from is None:
        return None
    _warn_without_cost(findings, (*here, "cost_from"), table, limits)
    return field_of(findings, (*here, "cost_from"), table.cost_from)


def _warn_without_cost(findings: Findings, place: Place, table: PoolTable, limits: Iterable[Limit]) -> None:
    """A preset says where costs are, and can't know which limits a pool has."""
    if table.preset is None and all(limit.counts is Counts.CALLS for limit in limits):
        findings.warn(place, "only counts for `apiflux process --max-cost`, because no limit of this pool counts cost")


def _idempotent(findings: Findings, here: Place, table: PoolTable) -> tuple[CallRule, ...]:
    rules = []
    for index, one in enumerate(table.idempotent):
        if one is None:
            continue
        for name, given in (("methods", one.methods), ("paths", one.paths)):
            if given is not None and not given:
                findings.fault((*here, "idempotent", index, name), f"is empty; leave it out for all {name}")
        methods = tuple(method for method in one.methods or () if method is not None)
        paths = tuple(decoded(path) for path in one.paths or () if path is not None)  # compared decoded
        rules.append(CallRule(methods, paths))
    return tuple(rules)


def _warn_of_doubled_paths(findings: Findings, here: Place, pool: Pool) -> None:
    """Rules see what follows the base URL: one whose paths repeat its end matches nothing."""
    end = urlsplit(pool.base_url).path.rstrip("/").rpartition("/")[2]
    if not end:
        return
    limits = [limit for key in pool.keys for limit in key.limits]
    limits += [limit for group in pool.groups for limit in group.limits]
    ruled = {
        "idempotent": [path for rule in pool.idempotent for path in rule.paths],
        "limits": [path for limit in limits for path in limit.paths],
        "allow_paths": pool.allow_paths,
    }
    names = [name for name, paths in ruled.items() if any(f"{path}/".startswith(f"/{end}/") for path in paths)]
    if names:
        text = f"ends in /{end}, and paths in {', '.join(names)} begin so: leave it out here, or there"
        findings.warn((*here, "base_url"), text)


def _warn_of_doubled_prefix(findings: Findings, here: Place, pool: Pool) -> None:
    """A secret that was copied out of a header has the word before it too."""
    prefix = pool.key_in.prefix if isinstance(pool.key_in, HeaderKey) else ""
    for index, key in enumerate(pool.keys):
        if prefix and key.secret.lower().startswith(prefix.lower()):
            text = f"has a secret that begins with {prefix!r}, which `key_in` puts before it; remove it there"
            findings.warn((*here, "keys", index), text)


def _retry(findings: Findings, here: Place, table: RetryTable) -> RetryPolicy:
    places = [(*here, "retry", name) for name in ("initial_backoff", "max_backoff")]
    if table.initial_backoff > table.max_backoff:
        given = places["initial_backoff" not in table.model_fields_set]
        first, last = format_duration(table.initial_backoff), format_duration(table.max_backoff)
        findings.fault(given, f"initial_backoff ({first}) must be at most max_backoff ({last})", *places)
    return RetryPolicy(
        max_attempts=table.max_attempts,
        initial_backoff=table.initial_backoff,
        max_backoff=table.max_backoff,
        reasons=RETRY_REASONS if table.on_429 else RETRY_REASONS - {Reason.LIMITED},
    )


def _success(findings: Findings, here: Place, table: PoolTable) -> tuple[tuple[int, int], ...]:
    if not table.success:
        findings.fault((*here, "success"), 'is empty, so no call could succeed; leave it out for "2xx"')
    return tuple(one for one in table.success if one is not None)


def _allow_paths(findings: Findings, here: Place, table: PoolTable) -> tuple[str, ...]:
    if table.allow_paths is not None and not table.allow_paths:
        findings.fault((*here, "allow_paths"), "is empty, so no path could be used; leave it out to allow all")
    return tuple(one for one in table.allow_paths or () if one is not None)


def _simulator(findings: Findings, here: Place, table: PoolTable) -> SimulatorTable:
    if table.base_url is not None:
        warn_of_plain_http(findings, (*here, "base_url"), table.base_url)
        if table.simulator is not None:
            other = "`base_url`" if table.preset is None else "`preset`, which has a base_url"
            findings.fault((*here, "simulator"), f"conflicts with {other}; set one of them")
    return table.simulator or SimulatorTable.model_construct()
