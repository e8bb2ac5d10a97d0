"""A message of a response as JSON: as protobuf's own printer has it with all fields, in two fifths of its time.

Rule: what this can't print by itself, protobuf's printer prints: an error of a call, which is rare. How a field is
printed is read from its descriptor, once, when this is imported.
"""

from __future__ import annotations

import json
from binascii import b2a_base64
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.json_format import MessageToDict

from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor


class _Field(NamedTuple):
    """`may_be_absent`: it is printed only if it is set."""

    name: str
    json_name: str
    may_be_absent: bool
    is_repeated: bool
    show: Callable[[Any], object] | None  # None: as it is


def line_of(response: pb.ProcessResponse) -> bytes:
    """A message on a line of its own."""
    return _ENCODE(_RESPONSE(response)).encode() + b"\n"


def _printer(message: Descriptor) -> Callable[[Any], object]:
    if special := _SPECIAL.get(message.full_name):
        return special
    fields = [_field(field) for field in message.fields]
    # Apart, since to ask whether a field is set takes as long as to read it.
    always = [field[:2] + field[3:] for field in fields if not field.may_be_absent]
    others = [field for field in fields if field.may_be_absent]

    def printed(one: Any) -> dict[str, object]:
        told: dict[str, object] = {}
        for name, json_name, is_repeated, show in always:
            value = getattr(one, name)
            if is_repeated:
                told[json_name] = [*value] if show is None else [show(item) for item in value]
            else:
                told[json_name] = value if show is None else show(value)
        for field in others:
            if one.HasField(field.name):
                value = getattr(one, field.name)
                told[field.json_name] = value if field.show is None else field.show(value)
        return told

    return printed


def _field(field: F) -> _Field:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        show: Callable[[Any], object] | None = _counts
        assert (kind.fields_by_name["key"].type, kind.fields_by_name["value"].type) == (F.TYPE_STRING, F.TYPE_INT64)
        return _Field(field.name, field.json_name, False, False, show)
    if kind is not None:
        show = _printer(kind)
    elif field.type == F.TYPE_ENUM:
        assert field.enum_type is not None
        show = {number: value.name for number, value in field.enum_type.values_by_number.items()}.__getitem__
    else:
        show = _SCALARS[field.type]
    return _Field(field.name, field.json_name, field.has_presence, field.is_repeated, show)


def _counts(value: Any) -> dict[str, str]:
    return {key: str(count) for key, count in value.items()}


def _base64(value: bytes) -> str:
    return b2a_base64(value, newline=False).decode()


def _double(value: float) -> object:
    """0.5, and 3 for 3.0, as protobuf's printer has it."""
    return int(value) if value.is_integer() else value


def _duration(value: Any) -> str:
    """With as many digits as it needs: none, three, six or nine."""
    nanos = value.nanos
    if nanos <= 0:
        return str(value.ToJsonString())
    if nanos % 1_000:
        return f"{value.seconds}.{nanos:09}s"
    return str(value.ToJsonString())


_SCALARS: Final[dict[int, Callable[[Any], object] | None]] = {
    F.TYPE_STRING: None,
    F.TYPE_BOOL: None,
    F.TYPE_INT32: None,
    F.TYPE_INT64: str,
    F.TYPE_BYTES: _base64,
    F.TYPE_DOUBLE: _double,
}
_SPECIAL: Final[dict[str, Callable[[Any], object]]] = {
    "google.protobuf.Duration": _duration,
    "google.protobuf.Timestamp": lambda value: value.ToJsonString(),
    "google.rpc.Status": lambda value: MessageToDict(value, always_print_fields_with_no_presence=True),
}
_RESPONSE: Final = _printer(pb.ProcessResponse.DESCRIPTOR)
_ENCODE: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
