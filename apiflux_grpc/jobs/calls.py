"""A call as JSON: from one line, or from fields that a template has filled.

Rules
- What is wrong is said in the words of whoever wrote the line, not in Python's or protobuf's.
- Names are those of the contract in proto3 JSON, and a length of time is a number of seconds. A body may also be given
  as `json` or `text`, query and headers as an object or, with repeats, as a list of [name, value].
- What `json` holds is carried as it is written: no number, name or escape in it is changed.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import json_format

from apiflux_grpc.core.jsontext import has_half_pair, members
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

_FIELDS: Final = (*(field.json_name for field in pb.Call.DESCRIPTOR.fields), "json", "text")
_KNOWN: Final = frozenset(_FIELDS)
_OF_A_RESULT: Final = {"bodyJson": "json", "bodyText": "text"}  # whose closest name, body, is base64
_STRINGS: Final = ("id", "method", "path", "body")
_PAIRS: Final[dict[str, Callable[..., Message]]] = {"query": pb.QueryParameter, "headers": pb.Header}
_PLAIN: Final = frozenset({"id", "method", "path", "query", "headers"})
_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?")
_LONGEST: Final = 315_576_000_000  # seconds that a Duration can hold


class Carried(str):
    """A JSON document, in the text in which it was written."""

    __slots__ = ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; json alone would take the last of two members with one name."""
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:64]!r} is used twice in one object")
    return data


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"a number of {len(text)} digits is too long") from None


_decode: Final = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer).decode


def parse_json(text: str) -> dict[str, Any]:
    """An object in JSON, its member `json` as Carried. Raises ValueError saying what is wrong with it."""
    try:
        # Most lines have no `json`, and are read in a quarter of the time. An escape may spell the name otherwise.
        if '"json"' not in text and "\\u00" not in text:
            data = _decode(text)
        else:
            data = _object([(name, _member(name, text[start:end])) for name, start, end in members(text)])
    except json.JSONDecodeError as error:
        # What is cut ends with its line, not at the beginning of the next.
        at = min(error.pos, len(text.rstrip()))
        column = json.JSONDecodeError(error.msg, text, at).colno
        raise ValueError(f"not JSON: {error.msg} at column {column}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: it is nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError(f"must be a JSON object, not {type(data).__name__}")
    return data


def _member(name: str, text: str) -> Any:
    return Carried(text) if name == "json" else _decode(text)


def parse_call(line: str) -> pb.Call:
    """One line of JSON as a call. Raises ValueError saying what is wrong with it."""
    return call_of(parse_json(line))


def check_names(data: Mapping[str, object]) -> None:
    """Raises ValueError if a field is none of a call's, or if two of them conflict."""
    for key in data:
        if key not in _KNOWN:
            close = [_OF_A_RESULT[key]] if key in _OF_A_RESULT else difflib.get_close_matches(key, _FIELDS, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; a call has {', '.join(_FIELDS)}"
            raise ValueError(f"unknown field {key[:64]!r}{hint}")
    bodies = [key for key in ("body", "json", "text") if key in data]
    if len(bodies) > 1:
        raise ValueError(f"{' conflicts with '.join(bodies[:2])}; set one of them")


def call_of(data: dict[str, Any]) -> pb.Call:
    """A call from its fields, with `json` as Carried; takes `data` apart. Raises ValueError."""
    is_usual = data.keys() <= _PLAIN
    if not is_usual:
        check_names(data)
    lists: dict[str, Any] = {key: _pairs(key, data.pop(key)) for key in _PAIRS if key in data}
    if is_usual:  # without the detour over json_format
        try:
            return pb.Call(**data, **lists)
        except (TypeError, ValueError):
            pass  # the way below tells better what is wrong
    body: bytes | None = None
    if "json" in data:
        body = _json_body(data.pop("json"))
        headers = lists.setdefault("headers", [])
        if not any(header.name.lower() == "content-type" for header in headers):
            headers.append(pb.Header(name="Content-Type", value="application/json"))
    elif "text" in data:
        text = data.pop("text")
        if not isinstance(text, str):
            raise ValueError("text must be a string")
        try:
            body = text.encode()
        except UnicodeEncodeError:
            raise ValueError("text has half of a surrogate pair, which UTF-8 can't carry") from None
    _check_kinds(data)
    timeout = _nanoseconds(data.pop("timeout", None))
    try:
        call = json_format.ParseDict(data, pb.Call())
    except json_format.ParseError as error:
        if "cost" in str(error):
            raise ValueError("cost must be a whole number below 2^63") from None
        raise ValueError(str(error).replace("apiflux.v1.Call", "a call")) from None
    call.MergeFrom(pb.Call(**lists))
    if body is not None:
        call.body = body
    if timeout is not None:
        call.timeout.FromNanoseconds(timeout)
    return call


def _pairs(key: str, given: object) -> list[Any]:
    """The messages of a call's query or headers. Raises ValueError."""
    if not isinstance(given, dict | list | None):
        raise ValueError(f"{key} must be an object, or a list of [name, value]")
    made: list[Any] = []
    for place, pair in enumerate(given.items() if isinstance(given, dict) else given or ()):
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ValueError(f"{key}[{place}] must be [name, value]")
        name, value = pair
        where = f"{key}.{name[:64]}" if isinstance(given, dict) else f"{key}[{place}]"
        if not isinstance(value, str):
            raise ValueError(f"{where} must be a string" if isinstance(given, dict) else f"{where} must be two strings")
        try:
            made.append(_PAIRS[key](name=name, value=value))
        except UnicodeEncodeError:
            raise ValueError(f"{where} has half of a surrogate pair, which UTF-8 can't carry") from None
    return made


def _check_kinds(data: Mapping[str, object]) -> None:
    """Raises ValueError for what protobuf would report in Python's words."""
    for key in _STRINGS:
        if not isinstance(data.get(key), str | None):
            raise ValueError(f"{key} must be a string")
    if not isinstance(data.get("idempotent"), bool | None):
        raise ValueError("idempotent must be true or false")


def _json_body(document: Carried) -> bytes:
    try:
        if not has_half_pair(document):
            return document.encode()
    except UnicodeEncodeError:  # not as an escape, but as itself
        pass
    raise ValueError("json has half of a surrogate pair, which UTF-8 can't carry")


def _nanoseconds(seconds: object) -> int | None:
    """Of a timeout in seconds: a number, or one as text, which is all that a template can make of a column."""
    if seconds is None:
        return None
    if isinstance(seconds, str):
        number = seconds.removesuffix("s")
        if not _SECONDS.fullmatch(number):
            raise ValueError("timeout must be a number of seconds")
        if number != seconds:
            raise ValueError(f"timeout is a number of seconds: write {number[:64]}, not {seconds[:64]!r}")
        seconds = float(number)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds != seconds:  # NaN alone differs
        raise ValueError("timeout must be a number of seconds")
    if abs(seconds) > _LONGEST:
        raise ValueError("timeout is too long")
    return round(seconds * 1_000_000_000)
