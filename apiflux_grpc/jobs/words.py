"""Rates as people read them, and the time that is left of something; how many, and what something took, is in units."""

from __future__ import annotations

import math


def whole_seconds(seconds: float) -> int:
    """Rounded up, and at least 1."""
    return max(1, math.ceil(seconds - 1e-6))


def clock_time(seconds: float) -> str:
    """How long something still takes, in whole seconds: `0:09`, `2:51`, `1:02:51`, `3 d 4 h`."""
    hours, rest = divmod(whole_seconds(seconds), 3600)
    if hours >= 24:
        return f"{hours // 24:,} d {hours % 24} h"
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def rate(per_second: float) -> str:
    """How many in a second, or, if that is less than one, in a minute or an hour: `83/s`, `0.5/s` is `30/min`."""
    for seconds, unit in ((1, "s"), (60, "min")):
        if per_second * seconds >= 1:
            return f"{_short(per_second * seconds)}/{unit}"
    return f"{_short(per_second * 3600)}/h"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 9.95 else f"{number:.1f}".removesuffix(".0")
