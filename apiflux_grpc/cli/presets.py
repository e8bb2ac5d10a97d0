"""`apiflux presets`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from apiflux_grpc.cli.options import complete_preset


class Action(StrEnum):
    show = "show"


def presets(
    action: Annotated[Action | None, typer.Argument(help="Print one of them.")] = None,
    name: Annotated[str | None, typer.Argument(autocompletion=complete_preset, help="Which one to print.")] = None,
) -> None:
    """List the presets of well-known APIs, or print one as the TOML file that it is."""
    from apiflux_grpc.settings.presets import about, instead, preset_names, preset_text

    if action is None:
        widest = max(map(len, preset_names()))
        for one in preset_names():
            print(f"{one:{widest}}  {about(one)}")
    elif name is None:
        raise typer.BadParameter(f"which one? There are {', '.join(preset_names())}", param_hint="NAME")
    elif name not in preset_names():
        raise typer.BadParameter(f"unknown preset; {instead(name)}", param_hint="NAME")
    else:
        print(preset_text(name), end="")
