"""Numbers and lengths of time as people read them."""

from __future__ import annotations

import math


def counted(number: int, noun: str) -> str:
    """`1 call`, `2,500 calls`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def clock_time(seconds: float) -> str:
    """How long something still takes, rounded up: `0:09`, `2:51`, `1:02:51`, `3 d 4 h`."""
    whole = max(1, math.ceil(seconds - 1e-6))
    hours, rest = divmod(whole, 3600)
    if hours >= 24:
        return f"{hours // 24:,} d {hours % 24} h"
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def length(seconds: float) -> str:
    """How long something took: `45 ms`, `2.5 s`, `3 min 20 s`, `16 h 40 min`."""
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def rate(per_second: float) -> str:
    """How many in a second, or, if that is less than one, in a minute or an hour: `83/s`, `0.5/s` is `30/min`."""
    for length, unit in ((1, "s"), (60, "min")):
        if per_second * length >= 1:
            return f"{_short(per_second * length)}/{unit}"
    return f"{_short(per_second * 3600)}/h"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 9.95 else f"{number:.1f}".removesuffix(".0")
