"""What an answer's headers tell of its key's limits.

Rule: a hint may only tighten. What can't be read is ignored and counted; nothing here raises, whatever an upstream
sends, and the work is bounded: a value longer than a limit's header can be isn't looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from apiflux_grpc.core.model import Counts
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.core.waits import DECIMAL, LONGEST_RESET, clock_of, reset_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from apiflux_grpc.core.headers import Headers
    from apiflux_grpc.core.model import Limit

LONGEST_VALUE: Final = 1024  # characters of one header
MOST_ITEMS: Final = 32  # in one header


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

    def means(self, limit: Limit) -> bool:
        """Whether this may be the limit, by all that the hint tells."""
        return self.max in (None, limit.max) and self.per in (None, limit.per) and self.counts in (None, limit.counts)


def hints(headers: Headers, wall_now: datetime) -> tuple[list[Hint], int]:
    """What an answer's headers say is left of its key's limits, and how many of their values can't be read.

    Read are `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers (-08 to -11: lists of items;
    -07: `limit=100, remaining=50, reset=5`), `RateLimit-Limit`, `-Remaining` and `-Reset` of its versions up to -06,
    `x-ratelimit-*` with the unit first or last (OpenAI's, GitHub's, Kong's and Envoy's among them), `x-rate-limit-*`
    (Twitter's) and `anthropic-ratelimit-*`.

    Limits of bytes and of concurrent requests are no business of a window and give no hint. An answer without any
    such header costs one search for "rate" in each name.
    """
    names = [name for name in headers.names if "rate" in name]
    if not names:
        return [], 0
    reader = _Reader(clock_of(headers, wall_now))
    policy = headers.get("ratelimit-policy")
    if policy is not None:
        reader.read_policies(policy)
    item = headers.get("ratelimit")
    if item is not None:
        reader.read_ratelimit(item)
    groups: dict[str, tuple[_Place, list[str | None]]] = {}
    for name in dict.fromkeys(names):  # a repeated one is read once, with all of its values
        # Names are the upstream's to choose: a long one must not stay in the cache.
        place = _place(name) if name.startswith(_PREFIXES) and len(name) <= _LONGEST_NAME else None
        if place is not None:
            group = groups.get(place.group)
            if group is None:
                groups[place.group] = group = (place, [None, None, None])
            group[1][place.field] = headers[name]
    for place, (limit, remaining, reset) in groups.values():
        reader.read_group(place, limit, remaining, reset)
    return reader.hints, reader.malformed


class _Place(NamedTuple):
    """What a header's name says. The headers of one group speak of one limit."""

    group: str
    field: int
    counts: Counts | None
    per: int | None


_FIELDS: Final = {"limit": 0, "remaining": 1, "reset": 2}
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


@lru_cache(maxsize=256)
def _place(name: str) -> _Place | None:
    """Which limit a header's name speaks of, and which of _FIELDS it is; None: of none that we know."""
    prefix = next(prefix for prefix in _PREFIXES if name.startswith(prefix))
    words = name[len(prefix) :].split("-")
    if words[0] in _FIELDS:
        field = words.pop(0)
    elif words[-1] in _FIELDS:
        field = words.pop()
    else:
        return None
    group = prefix + "-".join(words)
    per = _PERIODS.get(words[-1]) if words else None
    unit = "-".join(words if per is None else words[:-1])
    return _Place(group, _FIELDS[field], _UNITS[unit], per) if unit in _UNITS else None


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
        for _, name, parameters in self._list(text):
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
        seconds = self._checked(_integer(parameters["w"]) or None)
        return None if seconds is None else seconds * SECOND

    def read_ratelimit(self, text: str) -> None:
        """RateLimit: `"default";r=50;t=30`, or the dictionary of draft -07."""
        dictionary: dict[str, str] = {}
        for key, name, parameters in self._list(text):
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

    def read_group(self, place: _Place, limit: str | None, remaining: str | None, reset: str | None) -> None:
        """Limit, remaining and reset of one limit, each a header of its own.

        Two gateways in a row make two values of each, in the same order; if their numbers differ, it can't be
        said which belongs to which.
        """
        windows = self._windows if place.group == "ratelimit-" else _NOTHING
        if limit is not None and ";" in limit[:LONGEST_VALUE]:
            limit, windows = self._limit_with_policies(limit)
        left = self._values(remaining, _amount)
        most = self._values(limit, _amount)
        ends = self._values(reset, self._reset_in)
        for index, amount in enumerate(left):
            end = self._beside(left, ends, index)
            top = self._beside(left, most, index)
            if amount is None:
                continue
            per = place.per
            if per is None and top is not None:
                per = windows.get(top)
            self.hints.append(Hint(amount, end, top, per, place.counts, f"{place.group}{index or ''}"))

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
        for _, quota, parameters in self._list(text):
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
        return self._checked(None if text is None else _integer(text))

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

    def _list(self, text: str) -> list[tuple[str, str, dict[str, str]]]:
        """A List, or a Dictionary: (key or "", bare item, parameters) of each member, RFC 9651 section 4.2.

        One fault spoils the whole field, as that section says. Spaces before ";" pass: early drafts had them.
        """
        members: list[tuple[str, str, dict[str, str]]] = []
        if len(text) > LONGEST_VALUE:
            self.malformed += 1
            return []
        text = text.strip(" \t")
        end = len(text)
        position = 0
        while position < end:
            member = _MEMBER.match(text, position) if len(members) < MOST_ITEMS else None
            if member is None:
                self.malformed += 1
                return []
            position = member.end()
            parameters: dict[str, str] = {}
            while parameter := _PARAMETER.match(text, position):
                parameters[parameter[1]] = parameter[2] or "?1"
                position = parameter.end()
            members.append((member[1] or "", member[2], parameters))
            if position < end:
                comma = _COMMA.match(text, position)
                if comma is None or comma.end() == end:
                    self.malformed += 1
                    return []
                position = comma.end()
        return members


_UNKNOWN: Final = _Policy(None, None, None)
_NOTHING: Final[dict[int, int]] = {}
_CALLS: Final = ("requests", "request")  # the draft's text, and its registry
_NO_WINDOW: Final = ("content-bytes", "concurrent-requests")
_KEY: Final = r"[a-z*][a-z0-9_.*-]*"
_BARE: Final = (
    r'"(?:[ !#-\[\]-~]|\\["\\])*"'  # String
    r"|-?[0-9]+(?:\.[0-9]+)?"  # Integer, Decimal
    r"|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*"  # Token
    r"|:[A-Za-z0-9+/=]*:"  # Byte Sequence
    r"|\?[01]"  # Boolean
    r"|@-?[0-9]+"  # Date
    r'|%"[ !#-~]*"'  # Display String
)
_MEMBER: Final = re.compile(rf"(?:({_KEY})=)?({_BARE})")
_PARAMETER: Final = re.compile(rf"[ \t]*;[ \t]*({_KEY})(?:=({_BARE}))?")
_COMMA: Final = re.compile(r"[ \t]*,[ \t]*")


def _name(bare: str) -> str:
    return bare.strip('"')


def _integer(text: str) -> int | None:
    return int(text) if len(text) <= 15 and text.isascii() and text.isdigit() else None


def _capped(seconds: int | None) -> int | None:
    return None if seconds is None else min(seconds * SECOND, LONGEST_RESET)


def _amount(text: str) -> int | None:
    """A number that may have a fraction (Reddit's `99.0`), rounded down: a hint may only tighten."""
    text = text.strip()
    number = _integer(text)
    if number is None and (match := DECIMAL.fullmatch(text)):
        number = int(match[1])
    return number
