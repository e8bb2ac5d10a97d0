"""The lines of an input, one at a time whatever its size: those of a format, or CSV through a template.

Rule: what is wrong with a line is told with its number, and the next line is read. A line is held in memory once, and
one that is longer than any call may be is not held at all.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from apiflux_grpc.jobs.calls import call_of
from apiflux_grpc.jobs.template import Template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apiflux_grpc.jobs.formats import Format
    from apiflux_grpc.v1 import apiflux_pb2 as pb

LONGEST_LINE: Final = 32 << 20  # bytes
_BOM: Final = b"\xef\xbb\xbf"
_TOO_LONG: Final = f"longer than {LONGEST_LINE >> 20} MiB"


class Readable(Protocol):
    """What lines are read from: a binary file will do."""

    def readline(self, limit: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that isn't empty: its number from 1, and the call, or what is wrong with it."""

    line: int
    call: pb.Call | None
    fault: str = ""


def entries(file: Readable, of: Template | Format) -> Iterator[Entry]:
    """What a file holds: rows of CSV that fill a template, or lines of a format.

    Raises OSError, and ValueError if the header doesn't fit.
    """
    lines = _lines(file)
    return _of_csv(lines, of) if isinstance(of, Template) else _of_format(lines, of)


def _lines(file: Readable) -> Iterator[bytes | None]:
    """Line by line; None: too long, and passed over."""
    first = True
    while line := file.readline(LONGEST_LINE + 1):
        if first:
            line, first = line.removeprefix(_BOM), False
        if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(1 << 20)
            yield None
        else:
            yield line


def _of_format(lines: Iterator[bytes | None], format: Format) -> Iterator[Entry]:
    for number, line in enumerate(lines, 1):
        if line is None:
            yield Entry(number, None, _TOO_LONG)
            continue
        if line.isspace():
            continue
        try:
            yield Entry(number, format.call(line.decode()))
        except UnicodeDecodeError:
            yield Entry(number, None, "not UTF-8")
        except ValueError as error:
            yield Entry(number, None, str(error))


def _of_csv(lines: Iterator[bytes | None], template: Template) -> Iterator[Entry]:
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(_texts(lines), delimiter=template.delimiter, strict=True)
    try:
        header = next((row for row in reader if row), None)
    except csv.Error as error:
        raise ValueError(f"the header is not CSV: {error}") from None
    if header is None:
        return
    columns = [_utf8(name.strip()) for name in header]
    fill = template.bind(columns)
    while True:
        before = reader.line_num
        try:
            row = next(reader, None)
            if row is None:
                return
            if not row:
                continue
            if len(row) != len(columns):
                raise ValueError(f"{len(row)} columns; the header has {len(columns)}")
            _utf8("".join(row))
            yield Entry(before + 1, call_of(fill(row)))
        except (csv.Error, ValueError) as error:
            yield Entry(before + 1, None, str(error))


def _texts(lines: Iterator[bytes | None]) -> Iterator[str]:
    """What isn't UTF-8 passes as lone surrogates, and is reported for its row."""
    for line in lines:
        yield "\udcff\n" if line is None else line.decode(errors="surrogateescape")


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"not UTF-8, or {_TOO_LONG}") from None
    return text
