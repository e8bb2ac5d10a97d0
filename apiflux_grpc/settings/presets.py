"""Presets: what is known of well-known APIs, as files in apiflux_grpc/presets that read like a pool.

Rule: a preset is the start of a pool. Each name that the pool sets replaces the preset's whole; only of `answers` both
hold, the pool's own first.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from apiflux_grpc.settings.findings import Findings, Place

_FOLDER: Final = Path(__file__).parents[1] / "presets"


@cache
def preset_names() -> tuple[str, ...]:
    """Every preset, in order."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.toml")))


def preset_text(name: str) -> str:
    """The file of a preset, comments and all."""
    return (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def about(name: str) -> str:
    """What a preset is for: its first line."""
    return preset_text(name).partition("\n")[0].removeprefix("# ")


def with_presets(file: dict[str, Any], findings: Findings, place: Place) -> dict[str, int]:
    """Complete the pools of a raw TOML file, in place; each pool's number of rules from its preset.

    Whatever isn't a pool with a preset is left for others to judge.
    """
    pools = file.get("pools")
    rules: dict[str, int] = {}
    if not isinstance(pools, dict):
        return rules
    for name, pool in pools.items():
        preset = pool.get("preset") if isinstance(pool, dict) else None
        if not isinstance(preset, str):
            continue
        if preset not in preset_names():
            findings.fault((*place, "pools", name, "preset"), f"unknown preset; {instead(preset)}")
            continue
        start = tomllib.loads(preset_text(preset))
        own, more = pool.get("answers", []), start.pop("answers", [])
        pools[name] = {**start, **pool}
        if isinstance(own, list):
            pools[name]["answers"] = [*own, *more]
            rules[name] = len(more)
    return rules


def instead(name: str) -> str:
    """What to write instead of the name of an unknown preset."""
    import difflib  # slow to import, and only mistakes need it

    close = difflib.get_close_matches(name[:64], preset_names(), 1)
    return f"did you mean '{close[0]}'?" if close else f"use one of {', '.join(preset_names())}"
