"""CSV as spreadsheets write it: a call for each row, through a template.

Rules
- Columns are separated by what --delimiter says, else by what a first line `sep=;` says, else by a comma. A header that
  only fits the template with semicolons, or with tabs, is read so, and that is told: nothing is guessed unseen.
- A column without a name belongs to nobody, and a row without a value is none: sheets are full of both.
- A row is named by the line in which it begins.
"""

from __future__ import annotations

import csv
import re
from itertools import chain
from typing import TYPE_CHECKING, Final

from apiflux_grpc.jobs.calls import call_of
from apiflux_grpc.jobs.lines import LONGEST_LINE, TOO_LONG, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from apiflux_grpc.jobs.template import Template

_FOUND: Final = {";": "semicolons", "\t": "tabs"}  # without being told
_NAMES: Final = {"tab": "\t", r"\t": "\t"}  # for what is hard to type
_DECLARED: Final = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE).fullmatch
_SEVERAL: Final = re.compile(r"[;\t|,]").search  # the name of a column that may be several
# What csv says, and what is said instead.
_WORDS: Final = {
    "expected after": "a quoted value goes on after its closing quote; write a quote within it twice",
    "unexpected end": "a quoted value has no closing quote",
    "new-line": "a CR outside of quotes ends no line; save the file with LF or CRLF",
}
# Stands for a line that is too long: half of a surrogate pair that no byte is decoded to.
_LONG: Final = "\ud800"


def delimiter_of(text: str) -> str:
    """What separates columns, as --delimiter has it. Raises ValueError."""
    delimiter = _NAMES.get(text.lower(), text)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError(f"--delimiter {text!r}: give one character, such as ; or tab")
    return delimiter


class Spreadsheet:
    """How rows become calls. `delimiter` None: the file says, or shows it; `tell` is told if it shows."""

    def __init__(self, template: Template, delimiter: str | None, tell: Callable[[str], object]) -> None:
        self._template = template
        self._delimiter = delimiter
        self._tell = tell
        self._is_told = False

    def entries(self, lines: Iterator[bytes | None]) -> Iterator[Entry]:
        """What the rows below the header hold. Raises ValueError if the header doesn't fit."""
        csv.field_size_limit(LONGEST_LINE)
        texts = _texts(lines)
        first = next(texts, "")
        declared = _DECLARED(first)
        above, seen = (1, []) if declared else (0, [first])
        delimiter = self._delimiter or (declared[1] if declared else self._found(seen, texts))
        reader = csv.reader(chain(seen, texts), delimiter=delimiter, strict=True)
        columns = _header(reader)
        if columns is None:
            return
        try:
            fill = self._template.bind(columns)
        except ValueError as error:
            if len(columns) == 1 and _SEVERAL(columns[0]):
                raise ValueError(f"{error}; --delimiter says what separates columns") from None
            raise
        while True:
            line = above + reader.line_num + 1
            try:
                row = next(reader, None)
                if row is None:
                    return
                text = "".join(row)
                if not text or text.isspace():
                    continue
                if not text.isascii():
                    _check_utf8(text)
                if len(row) != len(columns):
                    s = "" if len(row) == 1 else "s"
                    raise ValueError(f"{len(row)} column{s}; the header has {len(columns)}")
                yield Entry(line, call_of(fill(row)))
            except csv.Error as error:
                yield Entry(line, None, _explained(error))
            except ValueError as error:
                yield Entry(line, None, str(error))

    def _found(self, seen: list[str], texts: Iterator[str]) -> str:
        """The delimiter that the header shows; lines that are read on the way are added to `seen`."""
        if self._fits(",", seen, texts) > 1:
            return ","
        for delimiter, name in _FOUND.items():
            if self._fits(delimiter, seen, texts) > 1:
                if not self._is_told:
                    self._is_told = True
                    self._tell(f"columns are separated by {name}; if they aren't, say so with --delimiter")
                return delimiter
        return ","

    def _fits(self, delimiter: str, seen: list[str], texts: Iterator[str]) -> int:
        """How many columns the header has with this delimiter; 0: they aren't what the template needs."""
        try:
            columns = _header(csv.reader(_recorded(seen, texts), delimiter=delimiter, strict=True))
            self._template.bind(columns or [])
        except ValueError:
            return 0
        return len(columns or [])


def _header(reader: Iterator[list[str]]) -> list[str] | None:
    """The names of the columns; None: there is no row. Raises ValueError if it isn't CSV."""
    try:
        columns = next(([name.strip() for name in row] for row in reader if "".join(row).strip()), None)
    except csv.Error as error:
        raise ValueError(f"the header is not CSV: {_explained(error)}") from None
    _check_utf8("".join(columns or []))
    return columns


def _explained(error: csv.Error) -> str:
    return next((words for known, words in _WORDS.items() if known in str(error)), str(error))


def _recorded(seen: list[str], texts: Iterator[str]) -> Iterator[str]:
    """What was seen, then what comes, which is seen from then on."""
    yield from tuple(seen)
    for text in texts:
        seen.append(text)
        yield text


def _texts(lines: Iterator[bytes | None]) -> Iterator[str]:
    """What isn't UTF-8 passes as lone surrogates, and is reported for its row."""
    for line in lines:
        yield f"{_LONG}\n" if line is None else line.decode(errors="surrogateescape")


def _check_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(TOO_LONG if _LONG in text else "not UTF-8; save the file as UTF-8") from None
