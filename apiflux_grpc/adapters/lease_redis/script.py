"""The script that serves one round, as Redis gets it: the Lua files of this folder in their order, and the numbers of
core/lease before them, in microseconds.

Redis' numbers are doubles. They hold whole microseconds since 1970 exactly until the year 2255, and of nanoseconds not
even this year's. What the store reckons from whole microseconds is whole again (core/lease/terms.py).
"""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final, NamedTuple

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.lease import terms
from apiflux_grpc.core.lease.codec import LAYOUT
from apiflux_grpc.core.lease.facts import MOST_FACTS
from apiflux_grpc.core.lease.shares import PACE
from apiflux_grpc.core.units import MICROSECOND
from apiflux_grpc.core.window import GROUPS, STEP

_PARTS: Final = ("terms", "level", "entry", "hours", "shares", "use", "facts", "slots", "thaw", "serve", "main")
_SPANS: Final = ("OFF", "BEAT", "PROBATION", "LAPSE", "FAILOVER_LAG", "LONG", "CLAIM", "SLOT_PACE", "TURN")


class Script(NamedTuple):
    """Its text, and the name by which a server that has seen it knows it."""

    text: str
    sha: str


@cache
def script() -> Script:
    """The script."""
    numbers = {name: getattr(terms, name) // MICROSECOND for name in _SPANS}
    numbers |= {"LAYOUT": LAYOUT, "DRIFT": terms.DRIFT, "GROUPS": GROUPS, "PACE": PACE, "FAR": FAR}
    numbers |= {"MOST_FACTS": MOST_FACTS, "STEP": STEP}
    parts = [f"local {name} = {number}\n" for name, number in numbers.items()]
    parts += [files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in _PARTS]
    return named("".join(parts))


def named(text: str) -> Script:
    """The script of this text."""
    return Script(text, sha1(text.encode()).hexdigest())
