"""The settings as the code has them: names, possible values, defaults.

Rule: everything here comes from the models in apiflux_grpc/settings/tables.py. A validator that VALUES has no words for
is an error, so that a new kind of value can't be left undescribed.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import getclosurevars
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BaseModel, BeforeValidator, PlainValidator, SecretStr
from pydantic.fields import FieldInfo

from apiflux_grpc.core.units import LONGEST, MILLISECOND, MOST, format_duration
from apiflux_grpc.settings import tables
from docs.common import OutOfStep


@dataclass(frozen=True)
class Setting:
    """One name that can be set: what its value may be, and its default ("": the words say it)."""

    name: str
    value: str
    default: str


@dataclass(frozen=True)
class Section:
    """One table of the TOML file. `key` is its name in docs/_settings.toml."""

    key: str
    settings: tuple[Setting, ...]


VALUES: Final[Mapping[str, str]] = {  # by the name of the validator
    "algorithm": "algorithm",
    "all_or_some": "true, false or list of tables",
    "answer_header": "name of a header",
    "base_url": "URL",
    "bind": "HOST:PORT",
    "host": "name or address",
    "claim": "text",
    "directory": "path",
    "request_header": "name of a header",
    "identity": "URI or subject of a certificate",
    "json_path": "names joined by dots",
    "keys_url": "URL",
    "latency": "two durations",
    "method": "method",
    "name": "name: A-Z, a-z, 0-9, dot, underscore, hyphen",
    "number": "whole number",
    "one_or_many": "table, or list of tables",
    "path_prefix": "path",
    "parameter": "name of a parameter",
    "prefix": "text",
    "rate": "calls per time, such as `100/1s`",
    "proxy_url": "URL",
    "status_range": "status",
    "switch": "true or false",
    "token_digest": "digest of a token",
    "variable": "name of a variable",
}


def sections() -> list[Section]:
    """Every table of the TOML file, the file's own names first."""
    return list(_sections("", tables.File))


def environment() -> Section:
    """The variables."""
    fields = tables.Environment.model_fields
    return Section("environment", tuple(Setting(name, _value(info), _default(info)) for name, info in fields.items()))


def _sections(key: str, model: type[BaseModel]) -> Iterator[Section]:
    own: list[Setting] = []
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, info in model.model_fields.items():
        name = info.alias or name
        table = _table_in(info.annotation)
        if table is None or key:
            own.append(Setting(name, _value(info) if table is None else _tables(info), _default(info)))
        if table is not None:
            inner.append((f"{key}.{name}" if key else name, table))
    if key or own:
        yield Section(key, tuple(own))
    for name, table in inner:
        if name.count(".") < 2:  # the limits of keys and groups are the pool's over again
            yield from _sections(name, table)


def _table_in(annotation: Any) -> type[BaseModel] | None:
    """The table that this holds, alone, in a list or by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _table_in(part))), None)


def _tables(info: FieldInfo) -> str:
    for one in info.metadata:
        if isinstance(one, BeforeValidator):
            return _validated(one.func)
    return "list of tables" if "list[" in str(info.annotation) else "table"


def _value(info: FieldInfo) -> str:
    return _shape(info.annotation, list(info.metadata))


def _shape(annotation: Any, metadata: list[Any]) -> str:
    """What the value may be, in words. Raises OutOfStep for a validator that VALUES doesn't know."""
    while True:
        origin, parts = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            metadata += [each for one in parts[1:] for each in (one.metadata if isinstance(one, FieldInfo) else [one])]
            annotation = parts[0]
        elif origin in (Union, types.UnionType):
            annotation = next(part for part in parts if part is not type(None))
        else:
            break
    if origin is list:
        return f"list of {_plural(_shape(parts[0], []))}"
    if origin is dict:
        return "table"
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    for one in metadata:
        if isinstance(one, PlainValidator | AfterValidator | BeforeValidator):
            if one is tables.Milliseconds:
                return f"milliseconds{_bounds(metadata)}"
            if (text := _validated(one.func)) and text != "whole number":
                return text
    known = {int: "whole number", float: "number", bool: "true or false", str: "text", SecretStr: "text, a secret"}
    return f"{known.get(annotation, 'anything')}{_bounds(metadata)}"


def _plural(what: str) -> str:
    return {"status": "statuses"}.get(what, f"{what}s" if what.isalpha() else "names")


def _validated(function: Callable[..., Any]) -> str:
    if function.__qualname__.startswith("duration."):
        found = getclosurevars(function).nonlocals
        low, high = found["low"], found["high"]
        least = "above 0" if low == 1 else f"at least {format_duration(low)}" if low else ""
        most = f"at most {format_duration(high)}" if high < LONGEST else ""
        return ", ".join(filter(None, ("duration", least, most)))
    try:
        return VALUES[function.__name__]
    except KeyError:
        raise OutOfStep(f"VALUES in {Path(__file__).name} has no words for {function.__name__}") from None


def _bounds(metadata: list[Any]) -> str:
    low = next((one.ge for one in metadata if isinstance(one, Ge)), None)
    high = next((one.le for one in metadata if isinstance(one, Le)), None)
    below = next((one.lt for one in metadata if isinstance(one, Lt)), None)
    above = next((one.gt for one in metadata if isinstance(one, Gt)), None)
    if high in (MOST, LONGEST // MILLISECOND):
        high = None  # far above any sensible value
    texts = [f"above {above}" if above is not None else f"{low}" if low is not None else ""]
    texts.append(f"to {high}" if high is not None else f"to below {below:,}" if below is not None else "or more")
    text = " ".join(filter(None, texts))
    return f", {text}" if text != "or more" else ""


def _default(info: FieldInfo) -> str:
    default = info.default
    if default is None or info.is_required() or _table_in(info.annotation) is not None:
        return ""
    if isinstance(default, SecretStr):
        return f"`{default.get_secret_value()}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if default == [(200, 299)]:
        return '`["2xx"]`'
    if isinstance(default, tuple):
        return f"`{default[0]}:{default[1]}`"
    if isinstance(default, str):
        return f"`{default}`"
    if _value(info).startswith("duration"):
        return f"`{format_duration(default)}`"
    if _value(info).startswith("milliseconds"):
        return f"`{default // MILLISECOND}`"
    for power, unit in ((30, "GiB"), (20, "MiB")):
        if isinstance(default, int) and default and default % (1 << power) == 0:
            return f"`{default}` ({default >> power} {unit})"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
