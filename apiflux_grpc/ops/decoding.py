"""The text of a request on its way to the message: JSON in, a ProcessRequest out.

Rule: nothing that a caller sends is read as a whole at once. A call is found in the text, bounded by how many values
it has, decoded and put into the message, and after some of them the loop gets a turn: so beside itself a text costs
what one call does, and none stops other answers. One pattern finds where a value ends before any becomes an object.
"""

from __future__ import annotations

import json
import re
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NoReturn

from apiflux_grpc.core.checks import MOST_FIELDS, Fault, Faults, too_large
from apiflux_grpc.core.errors import BatchTooLarge, InvalidRequest
from apiflux_grpc.ops.proto3json import LONGEST_NAME, fill
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

SLICE: Final = 200  # calls read without giving the loop a turn: some 5 ms
SLICE_CHARS: Final = 1 << 20
MOST_NAMES: Final = 100  # members of a request; there are seven
# A call with as many headers and query parameters as it may have: each is an object of two members.
MOST_VALUES: Final = 10 * MOST_FIELDS
_SHORT: Final = 50_000  # characters; a shorter value can't have too many values in it
DEEPEST: Final = 6  # a request has four levels: repeat.template.headers[0]

_BOM: Final = b"\xef\xbb\xbf".decode("latin-1")  # some editors begin a file with a byte order mark
_SPACE: Final = re.compile(r"[ \t\n\r]*+").match
_STRING: Final = r'"(?:[^"\\]++|\\.)*+"'


def _value() -> str:
    inner = rf'(?:[^"{{}}\[\]]++|{_STRING})*+'
    for _ in range(DEEPEST - 1):
        inner = rf'(?:[^"{{}}\[\]]++|{_STRING}|[\[{{]{inner}[\]}}])*+'
    return rf'[\[{{]{inner}[\]}}]|{_STRING}|[^",:\[\]{{}} \t\n\r]++'


# Where a value ends, if it is JSON; whether it is, the decoder says. The quantifiers are possessive: so each character
# is looked at once, whatever they are.
_VALUE: Final = re.compile(_value(), re.DOTALL).match
# The same for values that are looked at in pieces.
_MARK: Final = re.compile(r'["\[\]{}]').search
_IN_STRING: Final = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL).match
_DEEP: Final = f"expected a value, whole and nested at most {DEEPEST} deep"
_MANY: Final = f"this has more than {MOST_VALUES} values in it"


class _NotJson(Exception):
    def __init__(self, at: int, why: str) -> None:
        super().__init__(why)
        self.at = at


