"""docs/reference/proto.md and admin.md: the services and messages of the proto files, with the comments before them.

Rule: a line of a proto file that can't be read is an error, so that nothing is left out in silence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from docs.common import NOTICE, ROOT, OutOfStep, cell

PROTOS: Final = ROOT / "protos" / "apiflux" / "v1"


@dataclass
class Declared:
    """Something that the proto file declares, with the comment before it."""

    kind: str  # service, rpc, message, oneof, field, enum or value
    name: str
    comment: list[str]
    text: str = ""  # a field's type; an rpc's request and response
    number: str = ""
    inner: list[Declared] = field(default_factory=list)


_OPENS: Final = re.compile(r"(service|message|oneof|enum) (\w+) \{(\})?").match
_RPC: Final = re.compile(r"rpc (\w+)\((stream )?([\w.]+)\) returns \((stream )?([\w.]+)\)").match
_FIELD: Final = re.compile(r"((?:repeated |optional )?(?:map<\w+, ?[\w.]+>|[\w.]+)) (\w+) = (\d+)").match
_ENUM_VALUE: Final = re.compile(r"(\w+) = (\d+)").match


def contract_page(file: str, title: str) -> str:
    """The page of a proto file."""
    root = contract((PROTOS / file).read_text(encoding="utf-8"), file)
    types = {one.name for one in root.inner if one.kind in ("message", "enum")}
    parts = [NOTICE, f"# {title}\n\n"]
    introduction = "\n".join(root.comment[1:]).strip() if len(root.comment) > 1 else "\n".join(root.comment)
    parts.append(f"`protos/apiflux/v1/{file}`, package `apiflux.v1`.\n\n{_prose(introduction.splitlines())}\n\n")
    for one in root.inner:
        if one.kind == "service":
            parts.append(f"## {one.name}\n\n{_prose(one.comment)}\n\n")
            for rpc in one.inner:
                signed = f"rpc {rpc.name}({rpc.text})"
                parts.append(f"### {rpc.name}\n\n```proto\n{signed};\n```\n\n{_prose(rpc.comment)}\n\n")
    parts.append("## Messages\n\n")
    parts += [
        f"### {one.name}\n\n{_prose(one.comment)}\n\n{_fields_table(one, types)}"
        for one in root.inner
        if one.kind == "message"
    ]
    if any(one.kind == "enum" for one in root.inner):
        parts.append("## Enums\n\n")
    for one in root.inner:
        if one.kind == "enum":
            rows = "".join(
                f"| {each.number} | `{each.name}` | {cell(' '.join(each.comment))} |\n" for each in one.inner
            )
            head = "| no. | value | what it is |\n|---|---|---|\n"
            parts.append(f"### {one.name}\n\n{_prose(one.comment)}\n\n{head}{rows}\n")
    return "".join(parts).rstrip() + "\n"


def contract(text: str, file: str) -> Declared:
    """The proto file as a tree; the root's comment is that of the file. Raises OutOfStep for a line it can't read."""
    root = Declared("file", "", [])
    stack = [root]
    comment: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("//"):
            comment.append(line[2:].removeprefix(" "))
            continue
        if line.startswith("syntax"):
            root.comment = comment
        declared = _declared(line, comment)
        if declared is not None:
            stack[-1].inner.append(declared)
            if line.endswith("{"):
                stack.append(declared)
        elif line == "}":
            stack.pop()
        elif line and not line.startswith(("syntax", "package", "import", "option", "reserved")):
            raise OutOfStep(f"{file}:{number}: {line!r} is nothing that {Path(__file__).name} knows")
        comment = []
    return root


def _declared(line: str, comment: list[str]) -> Declared | None:
    if match := _OPENS(line):
        return Declared(match[1], match[2], comment)
    if match := _RPC(line):
        request, response = f"{match[2] or ''}{match[3]}", f"{match[4] or ''}{match[5]}"
        return Declared("rpc", match[1], comment, f"{request}) returns ({response}")
    if line.startswith(("option ", "reserved ", "syntax ", "package ", "import ")):
        return None
    if match := _FIELD(line):
        return Declared("field", match[2], comment, match[1], match[3])
    if match := _ENUM_VALUE(line):
        return Declared("value", match[1], comment, "", match[2])
    return None


def _fields_table(message: Declared, types: set[str]) -> str:
    if not message.inner:
        return ""
    rows = ["| no. | field | type | what it is |", "|---|---|---|---|"]
    for one in message.inner:
        if one.kind == "oneof":
            rows.append(f"| | one of `{one.name}` | | {cell(_escaped(' '.join(one.comment)))} |")
        for each in one.inner if one.kind == "oneof" else [one]:
            # Names repeat in other messages, so that each has its message's name before it.
            anchor = f"{message.name}.{each.name}"
            name = f"[`{each.name}`](#{anchor}){{ #{anchor} }}"
            about = cell(_escaped(" ".join(filter(None, each.comment))))
            rows.append(f"| {each.number} | {name} | {_typed(each.text, types)} | {about} |")
    return "\n".join(rows) + "\n\n"


def _typed(text: str, types: set[str]) -> str:
    head, _, last = text.rpartition(" ")
    if last in types and "<" not in text:
        return f"{head} [{last}](#{last.lower()})".strip()
    return f"`{text}`"


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;")


def _prose(lines: list[str]) -> str:
    """A comment as Markdown: a list has an empty line before it."""
    out: list[str] = []
    for line in lines:
        if line.startswith("- ") and out and out[-1] and not out[-1].startswith(("- ", "  ")):
            out.append("")
        out.append(_escaped(f"  {line}" if line.startswith("  ") else line))
    return "\n".join(out)
