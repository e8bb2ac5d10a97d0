"""`apiflux init`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from apiflux_grpc.cli.options import complete_preset
from apiflux_grpc.cli.streams import say

NAME: Final = "apiflux.toml"


def init(
    preset: Annotated[
        str | None, typer.Argument(autocompletion=complete_preset, help="The API, one of `apiflux presets`.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="The file to write; - is standard output.")] = NAME,
) -> None:
    """Write a commented configuration to begin with.

    Without PRESET it is for the API whose key is set in a variable such as OPENAI_API_KEY; if there is none, for one of
    your own. Every such variable becomes a key; the configuration names it, and never holds its value.
    """
    from apiflux_grpc.settings.initial import found_presets, initial_config, variables_of
    from apiflux_grpc.settings.presets import instead, preset_names

    variables = [name for name, value in os.environ.items() if value]
    if preset is not None and preset not in preset_names():
        raise typer.BadParameter(f"unknown preset; {instead(preset)}", param_hint="PRESET")
    if preset is None and (found := found_presets(variables)):
        if len(found) > 1:
            raise typer.BadParameter(f"which one? There are keys for {', '.join(found)}", param_hint="PRESET")
        preset = found[0]
    text = initial_config(preset, variables, NAME if output == "-" else output)
    if output == "-":
        print(text, end="")
        return
    try:
        with Path(output).open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        say(f"{output} exists already; name another file with --output")
        raise typer.Exit(2) from None
    except OSError as error:
        say(f"can't write {output}: {error.strerror}")
        raise typer.Exit(2) from None
    if preset is None:
        say(f"{output}: for an API of your own; set its base_url, limits and keys")
    else:
        keys = variables_of(preset, variables)
        whose = f"with the keys of {', '.join(keys)}" if keys else "without a key yet"
        say(f"{output}: for {preset}, {whose}; set the limits to what your plan allows")
    say(f"then: apiflux check-config {output}")