class Decoding:
    """One body. `slices()` does the work; then `request` is the message, whose fields are of the right type."""

    def __init__(self, body: bytes | bytearray, *, max_calls: int) -> None:
        self.request = pb.ProcessRequest()
        # A character for each byte, and what has others in it is read as UTF-8 when its turn comes: a text that has one
        # rare character takes four times as much. Marks of JSON are no part of a character in UTF-8.
        self._text = body.decode("latin-1").removeprefix(_BOM)
        self._max_calls = max_calls
        self._faults = Faults()

    def slices(self) -> Iterator[None]:
        """Read everything; yields when the loop may take a turn. Raises InvalidRequest, BatchTooLarge."""
        try:
            yield from self._read()
        except _NotJson as fault:
            raise InvalidRequest([Fault("request", f"{_place(self._text, fault.at)}: {fault}")]) from None
        if self._faults.told:
            raise InvalidRequest(self._faults.told, self._faults.more)

    def _read(self) -> Iterator[None]:
        at = self._expect("{", _after_space(self._text, 0), "a request is an object, and begins with {")
        names: set[str] = set()
        rest: dict[str, object] = {}
        while not (names or self._text.startswith("}", at)) or self._text.startswith(",", at):
            if names:
                at = _after_space(self._text, at + 1)
            place = at
            name, at = yield from self._one(at)
            if not isinstance(name, str):
                raise _NotJson(place, "expected a name in quotes")
            if name in names:
                raise _NotJson(place, f"{name[:LONGEST_NAME]} is there twice")
            names.add(name)
            if len(names) > MOST_NAMES:
                raise _NotJson(place, f"a request has fewer than {MOST_NAMES} fields")
            at = self._expect(":", at, "expected a colon")
            if name == "calls" and self._text.startswith("[", at):
                at = yield from self._calls(at)
            else:
                rest[name], at = yield from self._one(at)
        end = self._expect("}", at, "expected a comma or }")
        if end != len(self._text):
            raise _NotJson(end, "something follows the request")
        found: list[Fault] = []
        fill(self.request, rest, found)
        self._faults.add(found)

    def _calls(self, at: int) -> Generator[None, None, int]:
        """Those of the list that begins at `at`; returns where it ends."""
        text, calls = self._text, self.request.calls
        at = _after_space(text, at + 1)
        turn, turn_at = 0, at
        while not (len(calls) == 0 and text.startswith("]", at)):
            place = len(calls)
            if place == self._max_calls:
                raise BatchTooLarge(too_large(place + 1, 0, 0, max_calls=self._max_calls, max_bytes=1))
            value, at = yield from self._one(at)
            found: list[Fault] = []
            fill(calls.add(), value, found, f"calls[{place}]")
            if found:
                self._faults.add(found)
            if not text.startswith(",", at):
                break
            at = _after_space(text, at + 1)
            if place - turn >= SLICE or at - turn_at >= SLICE_CHARS:
                turn, turn_at = place, at
                yield
        return self._expect("]", at, "expected a comma or ]")

    def _one(self, at: int) -> Generator[None, None, tuple[Any, int]]:
        """The value that begins at `at`, and where what follows it begins."""
        text = self._text
        if found := _VALUE(text, at, at + _SHORT):
            end = found.end()
        else:
            end = yield from self._long(at)
            if sum(text.count(mark, at, end) for mark in ",[{") > MOST_VALUES:
                raise _NotJson(at, _MANY)
        piece = text[at:end]
        try:
            if not piece.isascii():
                piece = piece.encode("latin-1").decode()
            return _DECODE(piece), _after_space(text, end)
        except UnicodeDecodeError as error:
            raise _NotJson(at + error.start, "this isn't UTF-8") from None
        except json.JSONDecodeError as error:
            raise _NotJson(at + len(piece[: error.pos].encode()), f"{error.msg[:1].lower()}{error.msg[1:]}") from None
        except ValueError as error:  # a name that is there twice, NaN, or a number with thousands of digits
            raise _NotJson(at, str(error).partition(";")[0]) from None

    def _long(self, start: int) -> Generator[None, None, int]:
        """Where a long value ends."""
        text, at, depth = self._text, start, 0
        if len(text) - at <= _SHORT or text[at] not in '"[{':
            raise _NotJson(start, _DEEP)
        for turn in count():
            mark = _MARK(text, at, at + SLICE_CHARS)
            if mark is None:
                at += SLICE_CHARS
                yield
            elif mark[0] == '"':
                at = yield from self._string(mark.end())
            else:
                at = mark.end()
                depth += 1 if mark[0] in "[{" else -1
            if depth == 0 and mark is not None:
                return at
            if at > len(text) or depth not in range(DEEPEST + 1):
                raise _NotJson(start, _DEEP)
            if turn > 4 * MOST_VALUES:
                raise _NotJson(start, _MANY)
            if turn % 10_000 == 0:
                yield
        raise AssertionError  # the loop has no end

    def _string(self, at: int) -> Generator[None, None, int]:
        """Where a string ends whose first quote is before `at`; beyond the text if it doesn't."""
        text = self._text
        while True:
            found = _IN_STRING(text, at, at + SLICE_CHARS)
            assert found is not None  # none is a part of a string too
            if text.startswith('"', found.end()):
                return found.end() + 1
            if found.end() == at:  # a backslash at the end of the text, or the end
                return len(text) + 1
            at = found.end()
            yield

    def _expect(self, mark: str, at: int, why: str) -> int:
        if not self._text.startswith(mark, at):
            raise _NotJson(at, why)
        return _after_space(self._text, at + 1)


def _after_space(text: str, at: int) -> int:
    found = _SPACE(text, at)
    assert found is not None  # none is space too
    return found.end()


def _place(text: str, at: int) -> str:
    line = text[text.rfind("\n", 0, at) + 1 : at].encode("latin-1").decode("utf-8", "replace")
    return f"line {text.count(chr(10), 0, at) + 1}, column {len(line) + 1}"


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            break
        seen.add(name)
    raise ValueError(f"{name[:LONGEST_NAME]} is there twice")


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODE: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant).decode
