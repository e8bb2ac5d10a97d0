"""The template that makes a call out of a row of CSV.

Rules
- A template is a call in JSON whose strings may have {column}; `{{` is a brace. A value goes into the path
  percent-encoded, as one segment at most, and anywhere else as it is; names of members are not filled in.
- A string that is "{column:json}" and nothing else is the JSON that the column holds: a number, say, or an array.
- What `json` holds is carried: its numbers keep their text, and names that are used twice stay.
- A column that doesn't exist is reported before the first row is read. A row's id is its column `id`, unless the
  template has one.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

from apiflux_grpc.core.jsontext import depth, document
from apiflux_grpc.jobs.calls import check_names, parse_json, parse_value
from apiflux_grpc.jobs.values import Carried

_DEEPEST: Final = 100  # filling it in takes some calls per level

Row = Sequence[str]
Fill = Callable[[Row], Any]


class _Number(str):
    """In the text in which it was written."""

    __slots__ = ()


class _Members(list[tuple[str, Any]]):
    """Those of an object, in their order, names that are used twice included."""

    __slots__ = ()


_decode: Final = json.JSONDecoder(object_pairs_hook=_Members, parse_int=_Number, parse_float=_Number).decode
_quote: Final = json.JSONEncoder(ensure_ascii=False).encode
_PART: Final = re.compile(r"(\{\{|\}\}|\{[^{}]*\}|[{}])")
_AS_JSON: Final = re.compile(r"\{([^{}]*):\s*json\s*\}").fullmatch


class Template:
    """A template as it was given. Raises ValueError if it isn't one."""

    def __init__(self, text: str) -> None:
        try:
            data = parse_json(text)
            check_names(data)
            if depth(data.get("json", "")) > _DEEPEST:
                raise ValueError("json is nested too deeply")
        except ValueError as error:
            raise ValueError(f"the template is not a call: {error}") from None
        self._data: dict[str, Any] = data

    def bind(self, columns: Sequence[str]) -> Callable[[Row], dict[str, Any]]:
        """A function from a row to the fields of its call. Raises ValueError if a column doesn't exist."""
        for place, name in enumerate(columns):
            if name and name in columns[:place]:
                raise ValueError(f"the header has two columns {name!r}; rename one of them")
        fields = {key: _filler(value, key, columns) for key, value in self._data.items()}
        if "id" not in fields and "id" in columns:
            own = columns.index("id")
            fields["id"] = lambda row: row[own]
        return lambda row: {key: fill(row) for key, fill in fields.items()}


def _filler(value: object, where: str, columns: Sequence[str]) -> Fill:
    if isinstance(value, Carried):
        fill = _carried(_decode(value), where, columns)
        return lambda row: Carried(fill(row))
    if isinstance(value, str):
        if read := _column(value, where, columns):
            return lambda row: parse_value(read(row))
        return _text(value, where, columns)
    if isinstance(value, dict):
        for key in value:
            _check_name(key, where)
        members = {key: _filler(member, f"{where}.{key}", columns) for key, member in value.items()}
        return lambda row: {key: fill(row) for key, fill in members.items()}
    if isinstance(value, list):
        items = [_filler(item, f"{where}[{place}]", columns) for place, item in enumerate(value)]
        return lambda row: [fill(row) for fill in items]
    return lambda row: value


def _carried(value: object, where: str, columns: Sequence[str]) -> Callable[[Row], str]:
    """A function from a row to the text of a value of `json`."""
    if isinstance(value, _Number):
        return lambda row: value
    if isinstance(value, str):
        if read := _column(value, where, columns):
            return read
        text = _text(value, where, columns)
        return lambda row: _quote(text(row))
    if isinstance(value, _Members):
        for name, _ in value:
            _check_name(name, where)
        members = [(f"{_quote(name)}:", _carried(member, f"{where}.{name}", columns)) for name, member in value]
        return lambda row: f"{{{','.join([name + fill(row) for name, fill in members])}}}"
    if isinstance(value, list):
        items = [_carried(item, f"{where}[{place}]", columns) for place, item in enumerate(value)]
        return lambda row: f"[{','.join([fill(row) for fill in items])}]"
    constant = _quote(value)
    return lambda row: constant


def _check_name(name: str, where: str) -> None:
    if "{" in name or "}" in name:
        raise ValueError(
            f"the template's {where} has a brace in the name {name[:64]!r}; only values can have {{column}}"
        )


def _column(text: str, where: str, columns: Sequence[str]) -> Callable[[Row], str] | None:
    """A function from a row to the JSON of the column that a "{column:json}" names; None: it is something else."""
    found = _AS_JSON(text)
    if found is None or text[1:-1].strip() in columns:  # a column may have such a name
        return None
    name = found[1].strip()
    place = _place(name, where, columns)

    def read(row: Row) -> str:
        value = row[place]
        try:
            return document(value)
        except json.JSONDecodeError as error:
            if not value.strip():
                raise ValueError(f"column {name!r} is empty; as JSON it needs a value, such as null") from None
            why = f"{error.msg.removesuffix(' at')} at character {error.pos + 1}"
        except RecursionError:
            why = "it is nested too deeply"
        except ValueError as error:
            why = str(error)
        raise ValueError(f"column {name!r} has {value[:64]!r}, which is not JSON: {why}")

    return read


def _text(text: str, where: str, columns: Sequence[str]) -> Fill:
    parts: list[str | int] = []
    for part in _PART.split(text):
        if part in ("{{", "}}"):
            parts.append(part[0])
        elif part in ("{", "}"):
            raise ValueError(f"the template's {where} has a single {part!r}; write {part * 2!r} for a brace")
        elif part.startswith("{"):
            parts.append(_place(part[1:-1].strip(), where, columns))
        elif part:
            parts.append(part)
    encode: Callable[[str], str] = _segment if where == "path" else str
    return lambda row: "".join(part if isinstance(part, str) else encode(row[part]) for part in parts)


def _segment(value: str) -> str:
    return quote(value, safe="")


def _place(name: str, where: str, columns: Sequence[str]) -> int:
    if name and name in columns:
        return columns.index(name)
    if _AS_JSON(f"{{{name}}}"):
        raise ValueError(f"the template's {where} has {{{name}}} within a text; only a whole string can be JSON")
    columns = [column for column in columns if column]
    close = difflib.get_close_matches(name, columns, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"the columns are {', '.join(map(repr, columns[:20]))}"
    raise ValueError(f"the template's {where} has {{{name}}}, but the header has no such column; {hint}")
