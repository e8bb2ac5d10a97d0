"""A proto3 JSON value made into a message, with every fault named by its field path.

Rule: what is wrong is refused and never repaired. protobuf's own reader drops from a body what isn't base64 and decodes
the rest, repeats in its errors whatever stood there, and makes its tables anew for each message: five times the work.

What a field may be is read from its descriptor, once, when this is imported; a kind of field that no request has yet is
a KeyError then, and not a wrong value later.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.duration_pb2 import Duration

from apiflux_grpc.core.checks import Fault
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor, EnumDescriptor

LONGEST_NAME: Final = 64  # characters of a name that a fault repeats
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}").fullmatch


class _Wrong(Exception):
    """What a value must be."""


class _Field(NamedTuple):
    """`read` makes the value; None: it is a message with fields of its own, those of `table`."""

    name: str
    json_name: str
    is_repeated: bool
    read: Callable[[Any], Any] | None
    is_message: bool
    table: dict[str, _Field]


def fill(message: Any, value: object, faults: list[Fault], at: str = "") -> None:
    """Put the fields of a JSON object into `message`, which is a ProcessRequest or a message that is in one.

    `at` is the path of the message. `faults` gets what is wrong, and the rest of the message is as it should be.
    """
    _fill(message, value, faults, at, _TABLES[message.DESCRIPTOR.full_name])


def _fill(message: Any, value: object, faults: list[Fault], at: str, table: dict[str, _Field]) -> None:
    if not isinstance(value, dict):
        faults.append(Fault(at or "request", "must be an object"))
        return
    for name, one in value.items():
        field = table.get(name)
        if field is None:
            known = ", ".join(dict.fromkeys(field.json_name for field in table.values()))
            faults.append(Fault(_joined(at, name[:LONGEST_NAME]), f"is no field of this; use {known}"))
        elif name != field.json_name and field.json_name in value:
            faults.append(Fault(_joined(at, field.json_name), f"is there twice, as {name} too; remove one"))
        elif one is not None:  # null is how proto3 JSON spells an absent field
            _put(message, field, one, faults, _joined(at, field.json_name))


def _put(message: Any, field: _Field, value: Any, faults: list[Fault], at: str) -> None:
    if not field.is_repeated:
        if field.read is None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            _fill(inner, value, faults, at, field.table)
            return
        try:
            read = field.read(value)
        except _Wrong as wrong:
            faults.append(Fault(at, str(wrong)))
            return
        if field.is_message:
            getattr(message, field.name).CopyFrom(read)
        else:
            setattr(message, field.name, read)
        return
    if not isinstance(value, list):
        faults.append(Fault(at, "must be a list"))
        return
    items = getattr(message, field.name)
    for place, one in enumerate(value):
        if field.read is None:
            _fill(items.add(), one, faults, f"{at}[{place}]", field.table)
            continue
        try:
            items.append(field.read(one))
        except _Wrong as wrong:
            faults.append(Fault(f"{at}[{place}]", str(wrong)))


def _joined(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


# -- values ------------------------------------------------------------------------------------


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise _Wrong("must be a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Wrong("has half of a surrogate pair") from None
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, str):
        raise _Wrong("must be base64")
    bare = value.rstrip("=")
    if "-" in bare or "_" in bare:
        bare = bare.replace("-", "+").replace("_", "/")
    try:
        return a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
    except ValueError:
        raise _Wrong("must be base64") from None


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("must be true or false, without quotes")
    return value


def _integer(bits: int) -> Callable[[object], int]:
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1

    def read(value: object) -> int:
        number: int | None = None
        if isinstance(value, str):
            number = int(value) if _INTEGER(value) else None
        elif isinstance(value, float):
            number = int(value) if value.is_integer() else None
        elif isinstance(value, int) and not isinstance(value, bool):
            number = value
        if number is None or not low <= number <= high:
            raise _Wrong(f"must be a whole number from {low} to {high}")
        return number

    return read


def _enum(enum: EnumDescriptor | None) -> Callable[[object], int]:
    assert enum is not None
    numbers = {name: value.number for name, value in enum.values_by_name.items()}
    number = _integer(32)

    def read(value: object) -> int:
        if not isinstance(value, str):
            return number(value)
        if value not in numbers:
            raise _Wrong(f"must be a {enum.name}, such as {list(numbers)[1]}")
        return numbers[value]

    return read


def _duration(value: object) -> Duration:
    duration = Duration()
    try:
        duration.FromJsonString(_string(value))
    except ValueError:
        raise _Wrong('must be seconds, such as "1.5s"') from None
    return duration


_SCALARS: Final[dict[int, Callable[[Any], Any]]] = {
    F.TYPE_STRING: _string,
    F.TYPE_BYTES: _bytes,
    F.TYPE_BOOL: _bool,
    F.TYPE_INT32: _integer(32),
    F.TYPE_INT64: _integer(64),
}
_TABLES: Final[dict[str, dict[str, _Field]]] = {}


def _table(message: Descriptor | None) -> dict[str, _Field]:
    """The fields by both of their names, which proto3 JSON allows."""
    assert message is not None
    if message.full_name in _TABLES:
        return _TABLES[message.full_name]
    table = _TABLES[message.full_name] = {}
    for field in message.fields:
        read: Callable[[Any], Any] | None = None
        inner: dict[str, _Field] = {}
        if field.type == F.TYPE_ENUM:
            read = _enum(field.enum_type)
        elif field.type != F.TYPE_MESSAGE:
            read = _SCALARS[field.type]
        elif field.message_type is Duration.DESCRIPTOR:
            read = _duration
        else:
            inner = _table(field.message_type)
        made = _Field(field.name, field.json_name, field.is_repeated, read, field.type == F.TYPE_MESSAGE, inner)
        table[field.json_name] = table[field.name] = made
    return table


_table(pb.ProcessRequest.DESCRIPTOR)
