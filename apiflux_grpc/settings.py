"""What a server is told: flags, then environment, then `.env`, then TOML.

Rule: frozen once loaded, and every fault is reported at once with its place. Unknown names are faults in TOML only
(the environment is full of other programs' names). A fault's text never shows a value that may be a secret.
"""

from __future__ import annotations

import difflib
import re
import resource
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from apiflux_grpc.core.model import MILLISECOND, SECOND, Counts, Key, Kind, Limit, Pool, Reason, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_UNITS: Final = {"us": 1_000, "ms": MILLISECOND, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d)").fullmatch
_LABEL: Final = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+").fullmatch
_SECRET: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?").fullmatch
_BASE_URL: Final = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?(/[^?#\s@]*)?").fullmatch
_STATUS: Final = re.compile(r"([1-5])xx|([1-5]\d\d)(?:-([1-5]\d\d))?").fullmatch
_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"})
_LATER: Final = "is not supported by this version"


def parse_duration(text: str) -> int:
    """A length of time ("250ms", "1.5s", "60s", "1h") as ns. Raises ValueError."""
    match = _DURATION(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a length of time; write it as 250ms, 1.5s, 60s, 5m or 1h")
    whole, _, part = match[1].partition(".")
    unit = _UNITS[match[2]]
    return int(whole) * unit + (int(part) * unit // 10 ** len(part) if part else 0)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class SettingsError(Exception):
    """The configuration can't be used; `faults` has everything that is wrong with it."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, faults)))


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """A pool, and what only its adapter needs. `base_url` "" is the simulator; latency is (least, most) ns."""

    pool: Pool
    base_url: str = ""
    key_header: str | None = "X-API-Key"
    key_prefix: str = ""
    key_query: str | None = None
    body_cap: int = 1 << 20
    ca_file: str | None = None
    egress_proxy: str | None = None
    mask_secrets: bool = True
    latency: tuple[int, int] = (0, 0)
    error_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a server and the stress test are told."""

    pools: tuple[PoolSettings, ...]
    host: str = "127.0.0.1"
    port: int = 50051
    mode: Literal["test", "production"] = "test"
    repeat_count: int = 50
    batch_size: int = 100
    concurrent_requests: int = 100
    request_timeout: int = 60 * SECOND
    max_batches: int = 2_000
    max_queued_calls: int = 2_000_000
    max_queued_bytes: int = 1 << 30
    max_batch_calls: int = 50_000
    max_batch_bytes: int = 32 << 20
    grace: int = 15 * SECOND
    reflection: bool = True
    warnings: tuple[str, ...] = field(default=())


# -- the TOML file, as pydantic reads it ---------------------------------------------------------------


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, strict=True)


class _Limit(_Table):
    max: int = Field(ge=1)
    per: str
    counts: Literal["calls", "cost"] = "calls"
    kind: Literal["window", "bucket"] = "window"
    burst: int | None = Field(default=None, ge=1)


class _KeyIn(_Table):
    header: str | None = None
    prefix: str = ""
    query: str | None = None


class _Key(_Table):
    label: str
    secret: SecretStr | None = None
    secret_env: str | None = None
    secret_file: str | None = None
    limits: list[_Limit] | None = None
    max_in_flight: int | None = Field(default=None, ge=1)


class _Retry(_Table):
    max_attempts: int = Field(default=3, ge=1, le=10)
    on_429: bool = True
    initial_backoff: str = "200ms"
    max_backoff: str = "10s"


class _Simulator(_Table):
    latency: list[str] = Field(default=["0ms", "0ms"], min_length=2, max_length=2)
    error_rate: float = Field(default=0.0, ge=0.0, le=1.0)


class _Pool(_Table):
    base_url: str | None = None
    key_in: _KeyIn = _KeyIn(header="X-API-Key")
    limits: list[_Limit] | None = None
    max_in_flight: int | None = Field(default=None, ge=1)
    timeout: str = "30s"
    arrival_jitter: str = "250ms"
    cost_from: dict[str, str] | None = None
    retry: _Retry = _Retry()
    max_connections: int | None = Field(default=None, ge=1)
    allow_repeat: bool = False
    success: list[str] = ["2xx"]
    allow_paths: list[str] = []
    egress_proxy: str | None = None
    ca_file: str | None = None
    mask_secrets: bool = True
    body_cap: int = Field(default=1 << 20, ge=1)
    simulator: _Simulator | None = None
    keys: list[_Key] = Field(min_length=1)
    groups: list[dict[str, Any]] | None = None


class _Server(_Table):
    bind: str = "127.0.0.1:50051"
    state_dir: str | None = None
    cold_start: Literal["trust", "wait"] = "trust"
    reflection: bool = True
    max_batches: int = Field(default=2_000, ge=1)
    max_queued_calls: int = Field(default=2_000_000, ge=1)
    max_queued_bytes: int = Field(default=1 << 30, ge=1)
    max_batch_calls: int = Field(default=50_000, ge=1)
    max_batch_bytes: int = Field(default=32 << 20, ge=1024)
    grace: str = "15s"


class _File(_Table):
    server: _Server = _Server()
    budget: dict[str, Any] | None = None
    pools: dict[str, _Pool] = {}


# -- the environment --------------------------------------------------------------------------------


class _Environment:
    """The seed's names, from the environment and `.env`."""

    def __init__(self, environ: Mapping[str, str], dotenv: Path | None, faults: list[Fault]) -> None:
        self._environ = environ
        self._file: Mapping[str, str | None] = {}
        self._faults = faults
        if dotenv is not None and dotenv.is_file():
            self._file = dotenv_values(dotenv)

    def text(self, name: str) -> tuple[str, str] | None:
        """(value, place) or None."""
        if self._environ.get(name):
            return self._environ[name], name
        value = self._file.get(name)
        return (value, f".env: {name}") if value else None

    def whole(self, name: str, default: int, least: int = 1, most: int = 1 << 53) -> int:
        found = self.text(name)
        if found is None:
            return default
        value, place = found
        if re.fullmatch(r"\d{1,16}", value.strip()) and least <= int(value) <= most:
            return int(value)
        self._faults.append(Fault(place, f"{value!r} is not a whole number from {least} to {most}"))
        return default

    def flag(self, name: str, default: bool) -> bool:
        found = self.text(name)
        if found is None:
            return default
        value, place = found
        words = {
            "true": True,
            "1": True,
            "yes": True,
            "on": True,
            "false": False,
            "0": False,
            "no": False,
            "off": False,
        }
        if value.strip().lower() in words:
            return words[value.strip().lower()]
        self._faults.append(Fault(place, f"{value!r} is neither true nor false"))
        return default


def load(
    config: Path | None,
    *,
    environ: Mapping[str, str],
    dotenv: Path | None = None,
    bind: str | None = None,
) -> Settings:
    """Read everything; `bind` is the flag. Raises SettingsError with every fault."""
    faults: list[Fault] = []
    warnings: list[str] = []
    env = _Environment(environ, dotenv, faults)
    file = _read(config, faults) if config is not None else _File()
    name = "" if config is None else str(config)
    test = env.flag("TEST_MODE", True)
    prefix = "TEST" if test else "PROD"
    repeat_count = env.whole(f"{prefix}_REQUESTS_COUNT", 50 if test else 2000, most=50_000)
    latency = _latencies(env, prefix, (10, 50) if test else (500, 3000), faults)
    pools = _pools(file, config, name, env, latency, faults, warnings)
    host, port = _bind(file.server.bind, f"{name}: server.bind", faults)
    port = env.whole("PORT", port, least=0, most=65535)
    if bind is not None:
        host, port = _bind(bind, "--bind", faults)
    _refuse_later(file, name, faults)
    settings = {
        "grace": _time(file.server.grace, f"{name}: server.grace", faults),
        "batch_size": env.whole("BATCH_SIZE", 100, most=10_000),
        "concurrent_requests": env.whole("CONCURRENT_REQUESTS", 100, most=10_000),
        "request_timeout": env.whole("REQUEST_TIMEOUT", 60_000) * MILLISECOND,
    }
    if host not in ("127.0.0.1", "::1", "localhost"):
        warnings.append(f"bound to {host}: anyone who reaches it can spend your keys; there is no TLS here")
    if faults:
        raise SettingsError(faults)
    server = file.server
    return Settings(
        pools=tuple(pools),
        host=host,
        port=port,
        mode="test" if test else "production",
        repeat_count=repeat_count,
        max_batches=server.max_batches,
        max_queued_calls=server.max_queued_calls,
        max_queued_bytes=server.max_queued_bytes,
        max_batch_calls=server.max_batch_calls,
        max_batch_bytes=server.max_batch_bytes,
        reflection=server.reflection,
        warnings=tuple(warnings),
        **settings,
    )


def _read(config: Path, faults: list[Fault]) -> _File:
    try:
        return _File.model_validate(tomllib.loads(config.read_text(encoding="utf-8")))
    except OSError as error:
        faults.append(Fault(str(config), f"can't be read: {error.strerror}"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        faults.append(Fault(str(config), f"is not TOML: {error}"))
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False, include_context=False):
            path = ""
            for part in fault["loc"]:
                path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
            message = fault["msg"]
            if fault["type"] == "extra_forbidden":
                message = _unknown(fault["loc"])
            faults.append(Fault(f"{config}: {path}", message))
    raise SettingsError(faults)


def _unknown(place: tuple[int | str, ...]) -> str:
    """An unknown name, with the known one that is meant, perhaps."""
    table: Any = _File
    for part in place[:-1]:
        if isinstance(part, int) or table is None:
            continue
        table = {"server": _Server, "pools": _Pool, "keys": _Key, "limits": _Limit, "retry": _Retry}.get(
            part, {"key_in": _KeyIn, "simulator": _Simulator}.get(part, table)
        )
    close = difflib.get_close_matches(str(place[-1]), list(table.model_fields), 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(table.model_fields)}"
    return f"unknown name; {hint}"


def _refuse_later(file: _File, name: str, faults: list[Fault]) -> None:
    """Names of the contract that a later version brings: refused, never ignored."""
    if file.budget is not None:
        faults.append(Fault(f"{name}: budget", _LATER))
    if file.server.state_dir is not None:
        faults.append(Fault(f"{name}: server.state_dir", _LATER))
    if file.server.cold_start != "trust":
        faults.append(Fault(f"{name}: server.cold_start", f'"wait" {_LATER}'))
    for label, pool in file.pools.items():
        if pool.cost_from is not None:
            faults.append(Fault(f"{name}: pools.{label}.cost_from", _LATER))
        if pool.groups is not None:
            faults.append(Fault(f"{name}: pools.{label}.groups", _LATER))


def _bind(text: str, place: str, faults: list[Fault]) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        faults.append(Fault(place, f"{text!r} is not HOST:PORT"))
        return "127.0.0.1", 0
    return host, int(port)


def _time(text: str, place: str, faults: list[Fault], least: int = 1) -> int:
    try:
        value = parse_duration(text)
    except ValueError as error:
        faults.append(Fault(place, str(error)))
        return SECOND
    if value < least:
        faults.append(Fault(place, f"{text!r} is too short"))
    return value


def _latencies(env: _Environment, prefix: str, default: tuple[int, int], faults: list[Fault]) -> tuple[int, int]:
    least = env.whole(f"{prefix}_MIN_LATENCY", default[0], least=0)
    most = env.whole(f"{prefix}_MAX_LATENCY", max(default[1], least), least=0)
    if least > most:
        faults.append(Fault(f"{prefix}_MIN_LATENCY", f"{least} ms is above {prefix}_MAX_LATENCY, {most} ms"))
    return least * MILLISECOND, most * MILLISECOND


def _pools(
    file: _File,
    config: Path | None,
    name: str,
    env: _Environment,
    latency: tuple[int, int],
    faults: list[Fault],
    warnings: list[str],
) -> list[PoolSettings]:
    pools = []
    for label, table in file.pools.items():
        maker = _PoolMaker(label, table, f"{name}: pools.{label}", config, env, faults, warnings)
        pools.append(maker.make(latency))
    if "default" not in file.pools:
        pools.insert(0, _seed_pool(env, latency, faults))
    return pools


def _seed_pool(env: _Environment, latency: tuple[int, int], faults: list[Fault]) -> PoolSettings:
    """The pool `default` by the seed's names."""
    limit = Limit(env.whole("RATE_LIMIT", 1000), 60 * SECOND)
    value, place = env.text("API_KEYS") or ("key1,key2,key3", "API_KEYS")
    secrets = [secret.strip() for secret in value.split(",") if secret.strip()]
    if not secrets:
        faults.append(Fault(place, "names no key"))
    for number, secret in enumerate(secrets, 1):
        if not _SECRET(secret):
            faults.append(Fault(place, f"key {number} has a character that a header can't carry"))
        elif secret in secrets[: number - 1]:
            faults.append(Fault(place, f"key {number} is there twice, which would double its limit"))
    keys = tuple(Key(f"key-{number}", secret, (limit,)) for number, secret in enumerate(secrets, 1))
    url, url_place = env.text("UPSTREAM_URL") or ("", "UPSTREAM_URL")
    if url and not _BASE_URL(url):
        faults.append(Fault(url_place, "is not http(s)://HOST[:PORT][/PATH]"))
    pool = Pool(
        name="default",
        keys=keys,
        allow_repeat=not url,
        max_connections=_most_connections(),
        reserved_headers=frozenset({"x-api-key"}),
        upstream="http" if url else "simulated",
        base_url=url,
    )
    return PoolSettings(pool, url, latency=latency)


def _most_connections() -> int:
    return max(1, min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 8 // 10))


class _PoolMaker:
    """One [pools.NAME] table into a PoolSettings."""

    def __init__(
        self,
        name: str,
        table: _Pool,
        place: str,
        config: Path | None,
        env: _Environment,
        faults: list[Fault],
        warnings: list[str],
    ) -> None:
        self._name = name
        self._table = table
        self._place = place
        self._folder = None if config is None else config.resolve().parent
        self._env = env
        self._faults = faults
        self._warnings = warnings

    def _fault(self, path: str, message: str) -> None:
        self._faults.append(Fault(f"{self._place}.{path}", message))

    def make(self, latency: tuple[int, int]) -> PoolSettings:
        table = self._table
        url = table.base_url or ""
        if table.base_url is not None and not _BASE_URL(url):
            self._fault("base_url", "is not http(s)://HOST[:PORT][/PATH] without user, query or fragment")
        if table.simulator is not None:
            if url:
                self._fault("simulator", "and base_url exclude each other")
            least, most = (self._time(text, "simulator.latency", 0) for text in table.simulator.latency)
            latency = (least, most)
            if least > most:
                self._fault("simulator.latency", "goes from the shortest to the longest")
        reserved, query = self._key_in()
        pool = Pool(
            name=self._name,
            keys=self._keys(),
            arrival_jitter=self._time(table.arrival_jitter, "arrival_jitter", 0),
            timeout=self._time(table.timeout, "timeout"),
            retry=self._retry(),
            max_connections=self._connections(),
            allow_repeat=table.allow_repeat or not url,
            success=self._success(),
            allow_paths=self._paths(),
            reserved_headers=reserved,
            reserved_query=query,
            upstream="http" if url else "simulated",
            base_url=url,
        )
        return PoolSettings(
            pool,
            base_url=url,
            key_header=table.key_in.header,
            key_prefix=table.key_in.prefix,
            key_query=table.key_in.query,
            body_cap=table.body_cap,
            ca_file=self._file(table.ca_file, "ca_file"),
            egress_proxy=table.egress_proxy,
            mask_secrets=table.mask_secrets,
            latency=latency,
            error_rate=0.0 if table.simulator is None else table.simulator.error_rate,
        )

    def _time(self, text: str, path: str, least: int = 1) -> int:
        return _time(text, f"{self._place}.{path}", self._faults, least)

    def _key_in(self) -> tuple[frozenset[str], str | None]:
        key_in = self._table.key_in
        if (key_in.header is None) == (key_in.query is None):
            self._fault("key_in", "is either { header = ... } or { query = ... }")
        if key_in.header is not None and (not _TOKEN(key_in.header) or key_in.header.lower() in _OURS):
            self._fault("key_in.header", f"{key_in.header!r} can't carry a key")
        if key_in.prefix and (key_in.header is None or not re.fullmatch(r"[\x20-\x7e]+", key_in.prefix)):
            self._fault("key_in.prefix", "goes with a header, in printable ASCII")
        reserved = frozenset() if key_in.header is None else frozenset({key_in.header.lower()})
        return reserved, key_in.query

    def _connections(self) -> int:
        asked, most = self._table.max_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 8 // 10
        if asked is None:
            return _most_connections()
        if asked > most:
            self._fault("max_connections", f"is {asked}; open files are limited, which allows {most} (ulimit -n)")
        return asked

    def _retry(self) -> RetryPolicy:
        retry = self._table.retry
        first = self._time(retry.initial_backoff, "retry.initial_backoff", MILLISECOND)
        last = self._time(retry.max_backoff, "retry.max_backoff", MILLISECOND)
        if first > last:
            self._fault("retry.max_backoff", "is below initial_backoff")
        reasons = RetryPolicy().reasons
        if not retry.on_429:
            reasons -= {Reason.HTTP_429}
        return RetryPolicy(retry.max_attempts, first, last, reasons)

    def _success(self) -> tuple[tuple[int, int], ...]:
        ranges = []
        for place, text in enumerate(self._table.success):
            match = _STATUS(text)
            if match is None:
                self._fault(f"success[{place}]", f'{text!r} is not like "2xx", "404" or "200-299"')
            elif match[1]:
                ranges.append((int(match[1]) * 100, int(match[1]) * 100 + 99))
            else:
                ranges.append((int(match[2]), int(match[3] or match[2])))
        return tuple(ranges)

    def _paths(self) -> tuple[str, ...]:
        for place, path in enumerate(self._table.allow_paths):
            if not path.startswith("/"):
                self._fault(f"allow_paths[{place}]", f'{path!r} does not begin with "/"')
        return tuple(self._table.allow_paths)

    def _keys(self) -> tuple[Key, ...]:
        keys: list[Key] = []
        seen: dict[str, str] = {}
        for place, table in enumerate(self._table.keys):
            path = f"keys[{place}]"
            if not _LABEL(table.label):
                self._fault(f"{path}.label", "takes 1 to 64 letters, digits, dots, dashes and underscores")
            elif table.label in (key.label for key in keys):
                self._fault(f"{path}.label", f"{table.label!r} is used twice")
            secret = self._secret(table, path)
            if secret is not None and secret in seen:
                self._fault(path, f"has the same secret as {seen[secret]!r}, which would double its limit")
            elif secret is not None and secret == table.label:
                self._fault(f"{path}.label", "is the secret itself; labels are shown")
            if secret is not None:
                seen[secret] = table.label
            limits = self._limits(table, path)
            in_flight = table.max_in_flight if table.max_in_flight is not None else self._table.max_in_flight
            keys.append(Key(table.label, secret or "", limits, in_flight))
        return tuple(keys)

    def _secret(self, table: _Key, path: str) -> str | None:
        given = [name for name in ("secret", "secret_env", "secret_file") if getattr(table, name) is not None]
        if len(given) != 1:
            self._fault(path, "has exactly one of secret, secret_env and secret_file")
            return None
        secret = ""
        if table.secret is not None:
            secret = table.secret.get_secret_value()
        elif table.secret_env is not None:
            found = self._env.text(table.secret_env)
            if found is None:
                self._fault(f"{path}.secret_env", f"the variable {table.secret_env} is not set")
                return None
            secret = found[0]
        elif (file := self._file(table.secret_file, f"{path}.secret_file")) is not None:
            with open(file, encoding="utf-8", errors="replace") as opened:
                secret = opened.read(65536).rstrip("\r\n")
        else:
            return None
        if not _SECRET(secret):
            self._fault(f"{path}.{given[0]}", "is empty, or has spaces at an end, or is not printable ASCII")
            return None
        return secret

    def _file(self, file: str | None, path: str) -> str | None:
        if file is None:
            return None
        full = file if self._folder is None else self._folder / file
        try:
            with open(full, "rb"):
                return str(full)
        except OSError as error:
            self._fault(path, f"{file!r} can't be read: {error.strerror}")
            return None

    def _limits(self, key: _Key, path: str) -> tuple[Limit, ...]:
        tables, where = (key.limits, f"{path}.limits") if key.limits is not None else (self._table.limits, "limits")
        if tables is None:
            self._fault("limits", "is missing; write limits = [] where the upstream has none")
            return ()
        limits = []
        for place, table in enumerate(tables):
            spot = f"{where}[{place}]"
            per = self._time(table.per, f"{spot}.per")
            if table.kind == "bucket":
                self._fault(f"{spot}.kind", f'"bucket" {_LATER}')
            if table.burst is not None and table.burst > table.max:
                self._fault(f"{spot}.burst", f"{table.burst} is above max, {table.max}")
            limits.append(Limit(table.max, per, Counts(table.counts), Kind.WINDOW, table.burst))
        if where != "limits" or key is self._table.keys[0]:
            self._compare(limits, where)
        return tuple(limits)

    def _compare(self, limits: list[Limit], where: str) -> None:
        """Warn where one limit can never bind because a longer one is tighter."""
        for short in limits:
            for long in limits:
                if short.counts is long.counts and short.per < long.per and short.max >= long.max:
                    text = (
                        f"{short.max} per {short.per / SECOND:g} s never binds: {long.max} per {long.per / SECOND:g} s"
                    )
                    self._warnings.append(f"{self._place}.{where}: {text} does")
