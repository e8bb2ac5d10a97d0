"""Broken variants of how calls in flight are shared; as in variants.py."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

SLOTS: Final = "apiflux_grpc/core/lease/slots.py"
ENTRY: Final = "apiflux_grpc/core/lease/entry.py"
HOURS: Final = "apiflux_grpc/core/lease/hours.py"
LEDGER: Final = "apiflux_grpc/core/lease/slotledger.py"
LEASED: Final = "apiflux_grpc/core/leased.py"
OF_SLOTS: Final = ("tests/core/lease/test_slots.py",)
OF_ENGINE: Final = ("tests/engine/test_slots.py",)

IN_FLIGHT: Final = (
    Variant(
        "slots: a key for which nothing waits any more isn't tried again",
        "apiflux_grpc/core/slots.py",
        "            self.dropped.append(borrower)\n",
        "",
        OF_ENGINE,
    ),
    Variant(
        "slots: what is taken back is another's at once",
        ENTRY,
        "return max(self.allotted, self.holds) if now",
        "return self.allotted if now",
        OF_SLOTS,
    ),
    Variant(
        "slots: those of who is gone come back before its calls must have ended",
        ENTRY,
        "if now < self.until + at_most(self.timeout) else 0",
        "if now < self.until else 0",
        OF_SLOTS,
    ),
    Variant(
        "slots: they are used for longer than their life",
        LEDGER,
        "return min(self._allotted, self.most) if now < self.until else 0",
        "return self._allotted",
        OF_SLOTS,
    ),
    Variant(
        "slots: their life begins with the reply",
        LEDGER,
        "self.until = self._began + at_least(self.life)",
        "self.until = now + at_least(self.life)",
        OF_SLOTS,
    ),
    Variant(
        "slots: what is said to be kept to isn't",
        LEDGER,
        "self._allotted = min(self._allotted, self._holds)",
        "pass",
        OF_SLOTS,
    ),
    Variant(
        "slots: a store that forgot allots at once",
        HOURS,
        "opens = max(opens, entry.began + at_most(lag + round.life + timeout))",
        "pass",
        OF_SLOTS,
    ),
    Variant(
        "slots: a store that forgot doesn't wait for who is missing",
        HOURS,
        "timeout = 0 if _all_have_told(entry) else longest_timeout(entry)",
        "timeout = 0",
        OF_SLOTS,
    ),
    Variant(
        "slots: one has its turn for ever",
        SLOTS,
        "        line.remove(name)\n        line.append(name)\n    part",
        "        pass\n    part",
        OF_SLOTS,
    ),
    Variant(
        "slots: what can't be divided lies idle",
        SLOTS,
        "one = 1 if want > level and more else 0",
        "one = 0",
        OF_SLOTS,
    ),
    Variant(
        "slots: the higher of two bounds holds",
        SLOTS,
        "    return min(\n        (\n            member.slots.most",
        "    return max(\n        (\n            member.slots.most",
        OF_SLOTS,
    ),
    Variant(
        "slots: what isn't used stays though others wait",
        LEDGER,
        "        if self.scarce and self._keeps(now, wants) < self._charged:\n            at = min(at, paced)\n",
        "",
        OF_SLOTS,
    ),
    Variant(
        "slots: a key that lacks one is used",
        LEASED,
        "if slots is not None and not slots.ledger.room(now):",
        "if False:",
        OF_ENGINE,
    ),
    Variant(
        "slots: calls of one that is gone are taken to be as short as one's own",
        LEDGER,
        "            self._says = self._longest",
        "            pass",
        ("tests/core/lease/test_slots.py::test_the_calls_of_one_that_is_gone_have_its_own_timeout",),
    ),
    Variant(
        "slots: one that was idle vouches for who came since",
        LEDGER,
        "forgot and self._began - self._heard_from <= PROBATION - PROBATION // DRIFT",
        "forgot",
        ("tests/core/lease/test_slots.py::test_one_that_was_idle_does_not_vouch_for_who_came_since",),
    ),
)
