"""Durations as the command line spells them."""

from decimal import Decimal
from re import compile as regex
from typing import Final

NS: Final = 1_000_000_000
DURATION: Final = regex(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
UNITS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": NS, "m": 60 * NS, "h": 3600 * NS}


def parse_duration(text: str) -> int:
    """`10ms`, `1.5s`, `1m` in nanoseconds. Raises ValueError for any other form."""
    match = DURATION.fullmatch(text.strip())
    ns = Decimal(match[1]) * UNITS[match[2]] if match else Decimal("NaN")
    if ns.is_nan() or ns != int(ns):
        raise ValueError(f"{text!r} is no duration: expected a number with ns, us, ms, s, m or h, like 10ms")
    return int(ns)


def format_ns(ns: int) -> str:
    """A duration in the largest unit that shows it without a fraction: `60s`, `1500ms`."""
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)):
        if ns % size == 0:
            return f"{ns // size}{unit}"
    return f"{ns}ns"
