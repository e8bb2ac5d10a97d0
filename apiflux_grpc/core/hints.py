"""What an answer's headers tell of its key's limits.

Rule: a hint may only tighten. What can't be read is ignored and counted; nothing here raises, whatever an upstream
sends, and the work is bounded: a value longer than a limit's header can be isn't looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from apiflux_grpc.core.hintplan import FIELDS, LONGEST_NAME, plan_for, plans
from apiflux_grpc.core.model import Counts
from apiflux_grpc.core.structured import LONGEST_VALUE, MOST_ITEMS, integer, members
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.core.waits import DECIMAL, LONGEST_RESET, clock_of, reset_in, reset_span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from apiflux_grpc.core.headers import Headers
    from apiflux_grpc.core.hintplan import Place, Plan, Single
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
    names = headers.names
    plan = plans[names] if names in plans else plan_for(names)
    if plan is None:
        return NO_HINTS, 0
    found = _plain(plan, headers, wall_now) if plan.plain else _single(plan.single, headers) if plan.single else None
    return in_full(headers, wall_now) if found is None else (found, 0)


def in_full(headers: Headers, wall_now: datetime) -> tuple[list[Hint], int]:
    """As hints(), which has short ways for the usual headers and says the same."""
    plan = plan_for(headers.names)
    if plan is None:
        return NO_HINTS, 0
    reader = _Reader(clock_of(headers, wall_now))
    if plan.policy:
        reader.read_policies(headers["ratelimit-policy"])
    if plan.item:
        reader.read_ratelimit(headers["ratelimit"])
    resource = "" if plan.resource is None else headers[plan.resource][:LONGEST_NAME]
    for place, names in plan.groups:
        texts = [None if name is None else headers[name] for name in names]
        reader.read_group(place, texts, resource if place.group.startswith("x-") else "")
    return reader.hints, reader.malformed


# -- the usual ones, read in short: each says what _Reader says, or None: it has to be asked ---------


def _plain(plan: Plan, headers: Headers, wall_now: datetime) -> list[Hint] | None:
    """The hints of an answer whose limits are told in whole numbers, with any reset: nearly all that tell."""
    found = []
    clock: datetime | None = None
    for place, limit, remaining, reset in plan.plain:
        left = integer(headers.at(remaining))
        most = None if limit is None else integer(headers.at(limit))
        if left is None or (most is None and limit is not None):
            return None
        end: int | None = None
        if reset is not None:
            text = headers.at(reset)
            if len(text) > LONGEST_NAME or "," in text:
                return None
            end = reset_span(text)
            if end is None:
                clock = clock or clock_of(headers, wall_now)
                end = reset_in(text, clock)
                if end is None:
                    return None
        resource = "" if plan.resource is None or not place.group.startswith("x-") else headers[plan.resource]
        found.append(Hint(left, end, most, place.per, place.counts, place.group, resource[:LONGEST_NAME]))
    return found


_ITEM: Final = re.compile(r'("[a-z0-9_-]{0,64}");r=([0-9]{1,15})(?:;t=([0-9]{1,15}))?')


def _single(single: Single, headers: Headers) -> list[Hint] | None:
    """The hint of an answer that tells of one limit by RateLimit alone, or with its policies."""
    match = _ITEM.fullmatch(headers.at(single.item))
    if match is None:
        return None
    policy = _UNKNOWN
    if single.policy is not None:
        text = headers.at(single.policy)
        if len(text) > LONGEST_VALUE:
            return None
        policies, malformed = _policies_of(text)
        of_item = policies.get(_name(match[1]), _UNKNOWN)
        if malformed or of_item is None:
            return None
        policy = of_item
    reset = None if match[3] is None else _capped(int(match[3]))
    return [Hint(int(match[2]), reset, policy.max, policy.per, policy.counts, match[1])]


@lru_cache(maxsize=64)  # an upstream's policies hardly change
def _policies_of(text: str) -> tuple[Mapping[str, _Policy | None], int]:
    """What RateLimit-Policy says, by name, and how much of it can't be read."""
    reader = _Reader(_NEVER)
    reader.read_policies(text)
    return reader.policies, reader.malformed


NO_HINTS: Final[list[Hint]] = []  # of nearly all answers; nobody adds to it


class _Policy(NamedTuple):
    """One item of RateLimit-Policy."""

    max: int | None
    per: int | None
    counts: Counts | None


class _Reader:
    """Reads the headers of one answer, and counts what it can't read."""

    __slots__ = ("_now", "_windows", "hints", "malformed", "policies")

    def __init__(self, wall_now: datetime) -> None:
        self.hints: list[Hint] = []
        self.malformed = 0
        self._now = wall_now
        self.policies: dict[str, _Policy | None] = {}  # by name; None: of no business here
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
                    self.policies[_name(name)] = None
                    continue
                if unit not in _CALLS:
                    counts = Counts.COST if unit[:1].isalpha() else None
                if counts is None:
                    self.malformed += 1
            quota = self._number(parameters.get("q"))
            per = self._per(parameters)
            self.policies[_name(name)] = _Policy(quota, per, counts)

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
            policy = self.policies.get(_name(name), _UNKNOWN)
            if policy is None:
                continue
            remaining = self._number(parameters.get("r"))
            reset = self._number(parameters["t"]) if "t" in parameters else None
            if remaining is not None:
                self.hints.append(Hint(remaining, _capped(reset), policy.max, policy.per, policy.counts, name))
        if dictionary:
            values = [self._number(dictionary[key]) if key in dictionary else None for key in FIELDS]
            limit, remaining, reset = values
            if remaining is not None:
                per = None if limit is None else self._windows.get(limit)
                self.hints.append(Hint(remaining, _capped(reset), limit, per, None, "ratelimit"))

    def read_group(self, place: Place, texts: Sequence[str | None], resource: str) -> None:
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


_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)  # of policies, which tell no time
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
