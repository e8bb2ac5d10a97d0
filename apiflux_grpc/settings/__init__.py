"""Settings: flags over environment over `.env` over TOML; frozen, or refused with every fault at once.

Rule: whatever is wrong is a Fault with its place, all of them are told together, and no message shows a value,
since any value may be a secret in the wrong place. What comes in is read by pydantic models whose fields are all
optional: they judge each field by itself, a faulty one is cut out and the rest is judged again, so that one fault
hides no other. What needs several fields, a file or a variable is judged after that by plain functions. What goes
out is plain and frozen: core.model's types, integer nanoseconds, bytes.

An empty variable is an unset one. `os.environ` is neither read nor changed here; `.env` is read without
substitution, because a secret may hold a "$".

Not known here: how anything is built from the settings.
"""

from __future__ import annotations

import difflib
import io
import ipaddress
import json
import re
import resource
import ssl
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import SplitResult, urlsplit

from dotenv.parser import parse_stream
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
)

from apiflux_grpc.core.budget import shape
from apiflux_grpc.core.call import SENDER_HEADERS
from apiflux_grpc.core.cost import CostHeader, CostJson
from apiflux_grpc.core.model import (
    RETRY_REASONS,
    X_API_KEY,
    Counts,
    Group,
    HeaderKey,
    Key,
    Kind,
    Limit,
    Pool,
    QueryKey,
    RetryPolicy,
)
from apiflux_grpc.core.outcome import Reason
from apiflux_grpc.core.units import (
    LONGEST,
    MILLISECOND,
    MOST,
    SECOND,
    format_duration,
    format_limit,
    is_host,
    parse_address,
    parse_duration,
)

Mode = Literal["test", "production"]

# -- what comes out ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """A pool, and what only its adapter needs.

    `base_url` "": the simulator, which answers after `latency` (least, most; ns), badly in `error_rate` (0 to 1) of
    its calls; else an upstream over HTTP. A body longer than `body_cap` bytes is truncated.
    """

    pool: Pool
    base_url: str = ""
    body_cap: int = 1 << 20
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    egress_proxy: str | None = field(default=None, repr=False)  # may hold a password
    mask_secrets: bool = True
    latency: tuple[int, int] = (0, 0)
    error_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a server and the stress test are told.

    `host` has no brackets. `grace` and `request_timeout` are ns, the latter and `concurrent_requests` the stress
    test's; `repeat_count` is that of the mode; `batch_size` is results per message. `warnings` are for people.
    """

    pools: tuple[PoolSettings, ...]
    host: str = "127.0.0.1"
    port: int = 50051
    mode: Mode = "test"
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


# -- single values -------------------------------------------------------------------------------

LEAST_JITTER: Final = 2 * MILLISECOND  # where a limit is a bucket

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch
_NAME_RULE: Final = "must be 1 to 64 of A-Z, a-z, 0-9, dot, underscore and hyphen"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*").fullmatch
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,128}").fullmatch  # RFC 9110, section 5.6.2
_PARAMETER: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}").fullmatch
_PATH: Final = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@/%]*").fullmatch
_STATUS: Final = re.compile(r"([1-5])xx|([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?").fullmatch
_SWITCH: Final = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(("false", "0", "no", "off"), False)

_SECRET_MOST: Final = 8192


def _duration(low: int, high: int = LONGEST) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError('needs a unit: write a string such as "60s" or "250ms"')
        if not isinstance(value, str):
            raise ValueError('must be a string such as "60s" or "250ms"')
        length = parse_duration(value)
        if not low <= length <= high:
            least = "above 0" if low == 1 else f"at least {format_duration(low)}"
            raise ValueError(f"must be {least}" if length < low else f"must be at most {format_duration(high)}")
        return length

    return read


