"""What a caller passes for a call, as the contract has it: query and headers as pairs of strings, a body as bytes.

Rule: what can't be sent is refused, and the error names the field as its caller wrote it: `headers.X-Tag`,
`query[2]`. Protobuf would say only "bad argument type for built-in operation".
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

Text: TypeAlias = tuple[tuple[str, str], ...]
Value: TypeAlias = str | int | float | bool | None
Params: TypeAlias = Mapping[str, Value | Sequence[Value]] | Sequence[tuple[str, Value]]

_NO_UTF8: Final = "has half of a surrogate pair, which UTF-8 can't carry"


def query_of(name: str, given: Params) -> Text:
    """A query, its values written as httpx writes them: `true`, `false`, nothing for None; a list repeats its name.

    Raises TypeError, ValueError; `name` is that of the parameter.
    """
    found: list[tuple[str, str]] = []
    for where, key, value in _items(name, given):
        several = isinstance(given, Mapping) and isinstance(value, list | tuple)
        found += [(key, _written(where, one)) for one in (value if several else (value,))]
    return tuple(found)


def text_pairs(name: str, given: object) -> Text:
    """Pairs of strings, as headers are. Raises TypeError, ValueError; `name` is that of the parameter."""
    return tuple((key, text(where, value)) for where, key, value in _items(name, given))


def text(where: str, value: object) -> str:
    """A string that can be sent. Raises TypeError, ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"{where} must be a string, not {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where} {_NO_UTF8}") from None
    return value


def number(where: str, value: object, kinds: type[int] | tuple[type[int], type[float]], what: str) -> None:
    """Raises TypeError if it is neither such a number nor None, ValueError for one that is NaN or infinite."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{where} must be {what}, not {_kind(value)}")
    if value - value != 0:  # NaN and infinity alone
        raise ValueError(f"{where} must be {what}, not {value}")


def body_of(json: Any, content: object, text: object) -> tuple[bytes, str]:
    """(the body, its Content-Type, "": not known) of what was given of the three; None: it wasn't.

    JSON is written as httpx writes it. Raises TypeError, ValueError.
    """
    given = [name for name, value in (("json", json), ("content", content), ("text", text)) if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' conflicts with '.join(given[:2])}; set one of them")
    if json is not None:
        return _json(json), "application/json"
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content), ""
    name, value = ("text", text) if content is None else ("content", content)
    if value is None:
        return b"", ""
    if not isinstance(value, str):
        kinds = "a string" if name == "text" else "bytes or a string"
        raise TypeError(f"{name} must be {kinds}, not {_kind(value)}")
    try:
        return value.encode(), ""
    except UnicodeEncodeError:
        raise ValueError(f"{name} {_NO_UTF8}") from None


def _json(document: Any) -> bytes:
    try:
        written = jsonlib.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return written.encode()
    except UnicodeEncodeError:
        raise ValueError(f"json {_NO_UTF8}") from None
    except RecursionError:
        raise ValueError("json is nested too deeply") from None
    except TypeError as error:
        raise TypeError(f"json can't be written: {error}") from None
    except ValueError as error:
        raise ValueError(f"json can't be written: {error}") from None


def _items(name: str, given: object) -> Iterable[tuple[str, str, Any]]:
    """(where it is, name, value) of each. Raises TypeError, ValueError."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            yield f"{name}.{str(key)[:64]}", text(f"a name in {name}", key), value
        return
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(f"{name} must be a mapping, or a list of (name, value), not {_kind(given)}")
    for place, pair in enumerate(given):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError(f"{name}[{place}] must be (name, value)")
        yield f"{name}[{place}]", text(f"the name in {name}[{place}]", pair[0]), pair[1]


def _written(where: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else text(where, value)


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__
