"""What comes out: plain, frozen types, and the error that has every fault.

Rule: whoever only uses settings needs this module alone, so it imports nothing that is slow. Each default is written
once, with its field, here or in the type that owns it (Pool, Bounds, Defaults); the tables of the TOML file refer to
it. Lengths of time are integer nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.model import BODY_CAP, IDLE_TIMEOUT
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.admission import Bounds
from apiflux_grpc.server.defaults import HOST, MOST_CONNECTIONS, PORT, Defaults, Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from apiflux_grpc.core.callers import Caller
    from apiflux_grpc.core.claims import Rules
    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.core.redis_url import RedisUrl
    from apiflux_grpc.server.tls_files import TlsFiles

MOST_WORKERS: Final = 256

_BOUNDS: Final = Bounds()
_DEFAULTS: Final = Defaults()


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """A pool, and what only its adapter needs.

    `base_url` "": the simulator, which answers after `latency` (least, most; ns), badly in `error_rate` (0 to 1) of
    its calls; else an upstream over HTTP. A body longer than `body_cap` bytes is truncated; `idle_timeout` is ns. The
    last `preset_rules` of the pool's rules are those of `preset`. `secret_files` are by label, of keys whose secret
    is in a file, which may change.
    """

    pool: Pool
    base_url: str = ""
    body_cap: int = BODY_CAP
    idle_timeout: int = IDLE_TIMEOUT
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    egress_proxy: str | None = field(default=None, repr=False)  # may hold a password
    mask_secrets: bool = True
    latency: tuple[int, int] = (0, 0)
    error_rate: float = 0.0
    preset: str = ""
    preset_rules: int = 0
    secret_files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Where budgets are kept, and what is taken for true of the time before.

    In `redis`, or in `directory`; both None: nowhere, in memory. `asked_at`: the place where it was named; "": nobody
    did, so pools that aren't the simulator's keep their budgets there if that can be done. `trust`: nothing was spent
    of what isn't known. `life` is that of a lease (ns), None: as follows from each budget's shortest limit.
    """

    directory: Path | None = None
    asked_at: str = ""
    trust: bool = True
    life: int | None = None
    redis: RedisUrl | None = None
    is_temporary: bool = False  # the directory ends with the server


@dataclass(frozen=True, slots=True)
class OpsSettings:
    """Where the operations port listens; `host` has no brackets. `hosts` are further names of this server."""

    host: str
    port: int
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class JwtSettings:
    """An issuer of tokens, whose keys are in a file or, if there is none, at a URL."""

    rules: Rules
    keys_file: Path | None = None
    keys_url: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server and the stress test need to know.

    `host` has no brackets; `tls` None: in plaintext. `workers` is how many processes there are; 1: no supervisor.
    `grace` and `request_timeout` are ns; the latter and `concurrent_requests` are for the stress test. `repeat_count`
    is that of the mode; `batch_size` is results per message. `warnings` are for people.
    """

    pools: tuple[PoolSettings, ...]
    host: str = HOST
    port: int = PORT
    tls: TlsFiles | None = None
    workers: int = 1
    mode: Mode = _DEFAULTS.mode
    repeat_count: int = _DEFAULTS.repeat_count
    batch_size: int = _DEFAULTS.batch_size
    concurrent_requests: int = 100
    request_timeout: int = 60 * SECOND
    max_batches: int = _BOUNDS.batches
    max_queued_calls: int = _BOUNDS.calls
    max_queued_bytes: int = _BOUNDS.size
    max_batch_calls: int = _DEFAULTS.max_batch_calls
    max_batch_bytes: int = _DEFAULTS.max_batch_bytes
    max_connections: int = MOST_CONNECTIONS
    compressed_requests: bool = False
    grace: int = 15 * SECOND
    reflection: bool = True
    callers: tuple[Caller, ...] = ()
    jwt: JwtSettings | None = None
    open_health: bool = True
    state: StateSettings = StateSettings()
    ops: OpsSettings | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, and where: `FILE: pools.default.timeout`, `RATE_LIMIT`, `.env: RATE_LIMIT`, `--bind`."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class SettingsError(Exception):
    """The settings can't be used; `faults` has every reason. As text: one fault a line."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))