def _latency(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError('must be two durations, as ["10ms", "50ms"]')
    low, high = map(_duration(0), value)
    if low > high:
        raise ValueError("has the longer one first")
    return low, high


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _bind(value: object) -> tuple[str, int]:
    if not isinstance(value, str):
        raise ValueError('must be HOST:PORT, a string such as "127.0.0.1:50051" or "[::1]:50051"')
    return parse_address(value)


def _status_range(value: object) -> tuple[int, int]:
    match = _STATUS(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('must be a string such as "2xx", "404" or "200-299"')
    if match[1]:
        return int(match[1]) * 100, int(match[1]) * 100 + 99
    low, high = int(match[2]), int(match[3] or match[2])
    if low > high:
        raise ValueError("has the higher status first")
    return low, high


def _url(text: str) -> SplitResult:
    """What base_url and egress_proxy have in common."""
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError("must be a URL, without spaces and in ASCII")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("must be a URL with a valid host and port") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    if "?" in text or "#" in text:
        raise ValueError("can't have a query or a fragment")
    host = parts.hostname or ""
    if port == 0 or parts.netloc.endswith(":") or not is_host(host):
        raise ValueError("must name a host, and a port from 1 to 65535 if any")
    return parts


def _base_url(text: str) -> str:
    parts = _url(text)
    if "@" in parts.netloc:
        raise ValueError("can't have user info; secrets belong to the keys")
    path = parts.path
    if path and (not _PATH(path) or "//" in path or {".", ".."} & set(path.split("/"))):
        raise ValueError('has a path with "//", "." or "..", or a character that must be percent-encoded')
    if re.search(r"%(?![0-9A-Fa-f]{2})", path):
        raise ValueError("has a bad percent sign")
    return f"{parts.scheme}://{parts.netloc}{path.rstrip('/')}"


def _proxy(secret: SecretStr) -> SecretStr:
    if _url(secret.get_secret_value()).path not in ("", "/"):
        raise ValueError("can't have a path")
    return secret


def _name(text: str) -> str:
    if not _NAME(text):
        raise ValueError(_NAME_RULE)
    return text


def _variable(text: str) -> str:
    if not _VARIABLE(text):
        raise ValueError("must be the name of an environment variable")
    return text


def _header(text: str) -> str:
    if not _TOKEN(text):
        raise ValueError("is not a header name")
    if text.lower() in SENDER_HEADERS:
        raise ValueError("is a header that the service sets itself")
    return text


def _answer_header(text: str) -> str:
    if not _TOKEN(text):
        raise ValueError("is not a header name")
    return text


def _json_path(text: str) -> str:
    if len(text) > 256 or not all(text.split(".")):
        raise ValueError('must be names joined by dots, as "usage.total_tokens"')
    return text


def _prefix(text: str) -> str:
    if not _PRINTABLE(text) or text.startswith(" "):
        raise ValueError("must be printable ASCII that doesn't begin with a space")
    return text


def _parameter(text: str) -> str:
    if not _PARAMETER(text):
        raise ValueError("is not the name of a query parameter (A-Z, a-z, 0-9, dot, underscore, tilde, hyphen)")
    return text


def _allowed_path(text: str) -> str:
    if not _PATH(text):
        raise ValueError('must begin with "/" and have only characters of a path')
    return text


def _number(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text.strip()):
        raise ValueError("must be a whole number")
    return int(text)


def _switch(text: str) -> bool:
    try:
        return _SWITCH[text.strip().lower()]
    except KeyError:
        raise ValueError("must be true or false (or 1, 0, yes, no, on, off)") from None


def _secret_fault(secret: str) -> str | None:
    """Why this can't be sent as a key."""
    if not secret:
        return "is empty"
    if len(secret) > _SECRET_MOST:
        return f"is longer than {_SECRET_MOST} characters"
    if not _PRINTABLE(secret):
        return "has a control character or one outside ASCII, which a header can't carry"
    if secret != secret.strip(" "):
        return "begins or ends with a space"
    return None


# -- what comes in -------------------------------------------------------------------------------
# Absence is None or the default beside the field. A list's None is an element that was cut out: TOML has no null.


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)


_Count = Annotated[int, Field(ge=1, le=MOST)]
_Told = Annotated[int, Field(ge=1, le=(1 << 31) - 1)]  # GetInfo has 32 bits for it
_Length = Annotated[int, PlainValidator(_duration(1))]
_Backoff = Annotated[int, PlainValidator(_duration(MILLISECOND, 60 * SECOND))]  # what a request may ask for, too


class _Server(_Table):
    bind: Annotated[tuple[str, int], PlainValidator(_bind)] = ("127.0.0.1", 50051)
    mode: Mode = "test"
    repeat_count: _Told | None = None
    batch_size: _Told = 100
    reflection: bool = True
    grace: Annotated[int, PlainValidator(_duration(0))] = 15 * SECOND
    max_batches: _Count = 2_000
    max_queued_calls: _Count = 2_000_000
    max_queued_bytes: _Count = 1 << 30
    max_batch_calls: _Count = 50_000
    # gRPC's own limit lies at twice that, and must be below 2^31.
    max_batch_bytes: Annotated[int, Field(ge=1, lt=1 << 30)] = 32 << 20
    state_dir: Any = None
    cold_start: Literal["trust", "wait"] = "trust"


class _Stress(_Table):
    concurrent_requests: _Count = 100
    request_timeout: _Length = 60 * SECOND


class _Limit(_Table):
    max: _Count | None = None
    per: _Length | None = None
    counts: Literal["calls", "cost"] = "calls"
    kind: Literal["window", "bucket"] = "window"
    burst: _Count | None = None


class _KeyIn(_Table):
    header: Annotated[str, AfterValidator(_header)] | None = None
    prefix: Annotated[str, AfterValidator(_prefix)] | None = None
    query: Annotated[str, AfterValidator(_parameter)] | None = None


class _Key(_Table):
    label: Annotated[str, AfterValidator(_name)] | None = None
    secret: SecretStr | None = None
    secret_env: Annotated[str, AfterValidator(_variable)] | None = None
    secret_file: str | None = None
    limits: list[_Limit | None] | None = None
    max_in_flight: _Told | None = None


class _Group(_Table):
    keys: list[Annotated[str, AfterValidator(_name)] | None] | None = None
    limits: list[_Limit | None] | None = None


class _CostFrom(_Table):
    header: Annotated[str, AfterValidator(_answer_header)] | None = None
    json_path: Annotated[Annotated[str, AfterValidator(_json_path)] | None, Field(alias="json")] = None


class _Retry(_Table):
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    on_429: bool = True
    initial_backoff: _Backoff = 200 * MILLISECOND
    max_backoff: _Backoff = 10 * SECOND


class _Simulator(_Table):
    latency: Annotated[tuple[int, int], PlainValidator(_latency)] | None = None
    error_rate: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0


class _Pool(_Table):
    base_url: Annotated[str, AfterValidator(_base_url)] | None = None
    key_in: _KeyIn | None = None
    limits: list[_Limit | None] | None = None
    max_in_flight: _Told | None = None
    timeout: _Length = 30 * SECOND
    arrival_jitter: Annotated[int, PlainValidator(_duration(0))] = 250 * MILLISECOND
    patience: Annotated[int, PlainValidator(_duration(0))] = 60 * SECOND
    cost_from: _CostFrom | None = None
    retry: _Retry = _Retry()
    max_connections: _Count | None = None
    allow_repeat: bool = False
    success: list[Annotated[tuple[int, int], PlainValidator(_status_range)] | None] = [(200, 299)]
    allow_paths: list[Annotated[str, AfterValidator(_allowed_path)] | None] | None = None
    egress_proxy: Annotated[SecretStr, AfterValidator(_proxy)] | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    mask_secrets: bool = True
    body_cap: _Count = 1 << 20  # a result stays far below the 4 MiB that gRPC clients take by default
    simulator: _Simulator | None = None
    keys: list[_Key | None] = []
    groups: list[_Group | None] = []


class _File(_Table):
    server: _Server = _Server()
    stress: _Stress = _Stress()
    budget: Any = None
    pools: dict[str, _Pool] = {}


_Number = BeforeValidator(_number)
_EnvCount = Annotated[int, _Number, Field(ge=1, le=MOST)]
_Milliseconds = AfterValidator(lambda number: number * MILLISECOND)
_EnvLength = Annotated[int, _Number, Field(ge=0, le=LONGEST // MILLISECOND), _Milliseconds]
_EnvTimeout = Annotated[int, _Number, Field(ge=1, le=LONGEST // MILLISECOND), _Milliseconds]


class _Environment(BaseModel):
    """The seed's names. None: unset, and its default is elsewhere."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    PORT: Annotated[int, _Number, Field(ge=0, le=65535)] | None = None
    TEST_MODE: Annotated[bool, BeforeValidator(_switch)] | None = None
    TEST_REQUESTS_COUNT: _EnvCount | None = None
    TEST_MIN_LATENCY: _EnvLength = 10 * MILLISECOND
    TEST_MAX_LATENCY: _EnvLength = 50 * MILLISECOND
    PROD_REQUESTS_COUNT: _EnvCount | None = None
    PROD_MIN_LATENCY: _EnvLength = 500 * MILLISECOND
    PROD_MAX_LATENCY: _EnvLength = 3000 * MILLISECOND
    RATE_LIMIT: _EnvCount = 1000
    API_KEYS: SecretStr = SecretStr("key1,key2,key3")
    BATCH_SIZE: _EnvCount | None = None
    CONCURRENT_REQUESTS: _EnvCount | None = None
    REQUEST_TIMEOUT: _EnvTimeout | None = None
    UPSTREAM_URL: Annotated[str, AfterValidator(_base_url)] | None = None


_TABLES: Final[Mapping[str, type[_Table]]] = {
    "server": _Server,
    "stress": _Stress,
    "limits": _Limit,
    "key_in": _KeyIn,
    "keys": _Key,
    "groups": _Group,
    "cost_from": _CostFrom,
    "retry": _Retry,
    "simulator": _Simulator,
}

# -- faults --------------------------------------------------------------------------------------

_Place = tuple[str | int, ...]  # the source ("" for the environment), then the way to the field
_Model = TypeVar("_Model", bound=BaseModel)

_WORDS: Final[Mapping[str, str]] = {
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be a whole number",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "model_type": "must be a table",
    "string_type": "must be a string",
    "value_error": "{error}",
}


def _part(name: str) -> str:
    """A name as TOML writes it; a long one cut, for it may be a secret in the wrong place."""
    name = name if len(name) <= 64 else f"{name[:61]}..."
    return name if _NAME(name) and "." not in name else json.dumps(name)


def _written(place: _Place) -> str:
    source, *way = place
    text = ""
    for part in way:
        text += f"[{part}]" if isinstance(part, int) else f".{_part(part)}" if text else _part(part)
    return f"{source}: {text}" if source and text else f"{source}{text}"


class _Faults:
    """What was found so far. A fault that only follows from an earlier one isn't told."""

    def __init__(self) -> None:
        self.found: list[Fault] = []
        self._places: set[_Place] = set()

    def add(self, place: _Place, message: str, *involved: _Place) -> None:
        """`involved`: the other fields that this judges; where one of them is at fault, it can't be judged."""
        if any(one[:end] in self._places for one in (place, *involved) for end in range(1, len(one) + 1)):
            return
        self.excuse(place)
        self.found.append(Fault(_written(place), message))

    def excuse(self, place: _Place) -> None:
        """From now on nothing is said of this field."""
        self._places.add(place)


def _meant(way: Sequence[str | int]) -> str | None:
    """The name that was meant, perhaps, by one that its table doesn't have."""
    *table, name = way
    names = [part for part in table if isinstance(part, str)]
    model: type[_Table] = _File
    if len(names) == 2:
        model = _Pool
    elif names:
        model = _TABLES[names[-1]]
    known = [field.alias or name for name, field in model.model_fields.items()]
    close = difflib.get_close_matches(str(name)[:64], known, 1)
    return close[0] if close else None


def _cut_out(raw: dict[str, Any], way: Sequence[str | int]) -> None:
    node: Any = raw
    for part in way[:-1]:
        node = node[part]
    if isinstance(node, dict):
        node.pop(way[-1], None)
    else:
        node[way[-1]] = None


def _judged(model: type[_Model], raw: dict[str, Any], place: Callable[[str | int], str], faults: _Faults) -> _Model:
    """`raw` as a model, without its faulty fields, which are told. Changes `raw`."""
    while True:
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
        for one in found:
            way, context = one["loc"], one.get("ctx", {})
            here: _Place = (place(way[0]), *way)
            if one["type"] != "extra_forbidden":
                faults.add(here, _WORDS.get(one["type"], one["msg"]).format(**context))
            elif meant := _meant(way):
                faults.add(here, f"unknown name; did you mean '{meant}'?")
                faults.excuse((*here[:-1], meant))
            else:
                faults.add(here, "unknown name")
            _cut_out(raw, way)


# -- reading -------------------------------------------------------------------------------------


def _read(path: Path, faults: _Faults, source: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        faults.add((source,), "is not UTF-8")
    except (OSError, ValueError) as error:
        faults.add((source,), f"can't be read: {_why(error)}")
    return ""


def _why(error: OSError | ValueError) -> str:
    return (isinstance(error, OSError) and error.strerror) or "not a path"


def _toml(path: Path, faults: _Faults) -> dict[str, Any]:
    text = _read(path, faults, str(path))
    try:
        return tomllib.loads(text)
    except RecursionError:
        faults.add((str(path),), "is nested too deeply")
    except ValueError as error:
        message, _, at = str(error).partition(" (at ")
        line = at.rstrip(")") if at.startswith("line") else f"line {text.count(chr(10)) + 1}"
        faults.add((f"{path}: {line}",), message)
    return {}


def _dotenv(path: Path | None, faults: _Faults) -> dict[str, str]:
    if path is None or not path.exists():
        return {}
    values: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(_read(path, faults, path.name))):
        if binding.error:
            text = binding.original.string
            line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
            faults.add((f"{path.name}: line {line}",), "is not NAME=value")
        elif binding.key is not None:
            values[binding.key] = binding.value or ""
    return values


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _most_connections() -> int:
    """80 % of the descriptors that this process may open: the rest is for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else max(1, soft * 4 // 5)


def _idle(limits: Sequence[Limit]) -> Iterator[tuple[Limit, Limit]]:
    """Pairs of (a limit that never binds, the one that binds before it)."""
    for index, limit in enumerate(limits):
        for other_index, other in enumerate(limits):
            if index == other_index or limit.counts is not other.counts:
                continue
            if _binds_before(other, limit) and (not _binds_before(limit, other) or index > other_index):
                yield limit, other
                break


def _binds_before(other: Limit, limit: Limit) -> bool:
    """Whether whoever keeps `other` keeps `limit`, too. Exact in whole numbers."""
    other_flow, flow = other.max * limit.per, limit.max * other.per  # the rates, both times per * per
    if limit.kind is Kind.WINDOW and other.kind is Kind.WINDOW:
        # So many windows of `other` cover one of `limit`, and each has at most other.max.
        return other.max * -(-limit.per // other.per) <= limit.max
    if limit.kind is Kind.WINDOW:
        return other.depth * other.per + other_flow <= flow
    return (other.max if other.kind is Kind.WINDOW else other.depth) <= limit.depth and other_flow <= flow


def limit_shown(limit: Limit) -> str:
    """A limit in words."""
    text = format_limit(limit.max, limit.per, limit.counts.value)
    if limit.kind is Kind.BUCKET:
        return f"{text} (a bucket of {limit.depth})"
    return text if limit.burst is None else f"{text} (bursts of {limit.burst})"


def _label(index: int, key: _Key) -> str:
    return key.label or f"key-{index + 1}"


class _Reader:
    """One load: the sources, and what is found out on the way."""

    def __init__(self, config: Path | None, environ: Mapping[str, str], dotenv: Path | None) -> None:
        self.faults = _Faults()
        self.warnings: list[str] = []
        self._config = config
        self._file_name = "" if config is None else str(config)
        self._environ = environ
        self._dotenv = _dotenv(dotenv, self.faults)
        self._dotenv_name = "" if dotenv is None else dotenv.name
        self.set_names = frozenset(name for name in _Environment.model_fields if self._value(name))
        raw = {name: self._value(name) for name in self.set_names}
        self.env = _judged(_Environment, raw, self._source, self.faults)
        tables = {} if config is None else _toml(config, self.faults)
        self.file = _judged(_File, tables, lambda _: self._file_name, self.faults)

    def _value(self, name: str) -> str:
        return self._environ.get(name) or self._dotenv.get(name, "")

    def _source(self, name: str | int) -> str:
        return "" if self._environ.get(str(name)) else self._dotenv_name

    def _env_place(self, name: str) -> _Place:
        return (self._source(name), name)

    def _toml_place(self, *way: str | int) -> _Place:
        return (self._file_name, *way)

    def _path(self, text: str) -> Path:
        """A path of the TOML file: relative to its folder."""
        return (self._config or Path()).parent / text

    # -- everything but pools --------------------------------------------------------------------

    def settings(self, bind: str | None) -> Settings:
        env, file = self.env, self.file
        mode: Mode = file.server.mode if env.TEST_MODE is None else "test" if env.TEST_MODE else "production"
        latency = self._mode_latency(mode)
        host, port = self._address(bind)
        self._check_server()
        pools = [self._pool(name, pool, latency) for name, pool in file.pools.items()]
        pools = self._seed_pools(latency) + pools
        self._warn_of_shared_secrets(pools)
        return Settings(
            pools=tuple(pools),
            host=host,
            port=port,
            mode=mode,
            repeat_count=self._repeat_count(mode),
            batch_size=env.BATCH_SIZE or file.server.batch_size,
            concurrent_requests=env.CONCURRENT_REQUESTS or file.stress.concurrent_requests,
            request_timeout=env.REQUEST_TIMEOUT or file.stress.request_timeout,
            max_batches=file.server.max_batches,
            max_queued_calls=file.server.max_queued_calls,
            max_queued_bytes=file.server.max_queued_bytes,
            max_batch_calls=file.server.max_batch_calls,
            max_batch_bytes=file.server.max_batch_bytes,
            grace=file.server.grace,
            reflection=file.server.reflection,
            warnings=tuple(self.warnings),
        )

    def _mode_latency(self, mode: Mode) -> tuple[int, int]:
        env = self.env
        for low, high in (("TEST_MIN_LATENCY", "TEST_MAX_LATENCY"), ("PROD_MIN_LATENCY", "PROD_MAX_LATENCY")):
            if getattr(env, low) > getattr(env, high):
                self.faults.add(
                    self._env_place(high if high in self.set_names else low),
                    f"{low} is above {high}",
                    self._env_place(low),
                    self._env_place(high),
                )
        if mode == "test":
            return env.TEST_MIN_LATENCY, env.TEST_MAX_LATENCY
        return env.PROD_MIN_LATENCY, env.PROD_MAX_LATENCY

    def _repeat_count(self, mode: Mode) -> int:
        env, file = self.env, self.file.server
        name, given, default = (
            ("TEST_REQUESTS_COUNT", env.TEST_REQUESTS_COUNT, 50)
            if mode == "test"
            else ("PROD_REQUESTS_COUNT", env.PROD_REQUESTS_COUNT, 2000)
        )
        count = given or file.repeat_count or default
        place = self._env_place(name) if given else self._toml_place("server", "repeat_count")
        most = self._toml_place("server", "max_batch_calls")
        if count > file.max_batch_calls:
            place = place if given or file.repeat_count else most
            self.faults.add(place, f"the default repeat count, {count}, is above max_batch_calls", most)
        return count

    def _address(self, bind: str | None) -> tuple[str, int]:
        host, port = self.file.server.bind
        port = port if self.env.PORT is None else self.env.PORT
        if bind is not None:
            try:
                host, port = _bind(bind)
            except ValueError as error:
                self.faults.add(("", "--bind"), str(error))
        if not _is_loopback(host):
            self.warnings.append(f"listens on {host} without TLS: whoever reaches it can spend the keys' budgets")
        return host, port

    def _check_server(self) -> None:
        server = self.file.server
        if server.state_dir is not None:
            self._unsupported("server", "state_dir")
        if server.cold_start == "wait":
            self._unsupported("server", "cold_start", what='"wait" ')
        if self.file.budget is not None:
            self._unsupported("budget")
        for one, all_of_them in (("max_batch_calls", "max_queued_calls"), ("max_batch_bytes", "max_queued_bytes")):
            if getattr(server, one) > getattr(server, all_of_them):
                given = one if one in server.model_fields_set else all_of_them
                places = [self._toml_place("server", name) for name in (one, all_of_them)]
                self.faults.add(self._toml_place("server", given), f"{one} is above {all_of_them}", *places)

    def _unsupported(self, *way: str | int, what: str = "") -> None:
        self.faults.add(self._toml_place(*way), f"{what}is not supported by this version")

    # -- the seed's pool -------------------------------------------------------------------------

    def _seed_pools(self, latency: tuple[int, int]) -> list[PoolSettings]:
        """The pool `default` of the environment, where the file has none."""
        named = sorted(self.set_names & {"API_KEYS", "RATE_LIMIT", "UPSTREAM_URL"})
        if "default" in self.file.pools:
            if named:
                self.warnings.append(f"{', '.join(named)}: not used, since {self._file_name} has a pool default")
            return []
        env = self.env
        if self.file.pools and env.UPSTREAM_URL is None:
            self.warnings.append(f"{self._file_name} has no pool default, so that pool is the simulator")
        if env.UPSTREAM_URL is not None:
            self._warn_of_plain_http("UPSTREAM_URL", env.UPSTREAM_URL)
            if "API_KEYS" not in self.set_names:
                self.warnings.append("API_KEYS: unset, so that UPSTREAM_URL gets the keys of the simulator")
        pool = Pool(
            name="default",
            keys=self._seed_keys(),
            max_connections=min(1000, _most_connections()),
            allow_repeat=env.UPSTREAM_URL is None,
            upstream="simulated" if env.UPSTREAM_URL is None else "http",
            base_url=env.UPSTREAM_URL or "",
        )
        return [PoolSettings(pool, pool.base_url, latency=latency)]

    def _seed_keys(self) -> tuple[Key, ...]:
        secrets = [secret.strip() for secret in self.env.API_KEYS.get_secret_value().split(",")]
        labels = [f"key-{number}" for number in range(1, len(secrets) + 1)]
        wrong: list[str] = []
        for number, secret in enumerate(secrets, 1):
            first = secrets.index(secret) + 1
            if fault := _secret_fault(secret):
                wrong.append(f"entry {number} {fault}")
            elif first < number:
                wrong.append(f"entry {number} is the same as entry {first}: the same key twice would double its limit")
            elif secret in labels:
                wrong.append(f"entry {number} reads like a label (key-1, key-2, ...), and labels are shown")
        if wrong:
            self.faults.add(self._env_place("API_KEYS"), "; ".join(wrong))
        limits = (Limit(self.env.RATE_LIMIT, 60 * SECOND),)
        return tuple(Key(label, secret, limits) for label, secret in zip(labels, secrets, strict=True))

    # -- pools of the file -----------------------------------------------------------------------

    def _pool(self, name: str, pool: _Pool, latency: tuple[int, int]) -> PoolSettings:
        here = self._toml_place("pools", name)
        if not _NAME(name):
            self.faults.add(here, f"the name of a pool {_NAME_RULE}")
        simulated = pool.base_url is None
        if not pool.keys:
            self.faults.add((*here, "keys"), "is missing: a pool needs at least one key")
        groups = self._groups(here, pool)
        keys = self._keys(here, pool)
        each = [key.limits for key in keys] + [group.limits for group in groups]
        limits = [limit for one in each for limit in one]
        self._check_jitter(here, pool, limits)
        core_pool = Pool(
            name=name,
            keys=keys,
            arrival_jitter=pool.arrival_jitter,
            timeout=pool.timeout,
            retry=self._retry(here, pool.retry),
            patience=pool.patience,
            cost_from=self._cost_from(here, pool, limits),
            max_connections=self._connections(here, pool.max_connections),
            allow_repeat=pool.allow_repeat or simulated,
            success=self._success(here, pool),
            allow_paths=self._allow_paths(here, pool),
            key_in=self._key_in(here, pool.key_in),
            upstream="simulated" if simulated else "http",
            base_url=pool.base_url or "",
            groups=groups,
        )
        simulator = self._simulator(here, pool)
        return PoolSettings(
            pool=core_pool,
            base_url=core_pool.base_url,
            body_cap=pool.body_cap,
            ca_file=self._ca_file(here, pool),
            cert_file=self._client_certificate(here, pool),
            key_file=None if pool.key_file is None else str(self._path(pool.key_file)),
            egress_proxy=None if pool.egress_proxy is None else pool.egress_proxy.get_secret_value(),
            mask_secrets=pool.mask_secrets,
            latency=simulator.latency or latency,
            error_rate=simulator.error_rate,
        )

    def _key_in(self, here: _Place, key_in: _KeyIn | None) -> HeaderKey | QueryKey:
        if key_in is None:
            return X_API_KEY
        place = (*here, "key_in")
        header, query = (*place, "header"), (*place, "query")
        if key_in.header is None and key_in.query is None:
            self.faults.add(header, "is missing: say header or query", query)
        if key_in.header is not None and key_in.query is not None:
            self.faults.add(query, "stands beside header; a key is in one of them")
        if key_in.prefix is not None and key_in.header is None:
            self.faults.add((*place, "prefix"), "is for a header only", header)
        return HeaderKey(key_in.header or "", key_in.prefix or "") if key_in.query is None else QueryKey(key_in.query)

    def _check_jitter(self, here: _Place, pool: _Pool, limits: Iterable[Limit]) -> None:
        """A call of a bucket that isn't written within half the jitter isn't sent, so that must be possible."""
        if pool.base_url is None or pool.arrival_jitter >= LEAST_JITTER:
            return
        if any(limit.kind is Kind.BUCKET for limit in limits):
            text = (
                f"must be at least {format_duration(LEAST_JITTER)} beside a bucket: "
                "a call must be written in half of it"
            )
            self.faults.add((*here, "arrival_jitter"), text)

    def _cost_from(self, here: _Place, pool: _Pool, limits: Iterable[Limit]) -> CostHeader | CostJson | None:
        cost_from = pool.cost_from
        if cost_from is None:
            return None
        place = (*here, "cost_from")
        header, json_path = (*place, "header"), (*place, "json")
        if cost_from.header is None and cost_from.json_path is None:
            self.faults.add(header, "is missing: say header or json", json_path)
        if cost_from.header is not None and cost_from.json_path is not None:
            self.faults.add(json_path, "stands beside header; the cost is in one of them")
        if all(limit.counts is Counts.CALLS for limit in limits):
            self.warnings.append(f"{_written(place)}: is of no use, since no limit of this pool counts cost")
        if cost_from.header is not None:
            return CostHeader(cost_from.header.lower())
        return None if cost_from.json_path is None else CostJson(tuple(cost_from.json_path.split(".")))

    def _retry(self, here: _Place, retry: _Retry) -> RetryPolicy:
        places = [(*here, "retry", name) for name in ("initial_backoff", "max_backoff")]
        if retry.initial_backoff > retry.max_backoff:
            given = places["initial_backoff" not in retry.model_fields_set]
            first, last = format_duration(retry.initial_backoff), format_duration(retry.max_backoff)
            self.faults.add(given, f"initial_backoff ({first}) is above max_backoff ({last})", *places)
        return RetryPolicy(
            max_attempts=retry.max_attempts,
            initial_backoff=retry.initial_backoff,
            max_backoff=retry.max_backoff,
            reasons=RETRY_REASONS if retry.on_429 else RETRY_REASONS - {Reason.HTTP_429},
        )

    def _connections(self, here: _Place, asked: int | None) -> int:
        most = _most_connections()
        if asked is not None and asked > most:
            text = f"must be at most {most}, 80 % of the files that this process may open (ulimit -n)"
            self.faults.add((*here, "max_connections"), text)
        return min(1000, most) if asked is None else asked

    def _success(self, here: _Place, pool: _Pool) -> tuple[tuple[int, int], ...]:
        if not pool.success:
            self.faults.add((*here, "success"), 'is empty, so no call could succeed; leave it out for "2xx"')
        return tuple(one for one in pool.success if one is not None)

    def _allow_paths(self, here: _Place, pool: _Pool) -> tuple[str, ...]:
        if pool.allow_paths is not None and not pool.allow_paths:
            self.faults.add((*here, "allow_paths"), "is empty, so no path would do; leave it out to allow all")
        return tuple(one for one in pool.allow_paths or () if one is not None)

    def _simulator(self, here: _Place, pool: _Pool) -> _Simulator:
        if pool.base_url is not None:
            self._warn_of_plain_http(_written((*here, "base_url")), pool.base_url)
            if pool.simulator is not None:
                self.faults.add((*here, "simulator"), "stands beside base_url; a pool has one upstream")
        return pool.simulator or _Simulator()

    def _ca_file(self, here: _Place, pool: _Pool) -> str | None:
        if pool.ca_file is None:
            return None
        place, path = (*here, "ca_file"), self._path(pool.ca_file)
        if pool.base_url and pool.base_url.startswith("http:"):
            self.faults.add(place, "is of no use: base_url is not https")
        try:
            ssl.create_default_context(cafile=str(path))
        except ssl.SSLError:
            self.faults.add(place, "is a file without a certificate in PEM form")
        except (OSError, ValueError) as error:
            self.faults.add(place, f"{json.dumps(pool.ca_file)} can't be read: {_why(error)}")
        return str(path)

    def _client_certificate(self, here: _Place, pool: _Pool) -> str | None:
        """Checks `cert_file` and `key_file` together; without a key_file the certificate's file holds the key too."""
        if pool.cert_file is None:
            if pool.key_file is not None:
                self.faults.add((*here, "key_file"), "stands without cert_file")
            return None
        place, path = (*here, "cert_file"), self._path(pool.cert_file)
        if pool.base_url and pool.base_url.startswith("http:"):
            self.faults.add(place, "is of no use: base_url is not https")
        try:
            key = None if pool.key_file is None else str(self._path(pool.key_file))
            # An empty password, or OpenSSL would ask for one on the terminal.
            ssl.create_default_context().load_cert_chain(str(path), key, password="")
        except ssl.SSLError:
            self.faults.add(place, "and its key are no pair in PEM form without a password")
        except (OSError, ValueError) as error:
            self.faults.add(place, f"or key_file can't be read: {_why(error)}")
        return str(path)

    # -- keys and limits -------------------------------------------------------------------------

    def _keys(self, here: _Place, pool: _Pool) -> tuple[Key, ...]:
        jitter = pool.arrival_jitter
        pool_limits = self._limits((*here, "limits"), pool.limits, jitter)
        self._check_limits_given(here, pool)
        keys: dict[int, Key] = {}
        for index, one in enumerate(pool.keys):
            if one is None:
                continue
            place = (*here, "keys", index)
            limits = pool_limits if one.limits is None else self._limits((*place, "limits"), one.limits, jitter)
            secret = self._secret(place, one)
            in_flight = one.max_in_flight or pool.max_in_flight
            keys[index] = Key(_label(index, one), secret, limits, in_flight)
        self._check_unique(here, keys)
        return tuple(keys.values())

    def _groups(self, here: _Place, pool: _Pool) -> tuple[Group, ...]:
        labels = {_label(index, one) for index, one in enumerate(pool.keys) if one is not None}
        label_places = [(*here, "keys"), *((*here, "keys", index, "label") for index in range(len(pool.keys)))]
        first_in: dict[str, int] = {}
        groups = []
        for index, one in enumerate(pool.groups):
            if one is None:
                continue
            place = (*here, "groups", index)
            if not one.keys:
                self.faults.add((*place, "keys"), "is missing: a group names the labels of its keys")
            if not one.limits:
                self.faults.add((*place, "limits"), "is missing: a group shares at least one limit")
            known = [(number, label) for number, label in enumerate(one.keys or ()) if label is not None]
            for number, label in known:
                key_place = (*place, "keys", number)
                if label not in labels:
                    self.faults.add(key_place, "is the label of no key of this pool", *label_places)
                elif (first := first_in.setdefault(label, index)) != index:
                    self.faults.add(key_place, f"is in groups[{first}], too; a key is in one group at most")
                elif label in (earlier for at, earlier in known if at < number):
                    self.faults.add(key_place, "stands twice in this group")
            limits = self._limits((*place, "limits"), one.limits, pool.arrival_jitter)
            groups.append(Group(tuple(label for _, label in known), limits))
        return tuple(groups)

    def _check_limits_given(self, here: _Place, pool: _Pool) -> None:
        lacking = [index for index, key in enumerate(pool.keys) if key is not None and key.limits is None]
        if pool.limits is None and lacking:
            text = "is missing: say the limits here or for each key; `limits = []` means none"
            self.faults.add((*here, "limits"), text, *((*here, "keys", index, "limits") for index in lacking))

    def _check_unique(self, here: _Place, keys: Mapping[int, Key]) -> None:
        labels: dict[str, int] = {}
        secrets: dict[str, int] = {}
        for index, key in keys.items():
            place = (*here, "keys", index)
            if (first := labels.setdefault(key.label, index)) != index:
                self.faults.add((*place, "label"), f"is the label of keys[{first}], too")
            if key.secret and (first := secrets.setdefault(key.secret, index)) != index:
                self.faults.add(place, f"has the secret of keys[{first}]: the same key twice would double its limit")
        for index, key in keys.items():
            if key.label in secrets:
                self.faults.add((*here, "keys", index, "label"), "is a key's secret, and labels are shown")

    def _secret(self, place: _Place, key: _Key) -> str:
        """The key's secret; "" where that is at fault."""
        names = ("secret", "secret_env", "secret_file")
        given = [name for name in names if getattr(key, name) is not None]
        if not given:
            text = "is missing: say secret, secret_env or secret_file"
            self.faults.add((*place, "secret"), text, *((*place, name) for name in names))
            return ""
        field_place = (*place, given[-1])
        if len(given) > 1:
            self.faults.add(field_place, f"stands beside {given[0]}; a key has one secret")
            return ""
        if key.secret is not None:
            secret: str | None = key.secret.get_secret_value()
        elif key.secret_env is not None:
            secret = self._secret_of_variable(field_place, key.secret_env)
        else:
            secret = self._secret_of_file(field_place, key.secret_file or "")
        if secret is not None and (fault := _secret_fault(secret)):
            self.faults.add(field_place, fault if key.secret is not None else f"the secret that it names {fault}")
            return ""
        return secret or ""

    def _secret_of_variable(self, place: _Place, name: str) -> str | None:
        secret = self._environ.get(name, self._dotenv.get(name))
        if secret is None:
            # Anything else may be the secret itself, put here by mistake.
            shown = name if name == name.upper() and len(name) <= 64 else "that name"
            self.faults.add(place, f"there is no environment variable {shown}")
        return secret

    def _secret_of_file(self, place: _Place, name: str) -> str | None:
        path = self._path(name)
        try:
            with path.open("rb") as file:
                content = file.read(_SECRET_MOST + 3)
        except (OSError, ValueError) as error:
            # A bare word may be the secret itself, put here by mistake.
            shown = json.dumps(name) if "/" in name or "." in name else "that file"
            self.faults.add(place, f"{shown} can't be read: {_why(error)}")
            return None
        return content.decode("latin-1").removesuffix("\n").removesuffix("\r")

    def _limits(self, place: _Place, limits: Sequence[_Limit | None] | None, jitter: int) -> tuple[Limit, ...]:
        known = []
        for index, one in enumerate(limits or ()):
            limit = None if one is None else self._limit((*place, index), one)
            if limit is not None:
                known.append(limit)
                self._warn_of_spacing((*place, index), limit, jitter)
        for idle, binding in _idle(known):
            self.warnings.append(
                f"{_written(place)}: {limit_shown(idle)} never binds, since {limit_shown(binding)} does before it"
            )
        return tuple(known)

    def _limit(self, place: _Place, limit: _Limit) -> Limit | None:
        for name in ("max", "per"):
            if getattr(limit, name) is None:
                self.faults.add((*place, name), "is missing")
        if limit.max is None or limit.per is None:
            return None
        kind = Kind(limit.kind)
        if limit.burst is not None:
            burst, needed = (*place, "burst"), ((*place, "kind"), (*place, "max"), (*place, "per"))
            if kind is Kind.WINDOW and limit.burst > limit.max:
                self.faults.add(burst, f"is above max ({limit.max})", *needed)
            if kind is Kind.BUCKET and limit.burst * limit.per > limit.max * LONGEST:
                self.faults.add(burst, "would take longer than 366 days to fill again", *needed)
        return Limit(limit.max, limit.per, Counts(limit.counts), kind, limit.burst)

    # -- warnings --------------------------------------------------------------------------------

    def _warn_of_spacing(self, place: _Place, limit: Limit, jitter: int) -> None:
        """Calls that arrive late arrive bunched; where that may fill a whole bucket, they are spaced instead."""
        if limit.kind is Kind.WINDOW or limit.max * jitter <= (limit.depth - 1) * limit.per:
            return
        _, seconds = shape(limit, jitter)
        share = limit.per / SECOND / limit.max / seconds
        what, only = ("calls", "") if limit.counts is Counts.CALLS else ("units of cost", "no call may cost more, and ")
        self.warnings.append(
            f"{_written(place)}: arrival_jitter ({format_duration(jitter)}) leaves 1 of its burst of "
            f"{limit.depth}: {only}{what} go out at least {seconds * 1000:.4g} ms apart, at {share:.1%} of its rate"
        )

    def _warn_of_plain_http(self, place: str, base_url: str) -> None:
        parts = urlsplit(base_url)
        if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            self.warnings.append(f"{place}: is not https, so keys travel in the clear")

    def _warn_of_shared_secrets(self, pools: Sequence[PoolSettings]) -> None:
        """Each pool has budgets of its own, so a key in two pools may be used up to both its limits."""
        owners: dict[str, tuple[str, str]] = {}
        for one in pools:
            if not one.base_url:
                continue
            for key in one.pool.keys:
                pool, label = owners.setdefault(key.secret, (one.pool.name, key.label))
                if key.secret and pool != one.pool.name:
                    self.warnings.append(
                        f"pools {pool} and {one.pool.name} share a secret ({label}, {key.label}): "
                        "each counts it for itself"
                    )


def load(
    config: Path | None, *, environ: Mapping[str, str], dotenv: Path | None = None, bind: str | None = None
) -> Settings:
    """The settings of these sources; `bind` ("HOST:PORT") is the flag. Raises SettingsError, which has every fault.

    `config` must exist; a `dotenv` that doesn't is as none. A secret that `secret_env` names is looked for in
    `environ`, then in `.env`.
    """
    reader = _Reader(config, environ, dotenv)
    settings = reader.settings(bind)
    if reader.faults.found:
        raise SettingsError(reader.faults.found)
    return settings
