"""Writes the reference pages that the code itself knows: configuration, command line and contract.

    python -m docs.generate           # writes them
    python -m docs.generate --check   # says which are out of date, and exits with 1

Rule: whatever a machine can know comes from the code: names, types, bounds, defaults, comments. Only what a setting
means is written by hand, in docs/_settings.toml; a setting without words is an error here, and so are words without a
setting. The pages are committed, so that they can be read without building anything.
"""

from __future__ import annotations

import re
import sys
import tomllib
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import cleandoc, getclosurevars, signature
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BaseModel, BeforeValidator, PlainValidator, SecretStr
from pydantic.fields import FieldInfo
from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

from apiflux_grpc.cli import app as cli
from apiflux_grpc.core.units import LONGEST, MILLISECOND, MOST, format_duration
from apiflux_grpc.settings import tables

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
WORDS: Final = DOCS / "_settings.toml"
PROTO: Final = ROOT / "protos" / "apiflux" / "v1" / "apiflux.proto"
NOTICE: Final = "<!-- Written by `python -m docs.generate`. Don't change it by hand. -->\n"


class OutOfStep(Exception):
    """The code and the words about it don't fit together; says what to do."""


# -- settings ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """One name that can be set: what may stand there, and what holds if nothing does ("": the words say it)."""

    name: str
    value: str
    default: str


@dataclass(frozen=True)
class Section:
    """One table of the TOML file. `key` is its name in docs/_settings.toml."""

    key: str
    settings: tuple[Setting, ...]


TITLES: Final = {"": "Before any table", "server": "server", "stress": "stress", "pools": "pools.NAME"}
INTRODUCTIONS: Final = {
    "": "What stands at the top of the file.",
    "server": "Where the server listens, and how much it holds.",
    "stress": "For `apiflux stress` alone.",
    "pools": "One table for each pool; the name is what requests say. A request that names no pool means `default`.",
    "pools.limits": "A list of tables, in a pool, a key or a group. See [Choose limits](../howto/limits.md).",
    "pools.key_in": "See [Present the key](../howto/keys.md).",
    "pools.keys": "One `[[pools.NAME.keys]]` for each key.",
    "pools.groups": "One `[[pools.NAME.groups]]` for each group of keys that share limits.",
    "pools.cost_from": "One of the two. See [Count cost, not calls](../howto/costs.md).",
    "pools.retry": "See [Retry safely](../howto/retries.md).",
    "pools.simulator": "Only in a pool without `base_url`.",
}
TABLES: Final = ("table", "list of tables")
VALUES: Final[Mapping[str, str]] = {  # by the name of the validator
    "allowed_path": "path",
    "answer_header": "name of a header",
    "base_url": "URL",
    "bind": "HOST:PORT",
    "request_header": "name of a header",
    "json_path": "names joined by dots",
    "latency": "two durations",
    "name": "name: A-Z, a-z, 0-9, dot, underscore, hyphen",
    "number": "whole number",
    "parameter": "name of a parameter",
    "prefix": "text",
    "proxy_url": "URL",
    "status_range": "status",
    "switch": "true or false",
    "variable": "name of a variable",
}


def sections() -> list[Section]:
    """Every table of the TOML file, the file's own names first."""
    return list(_sections("", tables.File))


def _sections(key: str, model: type[BaseModel]) -> Iterator[Section]:
    own: list[Setting] = []
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, info in model.model_fields.items():
        name = info.alias or name
        table = _table_in(info.annotation)
        if table is None or key:
            own.append(Setting(name, _value(info) if table is None else _tables(info.annotation), _default(info)))
        if table is not None:
            inner.append((f"{key}.{name}" if key else name, table))
    if key or own:
        yield Section(key, tuple(own))
    for name, table in inner:
        if name.count(".") < 2:  # the limits of keys and groups are the pool's over again
            yield from _sections(name, table)


