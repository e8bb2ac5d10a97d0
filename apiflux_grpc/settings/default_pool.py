"""The pool `default` that the environment makes: API_KEYS, RATE_LIMIT, UPSTREAM_URL.

Rule: a server starts without any file, with example keys on the simulator. A file that names a pool has no simulator
beside it: a call whose pool was forgotten must not get a made-up success.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.settings.pools import default_connections, warn_of_plain_http
from apiflux_grpc.settings.types import PoolSettings
from apiflux_grpc.settings.values import secret_fault

if TYPE_CHECKING:
    from apiflux_grpc.settings.sources import Sources


def default_pool(sources: Sources, latency: tuple[int, int]) -> list[PoolSettings]:
    """That pool, or none."""
    env, findings = sources.env, sources.findings
    url = env.UPSTREAM_URL
    if sources.file.pools and (url is None or "default" in sources.file.pools):
        if named := sorted(sources.set_names & {"API_KEYS", "RATE_LIMIT", "UPSTREAM_URL"}):
            findings.warnings.append(f"{', '.join(named)}: not used, because {sources.file_name} has pools of its own")
        return []
    if url is not None:
        warn_of_plain_http(findings, ("", "UPSTREAM_URL"), url)
        if "API_KEYS" not in sources.set_names:
            findings.warnings.append("API_KEYS: not set, so the example keys are sent to UPSTREAM_URL")
    pool = Pool(
        name="default",
        keys=_keys(sources),
        max_connections=default_connections(),
        allow_repeat=url is None,
        upstream="simulated" if url is None else "http",
        base_url=url or "",
    )
    return [PoolSettings(pool, pool.base_url, latency=latency)]


def _keys(sources: Sources) -> tuple[Key, ...]:
    secrets = [secret.strip() for secret in sources.env.API_KEYS.get_secret_value().split(",")]
    labels = [f"key-{number}" for number in range(1, len(secrets) + 1)]
    wrong: list[str] = []
    for number, secret in enumerate(secrets, 1):
        first = secrets.index(secret) + 1
        if fault := secret_fault(secret):
            wrong.append(f"entry {number} {fault}")
        elif first < number:
            wrong.append(f"entry {number} is the same as entry {first}; remove one, or its limit would count twice")
        elif secret in labels:
            wrong.append(f"entry {number} reads like a label (key-1, key-2, ...), and labels are shown")
    if wrong:
        sources.findings.fault(sources.env_place("API_KEYS"), "; ".join(wrong))
    limits = (Limit(sources.env.RATE_LIMIT, 60 * SECOND),)  # RATE_LIMIT is per minute
    return tuple(Key(label, secret, limits) for label, secret in zip(labels, secrets, strict=True))
