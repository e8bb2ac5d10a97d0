"""The fields of a call, from what JSON has for them to what the message has.

Rule: each function takes what is given for the field `key`, never None, and raises ValueError with what to write
instead, in the words of whoever wrote the line.
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.duration_pb2 import Duration

from apiflux_grpc.core.jsontext import has_half_pair
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

_FORMS: Final = "give text as `text`, a JSON document as `json`"
_HALF: Final = "has half of a surrogate pair, which UTF-8 can't carry"
# Both alphabets, with or without padding: Python's decoder passes over every other character, and sends the rest.
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/_-]{4})*(?:[A-Za-z0-9+/_-]{2,3}={0,2})?").fullmatch
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,19}").fullmatch
_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?")
_LONGEST: Final = 315_576_000_000  # seconds that a Duration can hold


class Carried(str):
    """A JSON document, in the text in which it was written."""

    __slots__ = ()


def string(key: str, given: object) -> str:
    """A text, as it is."""
    if not isinstance(given, str):
        raise ValueError(f"{key} must be a string")
    if not given.isascii():
        _utf8(key, given)
    return given


def pairs(key: str, given: Any) -> list[Any]:
    """The messages of a call's query or headers."""
    is_object = isinstance(given, dict)
    if not is_object and not isinstance(given, list):
        raise ValueError(f"{key} must be an object, or a list of [name, value]")
    make: Callable[..., Any] = pb.QueryParameter if key == "query" else pb.Header
    made: list[Any] = []
    for place, pair in enumerate(given.items() if is_object else given):
        if not is_object and (not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str)):
            raise ValueError(f"{key}[{place}] must be [name, value]")
        name, value = pair
        try:
            if isinstance(value, str):
                made.append(make(name=name, value=value))
                continue
            wrong = "must be a string" if is_object else "must be two strings"
        except UnicodeEncodeError:
            wrong = _HALF
        raise ValueError(f"{key}.{name[:64]} {wrong}" if is_object else f"{key}[{place}] {wrong}")
    return made


def base64(key: str, given: object) -> bytes:
    """Bytes, given in base64."""
    if not isinstance(given, str):
        raise ValueError(f"{key} must be a string in base64; {_FORMS}")
    if not _BASE64(given):
        raise ValueError(f"{key} is not base64; {_FORMS}")
    digits = given.rstrip("=").replace("-", "+").replace("_", "/")
    return binascii.a2b_base64(digits + "=" * (-len(digits) % 4))


def text(key: str, given: object) -> bytes:
    """A text, in UTF-8."""
    if not isinstance(given, str):
        raise ValueError(f"{key} must be a string")
    return _utf8(key, given)


def document(key: str, given: Carried) -> bytes:
    """A JSON document, as it was written."""
    if has_half_pair(given):
        raise ValueError(f"{key} {_HALF}")
    return _utf8(key, given)


def whole(key: str, given: object) -> int:
    """A whole number, be it as text, which is all that a template can make of a column."""
    if isinstance(given, str):
        if _WHOLE(given):
            given = int(given)
        else:
            try:
                given = float(given)
            except ValueError:
                given = None
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int) or not -1 << 63 <= given < 1 << 63:
        raise ValueError(f"{key} must be a whole number below 2^63")
    return given


def boolean(key: str, given: object) -> bool:
    """true or false."""
    if not isinstance(given, bool):
        raise ValueError(f"{key} must be true or false")
    return given


def seconds(key: str, given: object) -> Duration:
    """A length of time in seconds: a number, be it as text."""
    if isinstance(given, str):
        number = given.removesuffix("s")
        if not _SECONDS.fullmatch(number):
            raise ValueError(f"{key} must be a number of seconds")
        if number != given:
            raise ValueError(f"{key} is a number of seconds: write {number[:64]}, not {given[:64]!r}")
        given = float(number)
    if isinstance(given, bool) or not isinstance(given, int | float) or given != given:  # NaN alone differs
        raise ValueError(f"{key} must be a number of seconds")
    if abs(given) > _LONGEST:
        raise ValueError(f"{key} is too long")
    duration = Duration()
    duration.FromNanoseconds(round(given * 1_000_000_000))
    return duration


def _utf8(key: str, given: str) -> bytes:
    try:
        return given.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{key} {_HALF}") from None
