"""A call as JSON: from one line, or from fields that a template has filled.

Rules
- What is wrong is said in the words of whoever wrote the line, not in Python's or protobuf's.
- Names are those of the contract in proto3 JSON, and a length of time is a number of seconds. A body may also be given
  as `json` or `text`, query and headers as an object or, with repeats, as a list of [name, value].
- What `json` holds is carried as it is written: no number, name or escape in it is changed.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from typing import TYPE_CHECKING, Any, Final

from apiflux_grpc.core.jsontext import members, scan
from apiflux_grpc.jobs import values
from apiflux_grpc.jobs.values import Carried
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# In the order of the contract, which an error lists them in.
_READ: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "id": values.string,
    "method": values.string,
    "path": values.string,
    "query": values.pairs,
    "headers": values.pairs,
    "body": values.base64,
    "timeout": values.seconds,
    "cost": values.whole,
    "idempotent": values.boolean,
    "json": values.document,
    "text": values.text,
}
_ONE_LINE: Final = "; write each call on one line"  # for documents of several lines, and for arrays
IS_JSON: Final = pb.Header(name="Content-Type", value="application/json")
_KINDS: Final = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
_OF_A_RESULT: Final = {"bodyJson": "json", "bodyText": "text"}  # whose closest name, body, is base64


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


_HOLE: Final = float("nan")
_CONSTANTS: Final = {"NaN": _HOLE, "Infinity": float("inf"), "-Infinity": float("-inf")}
_decode: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_constant=_CONSTANTS.__getitem__
).decode


def parse_json(text: str, carried: str = "json") -> dict[str, Any]:
    """An object in JSON, its member `carried` as Carried. Raises ValueError saying what is wrong with it."""
    try:
        # An escape may spell the name otherwise.
        has_none = f'"{carried}"' not in text and "\\u00" not in text
        data = _decode(text) if has_none else _with_document(text, carried)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {_explained(error, text)}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: it is nested too deeply") from None
    if not isinstance(data, dict):
        hint = _ONE_LINE if isinstance(data, list) else ""
        raise ValueError(f"must be a JSON object, not {_KINDS[type(data)]}{hint}")
    return data


def _with_document(text: str, carried: str) -> Any:
    """The same of a line that has the member. Raises as json does."""
    # Usually the name is there once. With a hole in place of its value json reads the line, much faster than we do;
    # whatever else it may be, with a hole somewhere within or no JSON at all, is then looked at member by member.
    with contextlib.suppress(ValueError):
        if "NaN" not in text and (found := re.search(f'"{carried}"[ \\t]*:[ \\t]*', text)):
            start = found.end()
            _, end = scan(text, start)
            data = _decode(f"{text[:start]}NaN{text[end:]}")
            if isinstance(data, dict) and data.get(carried) is _HOLE:
                data[carried] = Carried(text[start:end])
                return data
    return _object(
        [
            (name, Carried(text[start:end]) if name == carried else _decode(text[start:end]))
            for name, start, end in members(text)
        ]
    )


def _explained(error: json.JSONDecodeError, text: str) -> str:
    """What is wrong and where, with the line if there are several, as in a template."""
    # What is cut ends with its line, not at the beginning of the next.
    found = json.JSONDecodeError(error.msg, text, min(error.pos, len(text.rstrip())))
    line = f"line {found.lineno}, " if "\n" in text.strip() else ""
    hint = _ONE_LINE if text.strip() in ("[", "{") else ""
    return f"{error.msg.removesuffix(' at')} at {line}column {found.colno}{hint}"


def parse_value(text: str) -> Any:
    """A document that is JSON. Raises ValueError if a name is used twice in it, or a number is too long."""
    return _decode(text)


def parse_call(line: str) -> pb.Call:
    """One line of JSON as a call. Raises ValueError saying what is wrong with it."""
    return call_of(parse_json(line))


def check_names(data: Mapping[str, object]) -> None:
    """Raises ValueError if a field is none of a call's, or if two of them conflict."""
    if not data.keys() <= _READ.keys():
        key = next(key for key in data if key not in _READ)
        close = [_OF_A_RESULT[key]] if key in _OF_A_RESULT else difflib.get_close_matches(key, _READ, 1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; a call has {', '.join(_READ)}"
        raise ValueError(f"unknown field {key[:64]!r}{hint}")
    if ("body" in data) + ("json" in data) + ("text" in data) > 1:
        bodies = [key for key in ("body", "json", "text") if key in data]
        raise ValueError(f"{' conflicts with '.join(bodies[:2])}; set one of them")


def call_of(data: Mapping[str, Any]) -> pb.Call:
    """A call from its fields, with `json` as Carried. Raises ValueError."""
    check_names(data)
    fields: dict[str, Any] = {
        key: _READ[key](key, given) for key, given in data.items() if given is not None or key == "text"
    }
    if "json" in fields:
        fields["body"] = fields.pop("json")
        headers = fields.setdefault("headers", [])
        if not any(header.name.lower() == "content-type" for header in headers):
            headers.append(IS_JSON)
    elif "text" in fields:
        fields["body"] = fields.pop("text")
    return pb.Call(**fields)
