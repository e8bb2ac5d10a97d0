"""The contract's enums as words: LIMITED for REASON_LIMITED, and back.

Rule: a value that this version of the contract doesn't know is its number, so that a newer server breaks no client.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor

_RENAMED: Final = {"HTTP_429": "LIMITED"}  # the closest word, HTTP_4XX, is another reason


@lru_cache(maxsize=256)  # a server may send any number
def word_of(kind: EnumDescriptor, number: int) -> str:
    """The word of a value; "" for the unspecified one."""
    value = kind.values_by_number.get(number)
    if value is None:
        return str(number)
    return value.name.removeprefix(_prefix(kind)) if number else ""


def reason_of(word: str) -> pb.Reason.ValueType:
    """The value of a word such as TIMEOUT. Raises ValueError."""
    kind = pb.Reason.DESCRIPTOR
    value = kind.values_by_name.get(f"{_prefix(kind)}{word}")
    if value is None or not value.number:
        import difflib  # slow to import, and only mistakes need it

        words = [word_of(kind, number) for number in kind.values_by_number if number]
        close = [_RENAMED[word]] if word in _RENAMED else difflib.get_close_matches(word, words, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(words)}"
        raise ValueError(f"{word!r} is not the word of a reason; {hint}")
    return pb.Reason.Value(value.name)


def _prefix(kind: EnumDescriptor) -> str:
    """Every value is named after its enum's unspecified one."""
    name: str = kind.values_by_number[0].name
    return name.removesuffix("UNSPECIFIED")
