"""What an answer tells of its key's limits, in the words of a dialect.

The rule: a limit is told as what `remaining` is out of, which of a bucket is its depth. What doesn't change from answer
to answer is written once; an answer costs one formatting of each limit that it tells. Whatever is a time is rounded up:
who comes then isn't early.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from re import compile as regex
from typing import Any, Final, NamedTuple

from apiflux_grpc.core.units import MILLISECOND, SECOND, format_duration
from apiflux_grpc.judge.apis.api import Said
from apiflux_grpc.judge.dialects import Dialect, Reset
from apiflux_grpc.judge.limits import Left, Limit

Fields = tuple[str, ...]


class _Told(NamedTuple):
    """Headers as they are written, with %s for each word of `later` of the limit at this place."""

    place: int  # of the limit whose share decides, where only one of several is told
    text: str
    later: tuple[tuple[int, str], ...]


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
            told = group[0] if len(group) == 1 else min(group, key=lambda one: self._share(one.place, left))
            found.append(told.text % tuple([self._later(place, word, left[place], wall) for place, word in told.later]))
        return tuple(found)

    def refusal(self, limit: Limit, wait_ns: int) -> Said:
        """The answer to an arrival that this limit refuses; `fields` come on top of it."""
        dialect, words = self._dialect, self._words[self._limits.index(limit)]
        waits = (f"Retry-After: {-(-wait_ns // SECOND)}",)
        if dialect.secondary and limit != _primary(dialect, self._limits):
            return Said(429, dialect.secondary, dialect.content_type, waits)
        fields = waits if dialect.retry_after else ()
        return Said(dialect.status, _filled(dialect.body, words), dialect.content_type, fields)

    def _share(self, place: int, left: Sequence[Left]) -> float:
        return left[place].remaining / self._limits[place].most

    def _later(self, place: int, word: str, left: Left, wall: float) -> int | str:
        if word == "remaining":
            return left.remaining
        if word == "used":
            return max(0, self._limits[place].most - left.remaining)
        return self._reset(left.soonest if self._dialect.resets == "soonest" else left.whole, wall)

    def _date_field(self, wall: float) -> str:
        """Date, which instants are read by; written once a second."""
        second = int(wall)
        if self._date[0] != second:
            self._date = (second, f"Date: {formatdate(second, usegmt=True)}")
        return self._date[1]


def _primary(dialect: Dialect, limits: Sequence[Limit]) -> Limit | None:
    """The one of the longest period, of those that the dialect has a word for."""
    told = (limit for limit in limits if limit.counts in dialect.units)
    return max(told, key=lambda limit: limit.per_ns, default=None)


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
        found.append({"max": str(limit.most), "unit": unit, "name": name, "window": window, "unit_of_quota": of_quota})
    return found


def _groups(dialect: Dialect, limits: Sequence[Limit], words: Sequence[Mapping[str, str]]) -> list[list[_Told]]:
    """The headers of each answer. Of limits in one group, those that have the same headers, one is told."""
    told = [
        (place, {**words[place], "unit": unit})
        for place, limit in enumerate(limits)
        if dialect.headers and (not dialect.secondary or limit == _primary(dialect, limits))
        for unit in dialect.units.get(limit.counts, ())
    ]
    if dialect.lists:
        return [[_told(dialect, told)]] if told else []
    groups: dict[str, list[_Told]] = {}
    for place, known in told:
        groups.setdefault(known["unit"], []).append(_told(dialect, [(place, known)]))
    return list(groups.values())


def _told(dialect: Dialect, told: Sequence[tuple[int, Mapping[str, str]]]) -> _Told:
    """The dialect's headers for these limits, each header once."""
    lines, later = [], []
    for name, value in dialect.headers:
        items = []
        for place, known in told:
            known = {**known, **dict.fromkeys(LATER, "%s")}
            items.append(value.format_map(known))
            later += [(place, word) for word in WORD.findall(value) if word in LATER]
        lines.append(f"{name.format_map(told[0][1])}: {', '.join(items)}")
    return _Told(told[0][0], "\r\n".join(lines), tuple(later))


LATER: Final = ("remaining", "used", "reset")  # what only the answer knows
WORD: Final = regex(r"{(\w+)}")


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
