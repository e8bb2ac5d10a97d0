"""What was found on the way: faults and warnings, each with its place.

Rule: a fault that only follows from an earlier one isn't reported. So whoever adds one names all the fields that it
judges; if one of them is at fault already, nothing can be said of them together.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from apiflux_grpc.settings.types import Fault
from apiflux_grpc.settings.values import is_name

if TYPE_CHECKING:
    from collections.abc import Sequence

Place = tuple[str | int, ...]  # the source ("" for the environment), then the way to the field


class Findings:
    """The faults and warnings of one load."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.warnings: list[str] = []
        self._places: set[Place] = set()

    def fault(self, place: Place, message: str, *involved: Place) -> None:
        """`involved`: the other fields that this judges."""
        if any(one[:end] in self._places for one in (place, *involved) for end in range(1, len(one) + 1)):
            return
        self.excuse(place)
        self.faults.append(Fault(written(place), message))

    def has_below(self, place: Place) -> bool:
        """Whether a fault was found here, or in a part of it."""
        return any(one[: len(place)] == place for one in self._places)

    def excuse(self, place: Place) -> None:
        """From now on nothing is said of this field."""
        self._places.add(place)

    def warn(self, place: Place, message: str) -> None:
        """Say something about a field that works as it is."""
        self.warnings.append(f"{written(place)}: {message}")

    def exclusive(self, table: Place, given: Sequence[str], names: Sequence[str]) -> None:
        """Of these names of a table exactly one must be set; `given` are those that are."""
        if not given:
            *others, last = (f"`{name}`" for name in names)
            text = f"is missing; set {', '.join(others)} or {last}"
            self.fault((*table, names[0]), text, *((*table, name) for name in names))
        elif len(given) > 1:
            self.fault((*table, given[-1]), f"conflicts with `{given[0]}`; set one of them")


def written(place: Place) -> str:
    """A place in words: `FILE: pools.default.keys[0].label`."""
    source, *way = place
    text = ""
    for part in way:
        text += f"[{part}]" if isinstance(part, int) else f".{_part(part)}" if text else _part(part)
    return f"{source}: {text}" if source and text else f"{source}{text}"


def _part(name: str) -> str:
    """A name as TOML writes it; a long one cut, for it may be a secret in the wrong place."""
    name = name if len(name) <= 64 else f"{name[:61]}..."
    return name if is_name(name) and "." not in name else json.dumps(name)
