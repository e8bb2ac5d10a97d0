"""Which of an answer's headers tell of limits, and of which.

Rule: it follows from the names of the headers alone, and an upstream's answers nearly always have the same ones: it is
found out once for them all. What is kept is bounded, whatever names an upstream invents.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from apiflux_grpc.core.model import Counts
from apiflux_grpc.core.units import SECOND

FIELDS: Final = {"limit": 0, "remaining": 1, "reset": 2}
_INTERVAL: Final = 3
_PER_SECOND: Final = 4
# Of Atlassian's, and of Spring Cloud Gateway's.
_SUFFIXES: Final = {"interval-seconds": _INTERVAL, "replenish-rate": _PER_SECOND, "burst-capacity": 0}
_RESOURCES: Final = ("x-ratelimit-resource", "x-ratelimit-bucket")
_PREFIXES: Final = ("x-ratelimit-", "anthropic-ratelimit-", "ratelimit-", "x-rate-limit-")
_UNITS: Final = {
    "": None,
    "requests": Counts.CALLS,
    "tokens": Counts.COST,
    "input-tokens": Counts.COST,
    "output-tokens": Counts.COST,
}
_PERIODS: Final = {"second": SECOND, "minute": 60 * SECOND, "hour": 3600 * SECOND, "day": 86_400 * SECOND}
LONGEST_NAME: Final = 64
_LONGEST_NAMES: Final = 2048  # of one answer, in all
_MOST_PLANS: Final = 64


class Plan(NamedTuple):
    """Which of an answer's headers tell of limits: it follows from their names, which are always the same ones."""

    policy: bool
    item: bool
    resource: str | None
    groups: tuple[Group, ...]
    plain: tuple[Plain, ...]  # all that tells, if it is plain
    single: Single | None  # only RateLimit tells, perhaps with policies, each once


class Plain(NamedTuple):
    """A group of headers, by their places among the names."""

    place: Place
    limit: int | None
    remaining: int
    reset: int | None


class Single(NamedTuple):
    """RateLimit and its policies, by their places among the names."""

    item: int
    policy: int | None


plans: Final[dict[tuple[str, ...], Plan | None]] = {}


def plan_for(names: tuple[str, ...]) -> Plan | None:
    """The plan for an answer's names; kept for the next one, unless it is an upstream that invents names."""
    if names in plans:
        return plans[names]
    plan = _planned(names)
    if sum(map(len, names)) <= _LONGEST_NAMES:
        if len(plans) >= _MOST_PLANS:
            plans.clear()
        plans[names] = plan
    return plan


def _planned(names: tuple[str, ...]) -> Plan | None:
    told = [name for name in dict.fromkeys(names) if "rate" in name]
    groups: dict[str, tuple[Place, list[str | None]]] = {}
    for name in told:
        place = place_of(name) if name.startswith(_PREFIXES) and len(name) <= LONGEST_NAME else None
        if place is not None:
            fields = groups.setdefault(place.group, (place, [None] * (_PER_SECOND + 1)))[1]
            fields[place.field] = name
    policy, item = "ratelimit-policy" in told, "ratelimit" in told
    if not (groups or policy or item):
        return None
    resource = next((name for name in _RESOURCES if name in told), None)
    found = tuple((place, tuple(fields)) for place, fields in groups.values())
    plain = [group for place, fields in found if (group := _plain(names, place, fields)) is not None]
    is_plain = len(plain) == len(found) and not (policy or item)
    single = None
    if item and not found and names.count("ratelimit") == 1 and names.count("ratelimit-policy") <= 1:
        single = Single(names.index("ratelimit"), names.index("ratelimit-policy") if policy else None)
    return Plan(policy, item, resource, found, tuple(plain) if is_plain else (), single)


def _plain(names: tuple[str, ...], place: Place, fields: tuple[str | None, ...]) -> Plain | None:
    """A group that tells each of its fields once, and no others; None: it isn't one."""
    limit, remaining, reset, *others = fields
    if remaining is None or others != [None, None] or any(name and names.count(name) > 1 for name in fields):
        return None
    return Plain(
        place,
        None if limit is None else names.index(limit),
        names.index(remaining),
        None if reset is None else names.index(reset),
    )


class Place(NamedTuple):
    """What a header's name says. The headers of one group speak of one limit."""

    group: str
    field: int
    counts: Counts | None
    per: int | None


Group = tuple[Place, tuple[str | None, ...]]  # and the headers of its fields, by number


@lru_cache(maxsize=256)
def place_of(name: str) -> Place | None:
    """Which limit a header's name speaks of, and which of FIELDS it is; None: of none that we know."""
    prefix = next(prefix for prefix in _PREFIXES if name.startswith(prefix))
    words = name[len(prefix) :].split("-")
    if words[0] in FIELDS:
        number = FIELDS[words.pop(0)]
    elif words[-1] in FIELDS:
        number = FIELDS[words.pop()]
    elif "-".join(words[-2:]) in _SUFFIXES:
        number = _SUFFIXES["-".join(words[-2:])]
        words = words[:-2]
    else:
        return None
    group = prefix + "-".join(words)
    per = _PERIODS.get(words[-1]) if words else None
    unit = "-".join(words if per is None else words[:-1])
    return Place(group, number, _UNITS[unit], per) if unit in _UNITS else None
