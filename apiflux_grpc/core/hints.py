"""What an answer's headers tell of its key's limits.

Rule: a hint may only tighten. What can't be read is ignored and counted; nothing here raises, whatever an upstream
sends, and the work is bounded: a value longer than a limit's header can be isn't looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from apiflux_grpc.core.model import Counts
from apiflux_grpc.core.structured import LONGEST_VALUE, MOST_ITEMS, integer, members
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.core.waits import DECIMAL, LONGEST_RESET, clock_of, reset_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from apiflux_grpc.core.headers import Headers
    from apiflux_grpc.core.model import Limit


@dataclass(slots=True)
class Hint:
    """What the upstream says is left of one limit of the key that made the call.

    `reset_in` (ns, at most LONGEST_RESET) is until when that holds; None: it doesn't say. `max` and `per` (ns) are
    the limit that it means, as far as it says. `counts` None: it doesn't say what the limit counts.
    """

    remaining: int
    reset_in: int | None
    max: int | None
    per: int | None
    counts: Counts | None
    name: str = field(default="", compare=False)  # of its header, or of its policy: a newer word replaces it
    resource: str = field(
        default="", compare=False
    )  # of which calls the limit is, in the upstream's words; "": of all, for all that is told

    def means(self, limit: Limit) -> bool:
        """Whether this may be the limit, by all that the hint tells."""
        return self.max in (None, limit.max) and self.per in (None, limit.per) and self.counts in (None, limit.counts)


def hints(headers: Headers, wall_now: datetime) -> tuple[list[Hint], int]:
    """What an answer's headers say is left of its key's limits, and how many of their values can't be read.

    Read are `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers (-08 to -11: lists of items;
    -07: `limit=100, remaining=50, reset=5`), `RateLimit-Limit`, `-Remaining` and `-Reset` of its versions up to -06,
    `x-ratelimit-*` with the unit first or last (OpenAI's, GitHub's, Kong's and Envoy's among them), `x-rate-limit-*`
    (Twitter's) and `anthropic-ratelimit-*`. Names are in lower case, the values of one name joined by ", ".

    A period is in a name or a policy, or told by `-interval-seconds` and `-replenish-rate` (per second); which calls a
    limit is of, by `x-ratelimit-resource` or `x-ratelimit-bucket`.

    Limits of bytes and of concurrent requests are no business of a window and give no hint. An answer without any
    such header costs one look for its names.
    """
    told_by = headers.names
    plan = _plans[told_by] if told_by in _plans else _plan(told_by)
    if plan is None:
        return NO_HINTS, 0
    if plan.plain is not None and (hint := _plain(plan.plain, headers)) is not None:
        return [hint], 0
    reader = _Reader(clock_of(headers, wall_now))
    if plan.policy:
        reader.read_policies(headers["ratelimit-policy"])
    if plan.item:
        reader.read_ratelimit(headers["ratelimit"])
    resource = "" if plan.resource is None else headers[plan.resource][:_LONGEST_NAME]
    for place, names in plan.groups:
        texts = [None if name is None else headers[name] for name in names]
        reader.read_group(place, texts, resource if place.group.startswith("x-") else "")
    return reader.hints, reader.malformed


def _plain(group: _Group, headers: Headers) -> Hint | None:
    """The hint of an answer with one group of whole numbers, which are nearly all that tell; None: it has others."""
    place, (limit, remaining, reset, _, _) = group
    left = None if remaining is None else integer(headers[remaining])
    most = None if limit is None else integer(headers[limit])
    end = None if reset is None else integer(headers[reset])
    if left is None or (most is None and limit is not None):
        return None
    if reset is not None and (end is None or end >= _EPOCH):
        return None
    return Hint(left, _capped(end), most, place.per, place.counts, place.group)


class _Plan(NamedTuple):
    """Which of an answer's headers tell of limits: it follows from their names, which are always the same ones."""

    policy: bool
    item: bool
    resource: str | None
    groups: tuple[_Group, ...]
    plain: _Group | None  # nothing else tells


_plans: Final[dict[tuple[str, ...], _Plan | None]] = {}


def _plan(names: tuple[str, ...]) -> _Plan | None:
    """The plan for an answer's names, seen for the first time; kept, unless it is an upstream that invents names."""
    plan = _planned(names)
    if sum(map(len, names)) <= _LONGEST_NAMES:
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        _plans[names] = plan
    return plan


def _planned(names: tuple[str, ...]) -> _Plan | None:
    told = [name for name in dict.fromkeys(names) if "rate" in name]
    groups: dict[str, tuple[_Place, list[str | None]]] = {}
    for name in told:
        place = _place(name) if name.startswith(_PREFIXES) and len(name) <= _LONGEST_NAME else None
        if place is not None:
            fields = groups.setdefault(place.group, (place, [None] * (_PER_SECOND + 1)))[1]
            fields[place.field] = name
    policy, item = "ratelimit-policy" in told, "ratelimit" in told
    if not (groups or policy or item):
        return None
    resource = next((name for name in _RESOURCES if name in told), None)
    found = tuple((place, tuple(fields)) for place, fields in groups.values())
    is_plain = len(found) == 1 and not (policy or item or resource) and found[0][1][_INTERVAL:] == (None, None)
    return _Plan(policy, item, resource, found, found[0] if is_plain else None)


class _Place(NamedTuple):
    """What a header's name says. The headers of one group speak of one limit."""

    group: str
    field: int
    counts: Counts | None
    per: int | None


_Group = tuple[_Place, tuple[str | None, ...]]  # and the headers of its fields, by number
NO_HINTS: Final[list[Hint]] = []  # of nearly all answers; nobody adds to it
_FIELDS: Final = {"limit": 0, "remaining": 1, "reset": 2}
_INTERVAL: Final = 3
_PER_SECOND: Final = 4
# Of Atlassian's, and of Spring Cloud Gateway's.
_SUFFIXES: Final = {"interval-seconds": _INTERVAL, "replenish-rate": _PER_SECOND, "burst-capacity": 0}
_RESOURCES: Final = ("x-ratelimit-resource", "x-ratelimit-bucket")
_EPOCH: Final = 10**9  # a number of seconds from here on is an instant; see waits.py
_PREFIXES: Final = ("x-ratelimit-", "anthropic-ratelimit-", "ratelimit-", "x-rate-limit-")
_UNITS: Final = {
    "": None,
    "requests": Counts.CALLS,
    "tokens": Counts.COST,
    "input-tokens": Counts.COST,
    "output-tokens": Counts.COST,
}
_PERIODS: Final = {"second": SECOND, "minute": 60 * SECOND, "hour": 3600 * SECOND, "day": 86_400 * SECOND}
_LONGEST_NAME: Final = 64
_LONGEST_NAMES: Final = 2048  # of one answer, in all
_MOST_PLANS: Final = 64


@lru_cache(maxsize=256)
def _place(name: str) -> _Place | None:
    """Which limit a header's name speaks of, and which of _FIELDS it is; None: of none that we know."""
    prefix = next(prefix for prefix in _PREFIXES if name.startswith(prefix))
    words = name[len(prefix) :].split("-")
    if words[0] in _FIELDS:
        number = _FIELDS[words.pop(0)]
    elif words[-1] in _FIELDS:
        number = _FIELDS[words.pop()]
    elif "-".join(words[-2:]) in _SUFFIXES:
        number = _SUFFIXES["-".join(words[-2:])]
        words = words[:-2]
    else:
        return None
    group = prefix + "-".join(words)
    per = _PERIODS.get(words[-1]) if words else None
    unit = "-".join(words if per is None else words[:-1])
    return _Place(group, number, _UNITS[unit], per) if unit in _UNITS else None


class _Policy(NamedTuple):
    """One item of RateLimit-Policy."""

    max: int | None
    per: int | None
    counts: Counts | None


class _Reader:
    """Reads the headers of one answer, and counts what it can't read."""

    __slots__ = ("_now", "_policies", "_windows", "hints", "malformed")

    def __init__(self, wall_now: datetime) -> None:
        self.hints: list[Hint] = []
        self.malformed = 0
        self._now = wall_now
        self._policies: dict[str, _Policy | None] = {}  # by name; None: of no business here
        self._windows: dict[int, int] = {}  # ns by quota, of policies without a name (up to draft -07)

    def read_policies(self, text: str) -> None:
        """RateLimit-Policy: `"default";q=100;w=60;qu="requests"`, or `100;w=60` up to draft -07."""
        for _, name, parameters in self._members(text):
            if name[0] not in '"*' and not name[0].isalpha():
                self._window(name, parameters, self._windows)
                continue
            counts: Counts | None = Counts.CALLS  # what the draft says if no unit is given
            if "qu" in parameters:
                unit = parameters["qu"].strip('"')
                if unit in _NO_WINDOW:
                    self._policies[_name(name)] = None
                    continue
                if unit not in _CALLS:
                    counts = Counts.COST if unit[:1].isalpha() else None
                if counts is None:
                    self.malformed += 1
            quota = self._number(parameters.get("q"))
            per = self._per(parameters)
            self._policies[_name(name)] = _Policy(quota, per, counts)

    def _window(self, quota: str, parameters: dict[str, str], windows: dict[int, int]) -> None:
        number = self._number(quota)
        per = self._per(parameters)
        if number is not None and per is not None:
            windows.setdefault(number, per)

    def _per(self, parameters: dict[str, str]) -> int | None:
        """The window, in ns; None: not said, or unreadable."""
        if "w" not in parameters:
            return None
        seconds = self._checked(integer(parameters["w"]) or None)
        return None if seconds is None else seconds * SECOND

    def read_ratelimit(self, text: str) -> None:
        """RateLimit: `"default";r=50;t=30`, or the dictionary of draft -07."""
        dictionary: dict[str, str] = {}
        for key, name, parameters in self._members(text):
            if key:
                dictionary[key] = name
                continue
            policy = self._policies.get(_name(name), _UNKNOWN)
            if policy is None:
                continue
            remaining = self._number(parameters.get("r"))
            reset = self._number(parameters["t"]) if "t" in parameters else None
            if remaining is not None:
                self.hints.append(Hint(remaining, _capped(reset), policy.max, policy.per, policy.counts, name))
        if dictionary:
            values = [self._number(dictionary[key]) if key in dictionary else None for key in _FIELDS]
            limit, remaining, reset = values
            if remaining is not None:
                per = None if limit is None else self._windows.get(limit)
                self.hints.append(Hint(remaining, _capped(reset), limit, per, None, "ratelimit"))

    def read_group(self, place: _Place, texts: Sequence[str | None], resource: str) -> None:
        """The fields of one limit, each a header of its own.

        Two gateways in a row make two values of each, in the same order; if their numbers differ, it can't be
        said which belongs to which.
        """
        limit, remaining, reset, interval, per_second = texts
        windows = self._windows if place.group == "ratelimit-" else _NOTHING
        if limit is not None and ";" in limit[:LONGEST_VALUE]:
            limit, windows = self._limit_with_policies(limit)
        lasts = SECOND if per_second is not None else place.per
        if interval is not None and (seconds := self._number(interval)):
            lasts = seconds * SECOND
        left = self._values(remaining, _amount)
        most = self._values(limit, _amount)
        ends = self._values(reset, self._reset_in)
        for index, amount in enumerate(left):
            end = self._beside(left, ends, index)
            top = self._beside(left, most, index)
            if amount is None:
                continue
            per = lasts
            if per is None and top is not None:
                per = windows.get(top)
            self.hints.append(Hint(amount, end, top, per, place.counts, f"{place.group}{index or ''}", resource))

    def _beside(self, left: Sequence[int | None], others: Sequence[int | None], index: int) -> int | None:
        """The value that belongs to left[index]; None: there is none, or it can't be told which."""
        if len(others) == len(left):
            return others[index]
        if others and not index:
            self.malformed += 1
        return None

    def _reset_in(self, text: str) -> int | None:
        return reset_in(text, self._now)

    def _limit_with_policies(self, text: str) -> tuple[str | None, dict[int, int]]:
        """`10, 10;w=1, 1000;w=3600` (drafts -00 to -02, and Envoy): the limits alone, and the windows by quota."""
        windows: dict[int, int] = {}
        plain: list[str] = []
        quotas: list[str] = []
        for _, quota, parameters in self._members(text):
            if parameters:
                self._window(quota, parameters, windows)
                quotas.append(quota)
            else:
                plain.append(quota)
        return ",".join(plain or quotas[:1]) or None, windows

    # -- values -------------------------------------------------------------------------------

    def _checked(self, value: int | None) -> int | None:
        if value is None:
            self.malformed += 1
        return value

    def _number(self, text: str | None) -> int | None:
        """An Integer of a structured field that may not be negative; None: missing or something else."""
        return self._checked(None if text is None else integer(text))

    def _values(self, text: str | None, parse: Callable[[str], int | None]) -> Sequence[int | None]:
        """The values of one header, nearly always one."""
        if text is None:
            return ()
        parts = text.split(",", MOST_ITEMS) if len(text) <= LONGEST_VALUE else ()
        if not 0 < len(parts) <= MOST_ITEMS:
            self.malformed += 1
            return ()
        values = [parse(part) for part in parts]
        self.malformed += values.count(None)
        return values

    def _members(self, text: str) -> list[tuple[str, str, dict[str, str]]]:
        found = members(text)
        if found is None:
            self.malformed += 1
        return found or []


_UNKNOWN: Final = _Policy(None, None, None)
_NOTHING: Final[dict[int, int]] = {}
_CALLS: Final = ("requests", "request")  # the draft's text, and its registry
_NO_WINDOW: Final = ("content-bytes", "concurrent-requests")


def _name(bare: str) -> str:
    return bare.strip('"')


def _capped(seconds: int | None) -> int | None:
    return None if seconds is None else min(seconds * SECOND, LONGEST_RESET)


def _amount(text: str) -> int | None:
    """A number that may have a fraction (Reddit's `99.0`), rounded down: a hint may only tighten."""
    text = text.strip()
    number = integer(text)
    if number is None and (match := DECIMAL.fullmatch(text)):
        number = int(match[1])
    return number
