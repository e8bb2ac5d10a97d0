"""A terminal, as far as the command draws on it."""

from __future__ import annotations

import io
import re


class Terminal(io.StringIO):
    """What is written to it can be read."""

    def isatty(self) -> bool:
        return True


def words(text: str) -> list[str]:
    """All lines that were ever drawn, as they are read."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return [" ".join(line.split()) for line in re.split(r"[\r\n]+", plain) if line.strip()]


def left_on(text: str, columns: int = 60) -> list[str]:
    """The lines that a terminal so wide shows in the end."""
    lines, at, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", text):
        if part == "\r":
            column = 0
        elif part == "\x1b[1A":
            at -= 1
        elif part == "\x1b[2K":
            lines[at] = ""
        elif part[0] != "\x1b":
            if part == "\n" or column == columns:
                at, column = at + 1, 0
                lines += [""] * (at + 1 - len(lines))
            if part != "\n":
                lines[at] = lines[at].ljust(column)[:column] + part + lines[at][column + 1 :]
                column += 1
    return [line.rstrip() for line in lines if line.strip()]
