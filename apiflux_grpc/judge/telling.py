"""What an answer tells of its key's limits, in the words of a dialect.

The rule: what doesn't change from answer to answer is written once; an answer costs one formatting of each limit that
it tells. Whatever is a time is rounded up: who comes then isn't early.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any, Final, NamedTuple

from apiflux_grpc.core.units import MILLISECOND, SECOND, format_duration
from apiflux_grpc.judge.dialects import Dialect, Reset
from apiflux_grpc.judge.limits import Left, Limit

Fields = tuple[str, ...]


class Refusal(NamedTuple):
    """The answer to an arrival that is over a limit."""

    status: int
    body: Mapping[str, object]
    content_type: str
    fields: Fields


class _Told(NamedTuple):
    """How one limit is told: the values of the dialect's headers, as far as they are known beforehand."""

    place: int  # among the limits
    names: Fields
    values: Fields


class Teller:
    """Tells limits in a dialect; `wall` gives seconds since 1970."""

    def __init__(self, dialect: Dialect, limits: Sequence[Limit], wall: Callable[[], float]) -> None:
        self._dialect = dialect
        self._limits = limits
        self._wall = wall
        self._words = _words(dialect, limits)
        self._groups = _groups(dialect, limits, self._words)
        self._reset = RESETS[dialect.reset]
        self._date = (0, "")
        self.silent = not dialect.headers

    def fields(self, left: Sequence[Left]) -> Fields:
        """The headers of any answer, where this is left of each limit."""
        wall = self._wall()
        found = [self._date_field(wall)]
        for group in self._groups:
            if self._dialect.lists:
                items = [self._values(told, left[told.place], wall) for told in group]
                found += [f"{name}: {', '.join(item[at] for item in items)}" for at, name in enumerate(group[0].names)]
            else:
                told = group[0] if len(group) == 1 else min(group, key=lambda one: self._share(one.place, left))
                values = self._values(told, left[told.place], wall)
                found += [f"{name}: {value}" for name, value in zip(told.names, values, strict=True)]
        return tuple(found)

    def refusal(self, limit: Limit, wait_ns: int) -> Refusal:
        """The answer to an arrival that this limit refuses; `fields` come on top of it."""
        dialect, words = self._dialect, self._words[self._limits.index(limit)]
        waits = (f"Retry-After: {-(-wait_ns // SECOND)}",)
        if dialect.secondary and limit != primary(self._limits):
            return Refusal(429, {"message": "You have exceeded a secondary rate limit."}, dialect.content_type, waits)
        fields = waits if dialect.retry_after else ()
        return Refusal(dialect.status, _filled(dialect.body, words), dialect.content_type, fields)

    def _share(self, place: int, left: Sequence[Left]) -> float:
        return left[place].remaining / self._limits[place].most

    def _values(self, told: _Told, left: Left, wall: float) -> list[str]:
        reset = left.soonest if self._dialect.resets == "soonest" else left.whole
        used = max(0, self._limits[told.place].most - left.remaining)
        words = {"remaining": left.remaining, "used": used, "reset": self._reset(reset, wall)}
        return [value.format_map(words) for value in told.values]

    def _date_field(self, wall: float) -> str:
        """Date, which instants are read by; written once a second."""
        second = int(wall)
        if self._date[0] != second:
            self._date = (second, f"Date: {formatdate(second, usegmt=True)}")
        return self._date[1]


def primary(limits: Sequence[Limit]) -> Limit:
    """The one of the longest period."""
    return max(limits, key=lambda limit: limit.per_ns)


def _words(dialect: Dialect, limits: Sequence[Limit]) -> list[dict[str, str]]:
    """What the words in braces stand for that are the same in all answers, for each limit."""
    found: list[dict[str, str]] = []
    for limit in limits:
        unit = dialect.units.get(limit.counts, (limit.counts,))[0]
        name = f"{unit}-{format_duration(limit.per_ns)}"
        if name in {words["name"] for words in found}:  # of two kinds, say; a policy's name must be its own
            name = f"{name}-{len(found) + 1}"
        window = "" if limit.per_ns % SECOND else f";w={limit.per_ns // SECOND}"  # it can't be told finer
        of_quota = "" if limit.counts == "calls" else f';qu="{unit}"'
        found.append({"max": str(limit.max), "unit": unit, "name": name, "window": window, "unit_of_quota": of_quota})
    return found


def _groups(dialect: Dialect, limits: Sequence[Limit], words: Sequence[Mapping[str, str]]) -> list[list[_Told]]:
    """Of limits in one group, those that share a header, one is told; with lists all are, in one group."""
    groups: dict[str, list[_Told]] = {}
    for place, limit in enumerate(limits):
        if not dialect.headers or (dialect.secondary and limit != primary(limits)):
            continue
        for unit in dialect.units.get(limit.counts, ()):
            known = {**words[place], "unit": unit, **LATER}
            names = tuple(name.format_map(known) for name, _ in dialect.headers)
            values = tuple(value.format_map(known) for _, value in dialect.headers)
            groups.setdefault(names[0], []).append(_Told(place, names, values))
    return list(groups.values())


LATER: Final = {name: f"{{{name}}}" for name in ("remaining", "used", "reset")}


def _filled(body: Any, words: Mapping[str, str]) -> Any:
    if isinstance(body, str):
        return body.format_map(words)
    if isinstance(body, Mapping):
        return {name: _filled(value, words) for name, value in body.items()}
    return [_filled(value, words) for value in body] if isinstance(body, list) else body


# -- how a reset is written ----------------------------------------------------------------------


def _seconds(ns: int, wall: float) -> str:
    return str(-(-ns // SECOND))


def go_duration(ns: int, wall: float = 0.0) -> str:
    """As Go's time.Duration prints it, in whole milliseconds: `0s`, `12ms`, `1.5s`, `6m0s`, `1h0m2s`."""
    ms = -(-ns // MILLISECOND)
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, rest = divmod(ms, 60_000)
    seconds = f"{rest / 1000:g}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}" if minutes else seconds


def _rfc3339(ns: int, wall: float) -> str:
    return datetime.fromtimestamp(_instant(ns, wall), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _epoch(ns: int, wall: float) -> str:
    return str(_instant(ns, wall))


def _instant(ns: int, wall: float) -> int:
    return -int(-(wall + ns / SECOND) // 1)


RESETS: Final[Mapping[Reset, Callable[[int, float], str]]] = {
    "seconds": _seconds,
    "go": go_duration,
    "rfc3339": _rfc3339,
    "epoch": _epoch,
}
