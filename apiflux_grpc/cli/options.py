"""What several commands share: their options, the settings, and how a coroutine becomes an exit code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from apiflux_grpc.cli.signals import CUT_SHORT, SIGNALS
from apiflux_grpc.cli.streams import say

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from apiflux_grpc.settings import Settings

T = TypeVar("T")


def checked(check: Callable[[T], object], value: T) -> T:
    """The value. Raises BadParameter, with what `check` said of it."""
    try:
        check(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return value


def check_optional_target(value: str | None) -> str | None:
    """A callback of typer."""
    from apiflux_grpc.client.channel import check_target

    return None if value is None else checked(check_target, value)


def check_targets(value: list[str]) -> list[str]:
    """A callback of typer."""
    from apiflux_grpc.client.targets import targets_of

    checked(targets_of, value)
    return value


def complete_preset() -> list[str]:
    """The presets, for a shell that completes what is typed."""
    from apiflux_grpc.settings.presets import preset_names

    return list(preset_names())


ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="The configuration, a TOML file; `apiflux init` writes one.")
]
TargetsOption = Annotated[
    list[str],
    typer.Option(
        "--target",
        metavar="HOST:PORT",
        callback=check_targets,
        help="The server. Repeat it for several that have the same pool: they share the work. "
        "dns:///NAME:PORT is all servers whose addresses the name has.",
    ),
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="Also write a page with charts; needs the extra `report`.")
]


def load_settings(config: Path | None, bind: str | None = None, *, allow_plaintext: bool = False) -> Settings:
    """The settings of this environment. Raises Exit after a line for each fault.

    `allow_plaintext`: where the server listens is no fault. So it is for commands that don't listen.
    """
    from apiflux_grpc.settings import SettingsError, load

    try:
        return load(config, environ=os.environ, dotenv=Path(".env"), bind=bind, allow_plaintext=allow_plaintext)
    except SettingsError as error:
        for fault in error.faults:
            say(str(fault))
        raise typer.Exit(2) from None


def run_cancellable(command: Coroutine[None, None, int]) -> int:
    """Run it and return its exit code; Ctrl-C cancels it."""
    import asyncio

    SIGNALS.raise_interrupts()
    try:
        return asyncio.run(command)
    except KeyboardInterrupt:  # typer would make it 130
        return CUT_SHORT
