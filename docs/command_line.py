"""docs/reference/cli.md: every command and option, as the functions of the command line declare them. And the text of
`apiflux --help`."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from inspect import cleandoc, signature
from pathlib import Path
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

from apiflux_grpc.cli import app as cli
from apiflux_grpc.cli.start import WIDTH
from docs.common import NOTICE, OutOfStep, cell


@dataclass(frozen=True)
class Parameter:
    """An option, or an argument if `names` is empty. `takes` is "" for a switch."""

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


CLI: Final = """\
# Command line

`apiflux COMMAND`, or `python -m apiflux_grpc COMMAND`. Results and what machines read go to standard
output, everything else to standard error. `-h` or `--help` after a command lists its options.

`apiflux --install-completion` lets the shell that you are in complete commands, options and files: bash, zsh or fish.
`apiflux --show-completion` prints the script instead, for you to put where you like.

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
            takes = (cell(f"`{one.takes}`") if one.takes else "") + (", many times" if one.many else "")
            default = one.default or ("required" if one.required else "")
            rows.append(f"| {names} | {takes} | {default} | {cell(one.help)} |")
        parts.append("\n".join(rows) + "\n\n")
    return "".join(parts).rstrip() + "\n"


def help_text() -> str:
    """apiflux_grpc/cli/help.txt: what typer makes of `apiflux --help`."""
    group = typer.main.get_command(cli.app)
    with group.make_context("apiflux", [], resilient_parsing=True, terminal_width=WIDTH) as context:
        return context.get_help() + "\n"


def commands() -> list[Command]:
    """The options before all commands, then every command in the order of `apiflux --help`."""
    group = cli.app.registered_callback
    found = [] if group is None or group.callback is None else [_command("", group.callback)]
    for info in cli.app.registered_commands:
        assert info.callback is not None
        found.append(_command(info.name or info.callback.__name__.replace("_", "-"), info.callback))
    return found


def exit_codes() -> list[tuple[str, str]]:
    """(code, meaning), as apiflux_grpc/cli/app.py says at its top."""
    text = " ".join((cli.__doc__ or "").split())
    listed = re.search(r"Exit codes: (.*?)\.(?: |$)", text)
    if listed is None:
        raise OutOfStep("apiflux_grpc/cli/app.py no longer begins with its exit codes")
    return [(one.strip().split(" ", 1)[0], one.strip().split(" ", 1)[1]) for one in listed[1].split(";")]


def _command(name: str, function: Callable[..., Any]) -> Command:
    hints = get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    parameters = tuple(
        _parameter(one, hints[one], parameter.default)
        for one, parameter in signature(function).parameters.items()
        if hints[one] is not typer.Context
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
    # In an Annotated the first name is in the place of a default.
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


def _place(argument: Parameter) -> str:
    return argument.metavar if argument.required else f"[{argument.metavar}]"


def _usage(command: Command) -> str:
    words = ["apiflux", command.name, *(_place(one) for one in command.parameters if not one.names)]
    words += [f"{one.names[0]} {one.takes}" for one in command.parameters if one.names and one.required]
    optional = any(one.names and not one.required for one in command.parameters)
    return " ".join(words) + (" [OPTIONS]" if optional else "")