def _table_in(annotation: Any) -> type[BaseModel] | None:
    """The table that stands there, alone, in a list or by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _table_in(part))), None)


def _tables(annotation: Any) -> str:
    return "list of tables" if "list[" in str(annotation) else "table"


def _value(info: FieldInfo) -> str:
    return _shape(info.annotation, list(info.metadata))


def _shape(annotation: Any, metadata: list[Any]) -> str:
    """What may stand there, in words. Raises OutOfStep for a validator that VALUES doesn't know."""
    while True:
        origin, parts = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            metadata += [each for one in parts[1:] for each in (one.metadata if isinstance(one, FieldInfo) else [one])]
            annotation = parts[0]
        elif origin in (Union, types.UnionType):
            annotation = next(part for part in parts if part is not type(None))
        else:
            break
    if origin is list:
        return f"list of {_plural(_shape(parts[0], []))}"
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    for one in metadata:
        if isinstance(one, PlainValidator | AfterValidator | BeforeValidator):
            if one is tables.Milliseconds:
                return f"milliseconds{_bounds(metadata)}"
            if (text := _validated(one.func)) and text != "whole number":
                return text
    known = {int: "whole number", float: "number", bool: "true or false", str: "text", SecretStr: "text, a secret"}
    return f"{known.get(annotation, 'anything')}{_bounds(metadata)}"


def _plural(what: str) -> str:
    return {"status": "statuses"}.get(what, f"{what}s" if what.isalpha() else "names")


def _validated(function: Callable[..., Any]) -> str:
    if function.__qualname__.startswith("duration."):
        found = getclosurevars(function).nonlocals
        low, high = found["low"], found["high"]
        least = "above 0" if low == 1 else f"at least {format_duration(low)}" if low else ""
        most = f"at most {format_duration(high)}" if high < LONGEST else ""
        return ", ".join(filter(None, ("duration", least, most)))
    try:
        return VALUES[function.__name__]
    except KeyError:
        raise OutOfStep(f"VALUES in {Path(__file__).name} has no words for {function.__name__}") from None


