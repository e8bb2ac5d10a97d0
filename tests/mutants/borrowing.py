"""Broken variants of how the engine borrows its budgets; as in variants.py."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

BORROWER: Final = "apiflux_grpc/core/borrower.py"
BORROWING: Final = "apiflux_grpc/core/borrowing.py"
LEASED: Final = "apiflux_grpc/core/leased.py"
LESSEE: Final = "apiflux_grpc/engine/leasing.py"
STORE_HEALTH: Final = "apiflux_grpc/core/store_health.py"
OF_BORROWING: Final = ("tests/core/test_borrowing.py",)
OF_LEASING: Final = ("tests/engine/test_leasing.py",)
TEMPO: Final = "apiflux_grpc/core/tempo.py"
OF_TEMPO: Final = ("tests/core/test_tempo.py",)
OF_THRIFT: Final = ("tests/engine/test_thrift.py",)
OF_GONE: Final = ("tests/engine/test_store_gone.py",)

BORROWED: Final = (
    Variant(
        "a call is sent without a lease",
        LEASED,
        "        if not self.borrower.ledger.fits(cost, now):\n            return 0",
        "        if True:\n            return 0",
        OF_BORROWING,
    ),
    Variant(
        "a call may be written after its lease",
        LEASED,
        "            within = left if within is None else min(within, left)",
        "            pass",
        OF_LEASING,
    ),
    Variant(
        "a call that is never sent keeps its lease",
        LEASED,
        "                loan.borrower.ledger.give_back(loan.lent, loan.cost, now)\n",
        "",
        OF_BORROWING,
    ),
    Variant(
        "limits that are shared change into their own",
        LEASED,
        "        if not limits:\n            self.borrowing.retire(borrower, now)",
        "        if True:\n            self.borrowing.retire(borrower, now)",
        OF_BORROWING,
    ),
    Variant(
        "every key is asked for one call",
        BORROWING,
        "                missing -= part\n",
        "                pass\n",
        OF_LEASING,
    ),
    Variant(
        "more is borrowed than can be in flight",
        BORROWER,
        "max(1, int(self.most.cost / each)), most, share)",
        "max(1, int(self.most.cost / each)), share)",
        OF_BORROWING,
    ),
    Variant(
        "who has no room of its own doesn't ask in time",
        LEASED,
        "            if wait >= FAR and cost <= self.most_cost:",
        "            if False:",
        OF_LEASING,
    ),
    Variant(
        "a dear call is asked for at the mean cost",
        BORROWING,
        "                    ledger.fits(borrower.lacks, now)  # it asks",
        "                    pass  # it asks",
        ("tests/core/test_borrowing.py",),
    ),
    Variant(
        "nobody is woken by a reply",
        BORROWING,
        "            self._has(borrower)\n        self._woken(borrower.owner, now)",
        "            self._has(borrower)",
        OF_BORROWING,
    ),
    Variant(
        "the lease of a key goes back while that of its group is asked for",
        BORROWING,
        "if not calls and now < borrower.kept_until and ledger.room(now).calls:",
        "if False:",
        OF_LEASING,
    ),
    Variant(
        "what a lease was too short for goes at the rate of the window",
        "apiflux_grpc/core/leased.py",
        "takes_back = True",
        "takes_back = False",
        ("tests/engine/test_leasing.py",),
    ),
    Variant(
        "a round without a reply is never asked again",
        LESSEE,
        "        self._unanswered += silent\n",
        "",
        OF_GONE,
    ),
    Variant(
        "a store that is gone is asked all the time",
        LESSEE,
        "            wait = min(longest, first << min(self._failures, 10))",
        "            wait = first",
        OF_GONE,
    ),
    Variant(
        "an end waits for its store",
        LESSEE,
        "        await asyncio.wait([last], timeout=LEAVE / 1e9)",
        "        await asyncio.wait([last])",
        OF_GONE,
    ),
    Variant(
        "an end returns nothing",
        LESSEE,
        "        if rounds:\n            with",
        "        if not rounds:\n            with",
        OF_LEASING,
    ),
    Variant(
        "a silent store is never unhealthy",
        STORE_HEALTH,
        "self.silent_for is None or self.silent_for < SILENCE",
        "True",
        OF_GONE,
    ),
    Variant(
        "a store's silence is told each time",
        STORE_HEALTH,
        "            self._events.append(StoreSilent(why))\n",
        "            pass\n        self._events.append(StoreSilent(why))\n",
        OF_GONE,
    ),
    Variant(
        "what is sent late isn't told",
        LEASED,
        "            self._borrowing.store.late(permit.key.key.label)",
        "            pass",
        OF_GONE,
    ),
    Variant(
        "a forecast takes all for its own",
        "apiflux_grpc/core/forecast.py",
        "[1.0 if at_best else budget.share(now) for budget in budgets]",
        "[1.0 for budget in budgets]",
        OF_LEASING,
    ),
    Variant(
        "whoever asks first gets all that comes back",
        "apiflux_grpc/core/lease/shares.py",
        "(soon if number < place else now)",
        "now",
        OF_LEASING,
    ),
    Variant(
        "each process has a beat of its own",
        TEMPO,
        "        self._shift = store - now",
        "        pass",
        OF_TEMPO,
    ),
    Variant(
        "each round goes in an exchange of its own",
        BORROWING,
        "or ledger.is_pressing(now, calls, cost)):",
        "or True):",
        OF_THRIFT,
    ),
    Variant(
        "who is late for its turn by a beat loses it",
        "apiflux_grpc/core/lease/shares.py",
        "2 * round.round_trip, 2 * round.delay)",
        "2 * round.round_trip)",
        OF_THRIFT,
    ),
)
