"""Broken variants of how long it takes and why calls wait; as in variants.py."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

OF_REFUSALS: Final = ("tests/core/test_refusals.py",)
FORECAST: Final = "apiflux_grpc/core/forecast.py"
HOLDING: Final = "apiflux_grpc/core/holding.py"
OUTLOOKS: Final = "apiflux_grpc/core/outlooks.py"
OF_OUTLOOKS: Final = ("tests/core/test_outlooks.py",)
OF_BLAME: Final = ("tests/core/test_blame.py",)
OF_FORECAST: Final = ("tests/core/test_forecast.py",)
OF_WAITING: Final = ("tests/core/test_waiting.py",)
OF_HOLDING: Final = ("tests/core/test_holding.py",)

OUTLOOK: Final = (
    Variant(
        "what holds an endpoint back isn't told",
        HOLDING,
        "for one in key.path_owners:",
        "for one in ():",
        OF_BLAME,
    ),
    Variant(
        "an eta leaves out limits with paths",
        OUTLOOKS,
        "for number, waiting in self._narrower(batches):\n            for id, calls",
        "for number, waiting in ():\n            for id, calls",
        OF_OUTLOOKS,
    ),
    Variant(
        "an eta overlooks the block of searches",
        FORECAST,
        "return at if state.block is None else max(",
        "return at if True else max(",
        OF_OUTLOOKS,
    ),
    Variant(
        "patience ends between two probes",
        "apiflux_grpc/core/pulse.py",
        "return now >= end and (refused_at is None or refused_at >= end)",
        "return now >= end",
        OF_REFUSALS,
    ),
    Variant(
        "an outlook counts from the wrong permit",
        "apiflux_grpc/core/outlook.py",
        "self._curve.reaches(assigned - self._assigned + calls)",
        "self._curve.reaches(calls)",
        ("tests/core/test_forecast.py",),
    ),
    Variant(
        "a deadline is refused for a probe that is out",
        FORECAST,
        "return self.now if self._at_best and at >= FAR else at",
        "return at",
        OF_FORECAST,
    ),
    Variant(
        "nobody waits for the upstream's next try",
        FORECAST,
        "at = max(self._certain(key.usable_at(self.now)), self._certain(self._upstream_at))",
        "at = self._certain(key.usable_at(self.now))",
        OF_FORECAST,
    ),
    Variant(
        "a told wait that is over holds a key back",
        HOLDING,
        "if block.until <= now and not block.ends_by_probe:",
        "if False:",
        OF_HOLDING,
    ),
    Variant(
        "a key that only slows down is probed",
        HOLDING,
        "words if cause in _NO_PROBE else held.probed(words)",
        "held.probed(words)",
        OF_HOLDING,
    ),
    Variant(
        "at best others go on taking",
        FORECAST,
        "free = window.nominal - window.used + window.others if at_best else window.free",
        "free = window.free",
        OF_FORECAST,
    ),
    Variant(
        "a key without anything left is usable",
        "apiflux_grpc/core/info.py",
        "blocked_for = max(blocked_for, key.budget.told.held_until(now) - now)",
        "pass",
        OF_HOLDING,
    ),
    Variant(
        "a batch is told the words of the key that is free last",
        HOLDING,
        "_held(min(those,",
        "_held(max(those,",
        OF_HOLDING,
    ),
    Variant(
        "what waits for nothing is told why",
        "apiflux_grpc/core/standings.py",
        "batch.held_by = held_by if batch.waiting else ()",
        "batch.held_by = held_by",
        OF_HOLDING,
    ),
    Variant("a debt is capacity that comes back", FORECAST, "debt = max(0, -free)", "debt = 0", OF_FORECAST),
    Variant(
        "a key counts for each of its limits that others use",
        HOLDING,
        "count=len(labels))",
        "count=len(those))",
        OF_HOLDING,
    ),
    Variant(
        "a rejected key is counted on",
        FORECAST,
        "if key.breaker.state is not State.CLOSED and not self._at_best:",
        "if False:",
        OF_FORECAST,
    ),
    Variant(
        "a rate is that of the whole pool",
        "apiflux_grpc/core/turns.py",
        "its = min(most, total * weight / weights)",
        "its = min(most, total)",
        OF_OUTLOOKS,
    ),
    Variant(
        "what a batch can't use of its share is lost to others",
        "apiflux_grpc/core/turns.py",
        "total, weights = total - its, weights - weight",
        "total, weights = total - total * weight / weights, weights - weight",
        OF_OUTLOOKS,
    ),
    Variant(
        "calls wait for a limit though a key has room",
        "apiflux_grpc/core/waiting.py",
        "        if one is None:\n            return None",
        "        if one is None:\n            continue",
        OF_WAITING,
    ),
    Variant(
        "of a key's limits the first that is spent is told",
        "apiflux_grpc/core/waiting.py",
        "or at > latest.at",
        "or at < latest.at",
        OF_WAITING,
    ),
    Variant(
        "a rejected key waits for its limit",
        "apiflux_grpc/core/waiting.py",
        "or seat.usable_at(now) > now or",
        "or",
        OF_WAITING,
    ),
)