def _bounds(metadata: list[Any]) -> str:
    low = next((one.ge for one in metadata if isinstance(one, Ge)), None)
    high = next((one.le for one in metadata if isinstance(one, Le)), None)
    below = next((one.lt for one in metadata if isinstance(one, Lt)), None)
    above = next((one.gt for one in metadata if isinstance(one, Gt)), None)
    if high in (MOST, LONGEST // MILLISECOND):
        high = None  # nobody comes near it
    texts = [f"above {above}" if above is not None else f"{low}" if low is not None else ""]
    texts.append(f"to {high}" if high is not None else f"to below {below:,}" if below is not None else "or more")
    text = " ".join(filter(None, texts))
    return f", {text}" if text != "or more" else ""


def _default(info: FieldInfo) -> str:
    default = info.default
    if default is None or info.is_required() or _table_in(info.annotation) is not None:
        return ""
    if isinstance(default, SecretStr):
        return f"`{default.get_secret_value()}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if default == [(200, 299)]:
        return '`["2xx"]`'
    if isinstance(default, tuple):
        return f"`{default[0]}:{default[1]}`"
    if isinstance(default, str):
        return f"`{default}`"
    if _value(info).startswith("duration"):
        return f"`{format_duration(default)}`"
    if _value(info).startswith("milliseconds"):
        return f"`{default // MILLISECOND}`"
    for power, unit in ((30, "GiB"), (20, "MiB")):
        if isinstance(default, int) and default and default % (1 << power) == 0:
            return f"`{default}` ({default >> power} {unit})"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def environment() -> Section:
    """The variables."""
    fields = tables.Environment.model_fields
    return Section("environment", tuple(Setting(name, _value(info), _default(info)) for name, info in fields.items()))


def words() -> dict[str, dict[str, dict[str, str]]]:
    """What each setting means, by section and name: `text`, and perhaps `default`."""
    raw = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    return {
        section: {name: {"text": entry} if isinstance(entry, str) else entry for name, entry in entries.items()}
        for section, entries in raw.items()
    }


def check_words() -> list[str]:
    """What docs/_settings.toml lacks, and what it has too much."""
    have = {(section, name) for section, entries in words().items() for name in entries}
    want = {(one.key, setting.name) for one in [*sections(), environment()] for setting in one.settings}
    found = [f"{WORDS.name} says nothing of {name} in [{section}]" for section, name in sorted(want - have)]
    found += [f"{WORDS.name} has {name} in [{section}], which is no setting" for section, name in sorted(have - want)]
    spoken = words()
    for one in [*sections(), environment()]:
        for setting in one.settings:
            entry = spoken.get(one.key, {}).get(setting.name, {})
            if not setting.default and setting.value not in TABLES and entry and "default" not in entry:
                plain = setting.name in ("budget", "state_dir")  # refused, whatever they say
                found += [] if plain else [f"{WORDS.name}: {setting.name} in [{one.key}] needs a default in words"]
    return found


CONFIGURATION: Final = """\
# Configuration

Flags win over the environment, the environment over a file `.env` in the working directory, and that over the TOML
file of `--config`. An empty variable is an unset one. Whatever is wrong is told at once, each fault with its place,
and no message shows a value:

```sh
apiflux check-config examples/apiflux.toml
```

A **duration** is a string: a number and one of `h`, `m`, `s`, `ms`, `us`, `ns`, such as `"250ms"` or `"1.5s"`. An
unknown name in the file is a fault. A relative path is relative to the file.

## An example

`examples/apiflux.toml`:

```toml
;--8<-- "examples/apiflux.toml"
```

"""
ENVIRONMENT: Final = """\
## The environment

The variables below make a server without a file. `RATE_LIMIT`, `API_KEYS` and `UPSTREAM_URL` build the pool
`default`, and only where the file has none. The same names can stand in `.env`, as in `.env.example`:

```ini
;--8<-- ".env.example"
```

"""


def configuration_page() -> str:
    """docs/reference/configuration.md. Raises OutOfStep where words and settings differ."""
    if faults := check_words():
        raise OutOfStep("\n".join(faults))
    spoken = words()
    parts = [NOTICE, CONFIGURATION.replace(";--8<--", "--8<--")]
    for section in sections():
        last = section.key.rpartition(".")[2]
        title = TITLES.get(section.key, last)
        level = "##" if section.key in TITLES else "###"
        anchor = "" if section.key in TITLES else f" {{ #{last} }}"
        parts.append(f"{level} {title}{anchor}\n\n{INTRODUCTIONS[section.key]}\n\n")
        parts.append(_settings_table(section, spoken[section.key]))
    parts.append(ENVIRONMENT.replace(";--8<--", "--8<--"))
    parts.append(_settings_table(environment(), spoken["environment"]))
    return "".join(parts).rstrip() + "\n"


def _settings_table(section: Section, entries: Mapping[str, Mapping[str, str]]) -> str:
    rows = ["| name | value | default | what it is |", "|---|---|---|---|"]
    for setting in section.settings:
        entry = entries[setting.name]
        anchor = f"{section.key or 'file'}.{setting.name}"
        name = f"[`{setting.name}`](#{anchor}){{ #{anchor} }}"
        default = entry.get("default", setting.default) or ("see there" if setting.value in TABLES else "none")
        rows.append(f"| {name} | {_cell(setting.value)} | {_cell(default)} | {_cell(entry['text'])} |")
    return "\n".join(rows) + "\n\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# -- the command line ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    """An option, or an argument where `names` is empty. `takes` is "" for a switch."""

    names: tuple[str, ...]
    takes: str
    required: bool
    many: bool
    default: str
    help: str
    metavar: str = ""


@dataclass(frozen=True)
class Command:
    """A command, as its function declares it. The name "" is that of the options before all commands."""

    name: str
    help: str
    parameters: tuple[Parameter, ...]

    @property
    def options(self) -> dict[str, Parameter]:
        return {name: one for one in self.parameters for name in one.names}


def commands() -> list[Command]:
    """The options before all commands, then every command in the order of `apiflux --help`."""
    group = cli.app.registered_callback
    found = [] if group is None or group.callback is None else [_command("", group.callback)]
    for info in cli.app.registered_commands:
        assert info.callback is not None
        found.append(_command(info.name or info.callback.__name__.replace("_", "-"), info.callback))
    return found


def _command(name: str, function: Callable[..., Any]) -> Command:
    hints = get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    parameters = tuple(
        _parameter(one, hints[one], parameter.default) for one, parameter in signature(function).parameters.items()
    )
    return Command(name, cleandoc(function.__doc__ or ""), parameters)


def _parameter(name: str, hint: Any, default: Any) -> Parameter:
    base, *extras = get_args(hint)
    info = next(one for one in extras if isinstance(one, ParameterInfo))
    many, base = _unwrapped(base)
    required = default is signature(_parameter).empty
    switch = base is bool
    takes = "" if switch else _takes(base)
    shown = "" if required or default is None or default is False or default == "" else f"`{_plain(default)}`"
    if isinstance(info, ArgumentInfo):
        return Parameter((), takes, required, many, shown, info.help or "", name.upper())
    assert isinstance(info, OptionInfo)
    # In an Annotated the first name stands where a default would.
    declared = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str)]
    names = tuple(one for one in declared if one.startswith("-"))
    if not names:
        flag = f"--{name.replace('_', '-')}"
        names = (flag, f"--no-{flag[2:]}") if switch else (flag,)
    return Parameter(names, takes, required, many, shown, info.help or "")


def _unwrapped(base: Any) -> tuple[bool, Any]:
    """(may it be given many times, its type without None and list)."""
    parts = [part for part in get_args(base) if part is not type(None)]
    if get_origin(base) in (Union, types.UnionType):
        return _unwrapped(parts[0])
    if get_origin(base) is list:
        return True, parts[0]
    return False, base


def _takes(base: Any) -> str:
    if hasattr(base, "__members__"):
        return "|".join(str(member.value) for member in base)
    return {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "FILE"}[base]


def _plain(value: Any) -> str:
    return str(getattr(value, "value", value))


def exit_codes() -> list[tuple[str, str]]:
    """(code, meaning), as apiflux_grpc/cli/app.py says at its top."""
    text = " ".join((cli.__doc__ or "").split())
    listed = re.search(r"Exit codes: (.*?)\.(?: |$)", text)
    if listed is None:
        raise OutOfStep("apiflux_grpc/cli/app.py no longer begins with its exit codes")
    return [(one.strip().split(" ", 1)[0], one.strip().split(" ", 1)[1]) for one in listed[1].split(";")]


CLI: Final = """\
# Command line

`apiflux COMMAND`, or `python -m apiflux_grpc COMMAND`. Results and what machines read go to standard
output, everything else to standard error.

| exit code | meaning |
|---|---|
"""


def cli_page() -> str:
    """docs/reference/cli.md."""
    parts = [NOTICE, CLI, *(f"| {code} | {meaning} |\n" for code, meaning in exit_codes()), "\n"]
    for command in commands():
        parts.append(f"## {f'apiflux {command.name}' if command.name else 'Before all commands'}\n\n")
        if command.name:
            parts.append(f"{command.help}\n\n```text\n{_usage(command)}\n```\n\n")
        rows = ["| option | takes | default | what it does |", "|---|---|---|---|"]
        for one in command.parameters:
            names = ", ".join(f"`{name}`" for name in one.names) or f"`{one.metavar}`"
            takes = (_cell(f"`{one.takes}`") if one.takes else "") + (", many times" if one.many else "")
            default = one.default or ("required" if one.required else "")
            rows.append(f"| {names} | {takes} | {default} | {_cell(one.help)} |")
        parts.append("\n".join(rows) + "\n\n")
    return "".join(parts).rstrip() + "\n"


def _usage(command: Command) -> str:
    words = ["apiflux", command.name, *(one.metavar for one in command.parameters if not one.names)]
    words += [f"{one.names[0]} {one.takes}" for one in command.parameters if one.names and one.required]
    optional = any(one.names and not one.required for one in command.parameters)
    return " ".join(words) + (" [OPTIONS]" if optional else "")


# -- the contract --------------------------------------------------------------------------------


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


def contract(text: str) -> Declared:
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
            raise OutOfStep(f"{PROTO.name}:{number}: {line!r} is nothing that {Path(__file__).name} knows")
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


def contract_page() -> str:
    """docs/reference/proto.md."""
    root = contract(PROTO.read_text(encoding="utf-8"))
    messages = {one.name for one in root.inner if one.kind == "message"}
    parts = [NOTICE, "# Contract\n\n"]
    introduction = "\n".join(root.comment[1:]).strip() if len(root.comment) > 1 else "\n".join(root.comment)
    parts.append(f"`protos/apiflux/v1/apiflux.proto`, package `apiflux.v1`.\n\n{_prose(introduction.splitlines())}\n\n")
    for one in root.inner:
        if one.kind == "service":
            parts.append(f"## {one.name}\n\n{_prose(one.comment)}\n\n")
            for rpc in one.inner:
                signed = f"rpc {rpc.name}({rpc.text})"
                parts.append(f"### {rpc.name}\n\n```proto\n{signed};\n```\n\n{_prose(rpc.comment)}\n\n")
    parts.append("## Messages\n\n")
    parts += [
        f"### {one.name}\n\n{_prose(one.comment)}\n\n{_fields_table(one, messages)}"
        for one in root.inner
        if one.kind == "message"
    ]
    for one in root.inner:
        if one.kind == "enum":
            rows = "".join(f"| `{value.name}` | {_cell(' '.join(value.comment))} |\n" for value in one.inner)
            parts.append(f"### {one.name}\n\n{_prose(one.comment)}\n\n| value | what it is |\n|---|---|\n{rows}\n")
    return "".join(parts).rstrip() + "\n"


def _fields_table(message: Declared, messages: set[str]) -> str:
    if not message.inner:
        return ""
    rows = ["| no. | field | type | what it is |", "|---|---|---|---|"]
    for one in message.inner:
        if one.kind == "oneof":
            rows.append(f"| | one of `{one.name}` | | {_cell(_escaped(' '.join(one.comment)))} |")
        for each in one.inner if one.kind == "oneof" else [one]:
            # Names repeat in other messages, so that each has its message's name before it.
            anchor = f"{message.name}.{each.name}"
            name = f"[`{each.name}`](#{anchor}){{ #{anchor} }}"
            about = _cell(_escaped(" ".join(filter(None, each.comment))))
            rows.append(f"| {each.number} | {name} | {_typed(each.text, messages)} | {about} |")
    return "\n".join(rows) + "\n\n"


def _typed(text: str, messages: set[str]) -> str:
    head, _, last = text.rpartition(" ")
    if last in messages and "<" not in text:
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


# -- all of them ---------------------------------------------------------------------------------

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "reference/configuration.md": configuration_page,
    "reference/cli.md": cli_page,
    "reference/proto.md": contract_page,
}


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check only say which differ; 1: some do, or code and words are out of step."""
    stale = []
    for name, page in PAGES.items():
        path = DOCS / name
        try:
            text = page()
        except OutOfStep as error:
            print(error, file=sys.stderr)
            return 1
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in arguments:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    if "--check" in arguments:
        for name in stale:
            print(f"docs/{name} is out of date: python -m docs.generate", file=sys.stderr)
        return 1 if stale else 0
    print(f"written: {', '.join(stale) or 'nothing has changed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
