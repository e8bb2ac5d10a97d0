"""What a line of the input asks for, and what a line of the output says: the formats that a job can have.

Rule: a job has one format, in and out: the one that --format names, else that of the first line that is an object of
JSON. A format knows lines alone, neither files nor what becomes of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Protocol

from apiflux_grpc.jobs import rows
from apiflux_grpc.jobs.callline import line_of_call
from apiflux_grpc.jobs.calls import parse_call
from apiflux_grpc.jobs.openai_batch import OpenAiBatch, is_openai

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from apiflux_grpc.jobs.rows import Kept
    from apiflux_grpc.v1 import apiflux_pb2 as pb


class Format(Protocol):
    """How calls and results are written. Its lines are whole, and one call or result each."""

    @property
    def name(self) -> str:
        """What --format calls it."""
        ...

    @property
    def names(self) -> Mapping[str, str]:
        """What it calls the fields of a call, if not as the contract does."""
        ...

    def call(self, line: str) -> pb.Call:
        """The call that a line of the input asks for. Raises ValueError, which says what is wrong with the line."""
        ...

    def written(self, call: pb.Call) -> bytes:
        """A call that `call` made, as a line of the input that makes the same."""
        ...

    def line(self, result: pb.CallResult, idempotent: bool) -> bytes:
        """A result as a line of the output. `idempotent`: of its call."""
        ...

    def kept(self, line: bytes) -> Kept:
        """What a line of the output says of its call. Raises ValueError if it isn't a result in this format."""
        ...


class JsonLines:
    """APIFlux's own: the names of the contract."""

    name: Final = "jsonl"
    names: Final[Mapping[str, str]] = {}

    def call(self, line: str) -> pb.Call:
        """As Format.call."""
        try:
            return parse_call(line)
        except ValueError:
            if is_openai(line):
                raise ValueError(
                    "is in OpenAI's batch format, and lines before it are not; write all lines in one format"
                ) from None
            raise

    def written(self, call: pb.Call) -> bytes:
        """As Format.written."""
        return line_of_call(call)

    def line(self, result: pb.CallResult, idempotent: bool) -> bytes:
        """As Format.line."""
        return rows.line_of(result, idempotent)

    def kept(self, line: bytes) -> Kept:
        """As Format.kept."""
        return rows.kept(line)


class Recognised:
    """The format of the first line that is an object of JSON; `tell` is called with it then."""

    def __init__(self, base_url: str, tell: Callable[[Format], object]) -> None:
        self._base_url = base_url
        self._tell = tell
        self._found: Format | None = None

    @property
    def name(self) -> str:
        """As Format.name; of a format that isn't recognised yet, our own."""
        return self._as_found.name

    @property
    def names(self) -> Mapping[str, str]:
        """As Format.names."""
        return self._as_found.names

    def call(self, line: str) -> pb.Call:
        """As Format.call."""
        if self._found is None and _is_object(line):
            self._found = OpenAiBatch(self._base_url) if is_openai(line) else JsonLines()
            self._tell(self._found)
        return self._as_found.call(line)

    def written(self, call: pb.Call) -> bytes:
        """As Format.written."""
        return self._as_found.written(call)

    def line(self, result: pb.CallResult, idempotent: bool) -> bytes:
        """As Format.line."""
        return self._as_found.line(result, idempotent)

    def kept(self, line: bytes) -> Kept:
        """As Format.kept."""
        return self._as_found.kept(line)

    @property
    def _as_found(self) -> Format:
        return self._found or JsonLines()


NAMES: Final = (JsonLines.name, OpenAiBatch.name)


def named(name: str, base_url: str) -> Format:
    """The format of this name, one of NAMES."""
    return OpenAiBatch(base_url) if name == OpenAiBatch.name else JsonLines()


def format_of_result(line: bytes) -> Format:
    """The format that a result is in. Raises ValueError if it is none."""
    try:
        rows.kept(line)
    except ValueError:
        format = OpenAiBatch("")
        format.kept(line)
        return format
    return JsonLines()


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
