"""Broken variants of what a key may still spend: windows, buckets, budgets, reservations; as in variants.py."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

WINDOW: Final = "apiflux_grpc/core/window.py"
BUDGET: Final = "apiflux_grpc/core/budget.py"
ROOM: Final = "apiflux_grpc/core/room.py"
BUCKET: Final = "apiflux_grpc/core/bucket.py"
RESERVATION: Final = "apiflux_grpc/core/reservation.py"
OF_WINDOW: Final = ("tests/core/test_window.py",)
OF_BUDGET: Final = (
    "tests/core/test_budget.py",
    "tests/core/test_bucket.py",
    "tests/core/test_changed_limits.py",
    "tests/core/test_reservation.py",
)
OF_SCHEDULER: Final = (
    "tests/core/test_scheduler.py",
    "tests/core/test_reservation.py",
    "tests/core/test_groups.py",
    "tests/core/test_changed_limits.py",
)
OF_FORECAST: Final = ("tests/core/test_forecast.py",)

LIMITS: Final = (
    Variant(
        "a slot comes back one ns early",
        WINDOW,
        "while log and log[0][0] <= now:",
        "while log and log[0][0] <= now + 1:",
        OF_WINDOW,
    ),
    Variant("no margin for drift", WINDOW, "self.kept = per + per // DRIFT + 1", "self.kept = per", OF_WINDOW),
    Variant(
        "a group ends with its first member",
        WINDOW,
        "if end > tail[0]:\n                    tail[0] = end",
        "if end < tail[0]:\n                    tail[0] = end",
        OF_WINDOW,
    ),
    Variant("groups without end", WINDOW, "if end - tail[2] <= self.span:", "if True:", OF_WINDOW),
    Variant(
        "an overrun of long ago never ends",
        WINDOW,
        "            self.used += difference\n            self.record(now, difference)",
        "            self.used += difference",
        OF_WINDOW,
    ),
    Variant(
        "what has ended is given back again",
        WINDOW,
        "        elif difference > 0:",
        "        elif difference:",
        OF_WINDOW,
    ),
    Variant(
        "every refusal cuts",
        WINDOW,
        "if self.cut_at >= 0 and (taken_at <= self.cut_at or now < self.cut_at + self.per):",
        "if False:",
        OF_WINDOW,
    ),
    Variant("a cut down to nothing", WINDOW, "max(1, int(self.max * CUT))", "int(self.max * CUT)", OF_WINDOW),
    Variant("an heir forgets what is on its way", WINDOW, "        new.used += pending\n", "", OF_WINDOW),
    Variant("what can't be known is free", WINDOW, "            if unknown:", "            if False:", OF_WINDOW),
    Variant(
        "an heir of an heir thinks that it knows all",
        WINDOW,
        "return max(self.since, now - self.kept)",
        "return now - self.kept",
        OF_BUDGET,
    ),
    Variant(
        "an heir ends slots as the old window would",
        WINDOW,
        "new._log.append([end + longer, amount, first + longer])",
        "new._log.append([end, amount, first])",
        OF_WINDOW,
    ),
    Variant(
        "a hanging call is kept without J",
        BUDGET,
        "return flight.last + self.jitter + self.kept\n\n    def answered",
        "return flight.last + self.kept\n\n    def answered",
        OF_BUDGET,
    ),
    Variant(
        "flights land before their J",
        BUDGET,
        "while flights and flights[0].last + self.jitter <= now:",
        "while flights and flights[0].last <= now:",
        OF_BUDGET,
    ),
    Variant(
        "flights land at their first member's instant",
        BUDGET,
        "instant = flight.last + self.jitter",
        "instant = flight.first + self.jitter",
        OF_BUDGET,
    ),
    Variant(
        "what wasn't sent is given back twice",
        BUDGET,
        "        for window in self.windows:\n            window.used -= 1",
        "        for window in self.windows:\n            window.used -= 2",
        OF_BUDGET,
    ),
    Variant(
        "a cost goes where anything is free",
        BUDGET,
        "if window.used + cost > window.max:",
        "if window.used >= window.max:",
        OF_BUDGET,
    ),
    Variant(
        "a bucket as deep as the upstream's",
        BUCKET,
        "depth = limit.depth - flow",
        "depth = float(limit.depth)",
        OF_BUDGET,
    ),
    Variant(
        "spaced without J",
        BUCKET,
        "return 1.0, (1 + (1 - limit.depth + flow) / limit.depth) / rate",
        "return 1.0, 1 / rate",
        OF_BUDGET,
    ),
    Variant(
        "a bucket starts afresh after a change",
        BUCKET,
        "self._pacer.fill(level, now)\n\n    def headroom",
        "self._pacer.fill(0.0, now)\n\n    def headroom",
        OF_BUDGET,
    ),
    Variant(
        "what is told of a limit without effect",
        BUDGET,
        "wait = max(wait, self.told.wait(cost, now))",
        "pass",
        ("tests/engine/test_what_the_upstream_says.py",),
    ),
    Variant(
        "an overrun isn't charged",
        BUDGET,
        "            window.used += more\n            end = window.record(at, cost + more)",
        "            end = window.record(at, cost)",
        OF_BUDGET,
    ),
    Variant(
        "room without what was never sent",
        ROOM,
        "return now + budget.jitter + window.kept  # not sent yet",
        "return now  # not sent yet",
        OF_BUDGET,
    ),
    Variant("a reservation counts itself as spare", ROOM, "max(0, free - amount)", "max(0, free)", OF_BUDGET),
    Variant(
        "small ones pass as they like",
        RESERVATION,
        "return all(left[0] >= 1 and left[1] >= cost for left in self._met(seat))",
        "return True",
        OF_SCHEDULER,
    ),
    Variant(
        "what passed isn't counted",
        RESERVATION,
        "            left[1] -= cost",
        "            left[1] -= 0",
        OF_SCHEDULER,
    ),
    Variant(
        "a bucket gives back for calls from before its time",
        BUCKET,
        "if taken_at <= self.since:",
        "if taken_at < 0:",
        ("tests/core/test_bucket.py",),
    ),
    Variant(
        "a window's pacer keeps what a call was charged too much",
        BUDGET,
        "            if more < 0:",
        "            if more < 0 and not self.kept:",
        ("tests/core/test_budget.py",),
    ),
    Variant(
        "a bucket's debt has no end",
        BUCKET,
        "min(most, self._pacer.level(now) + more)",
        "self._pacer.level(now) + more",
        OF_FORECAST,
    ),
    Variant(
        "a cost that nothing counts never fits",
        BUDGET,
        "self.most_cost = min(costs, default=1 << 64)",
        "self.most_cost = min(costs, default=FAR)",
        OF_BUDGET,
    ),
    Variant(
        "a bucket gives back more than it held",
        BUCKET,
        "return -min(-more, self._lows.least(taken_at, self._pacer.level(now)))",
        "return more",
        ("tests/core/test_lows.py",),
    ),
    Variant(
        "what was given back doesn't lower earlier levels",
        "apiflux_grpc/core/lows.py",
        "self._lowered += amount",
        "pass",
        ("tests/core/test_lows.py",),
    ),
    Variant(
        "a bucket gives back only what hasn't leaked away",
        BUCKET,
        "return -min(-more, self._lows.least(taken_at, self._pacer.level(now)))",
        "return 0.0",
        ("tests/core/test_lows.py",),
    ),
)
