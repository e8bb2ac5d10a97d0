"""What tests read of the documentation: its pages, their code blocks and the code in their lines.

Rule: a page is read as it is built, with what it includes from elsewhere.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from docs.command_line import Command, commands
from docs.common import DOCS, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Options of typer's.
HELP: Final = ("-h", "--help")
COMPLETION: Final = ("--install-completion", "--show-completion")

_INCLUDE: Final = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)
_FENCE: Final = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_INLINE: Final = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A block of code: its page, the line where it begins, and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> dict[str, str]:
    """Every page's text, by its name below docs/; and README's."""
    found = {str(path.relative_to(DOCS)): read(path) for path in sorted(DOCS.rglob("*.md"))}
    return found | {"README.md": read(ROOT / "README.md")}


def read(path: Path) -> str:
    """A page, with the files that it includes."""
    return _INCLUDE.sub(lambda match: _included(match[1]), path.read_text(encoding="utf-8"))


def page(name: str) -> str:
    return read(DOCS / name)


def _included(name: str) -> str:
    own = DOCS / "assets" / name
    return (own if own.exists() else ROOT / name).read_text(encoding="utf-8").rstrip("\n")


def blocks(*languages: str) -> list[Block]:
    """The blocks of code in these languages, of all pages."""
    found = []
    for name, text in pages().items():
        for match in _FENCE.finditer(text):
            if match["language"] in languages:
                line = text.count("\n", 0, match.start()) + 1
                body = re.sub(f"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
                found.append(Block(name, line, match["language"], body))
    return found


def inline_code() -> Iterator[tuple[str, str]]:
    """(page, code) of every piece of code within a line."""
    for name, text in pages().items():
        for match in _INLINE.finditer(_FENCE.sub("", text)):
            yield name, match[1]


def simple_commands(script: str) -> Iterator[list[str]]:
    """The commands of a shell script, without redirections; what stands in `$(...)` is a command of its own."""
    for line in script.replace("\\\n", " ").splitlines():
        reader = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
        reader.whitespace_split = True
        words: list[str] = []
        skip = False
        for token in [*reader, ";"]:
            if token in (">", "<", ">>"):
                skip = True
            elif skip:
                skip = False
            elif set(token) <= set(";|&") or token in ("do", "done"):
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                if words:
                    yield words
                words = []
            else:
                words.append(token)


def check_apiflux(arguments: list[str], *, whole: bool = True) -> str:
    """What is wrong with the arguments of `apiflux`; "": nothing. `whole`: what is required must be there."""
    known = {command.name: command for command in commands()}
    command, given, places = known[""], set[str](), 0
    todo = list(arguments)
    while todo:
        word = todo.pop(0)
        name, equals, value = word.partition("=")
        if word.startswith("-") and word != "-":
            option = command.options.get(name)
            if name in HELP or (name in COMPLETION and not command.name):
                continue
            if option is None:
                return f"{command.name or 'apiflux'} has no option {name}"
            given.add(name)
            if option.takes:
                if not equals and not todo:
                    return f"{name} takes {option.takes}"
                value = value if equals else todo.pop(0)
                if "|" in option.takes and value not in option.takes.split("|"):
                    return f"{name} takes {option.takes}, not {value}"
        elif not command.name:
            if word not in known:
                return f"there is no command {word}"
            command = known[word]
        else:
            places += 1
    return _lacking(command, given, places) if whole and command.name else ""


def _lacking(command: Command, given: set[str], places: int) -> str:
    positional = [one for one in command.parameters if not one.names]
    if not sum(one.required for one in positional) <= places <= len(positional):
        return f"{command.name} takes {len(positional)} arguments, not {places}"
    for one in command.parameters:
        if one.required and one.names and not given & set(one.names):
            return f"{command.name} needs {one.names[0]}"
    return ""
