"""The lines of an input, one at a time whatever its size: what a format makes of them.

Rule: what is wrong with a line is told with its number, and the next line is read. A line is held in memory once, and
one that is longer than any call may be is not held at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apiflux_grpc.jobs.formats import Format
    from apiflux_grpc.v1 import apiflux_pb2 as pb

LONGEST_LINE: Final = 32 << 20  # bytes
_BOM: Final = b"\xef\xbb\xbf"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
TOO_LONG: Final = f"longer than {LONGEST_LINE >> 20} MiB"


class Readable(Protocol):
    """What lines are read from: a binary file will do."""

    def readline(self, limit: int, /) -> bytes: ...


class Entry(NamedTuple):
    """A line that isn't empty: its number from 1, and the call, or what is wrong with it."""

    line: int
    call: pb.Call | None
    fault: str = ""


def lines_of(file: Readable) -> Iterator[bytes | None]:
    """Line by line, without a byte order mark; None: too long, and passed over.

    Raises ValueError if the file says that it isn't UTF-8, and OSError.
    """
    first = True
    while line := file.readline(LONGEST_LINE + 1):
        if first:
            if line.startswith(_UTF_16):
                raise ValueError("is UTF-16; save it as UTF-8")
            line, first = line.removeprefix(_BOM), False
        if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(1 << 20)
            yield None
        else:
            yield line


def entries(lines: Iterator[bytes | None], format: Format) -> Iterator[Entry]:
    """What lines of a format hold."""
    for number, line in enumerate(lines, 1):
        if line is None:
            yield Entry(number, None, TOO_LONG)
            continue
        if line.isspace():
            continue
        try:
            yield Entry(number, format.call(line.decode()))
        except UnicodeDecodeError:
            yield Entry(number, None, "not UTF-8")
        except ValueError as error:
            yield Entry(number, None, str(error))
