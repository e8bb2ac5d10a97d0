"""Broken variants of a change of limits that are shared through a store."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

LEDGER: Final = "apiflux_grpc/core/lease/ledger.py"
OF_LEASES: Final = ("tests/core/lease/test_changes.py",)
OF_ENGINE: Final = ("tests/engine/test_changed_limits.py",)

CHANGES: Final = (
    Variant(
        "changes: what was leased by the old limits is spent",
        LEDGER,
        "            lent.withdraw()\n        self._dear = 0",
        "            pass\n        self._dear = 0",
        OF_LEASES,
    ),
    Variant(
        "changes: a reply to the old limits grants",
        LEDGER,
        "            if not is_of_these:\n                lent.withdraw()\n",
        "",
        OF_LEASES,
    ),
    Variant(
        "changes: other limits take the place of the old at once",
        LEDGER,
        "if self._leaving is None and not _are_like(",
        "if False and not _are_like(",
        OF_LEASES,
    ),
    Variant(
        "changes: what is told after it is told of another's lease",
        LEDGER,
        "        if over and lent.era != self._era:",
        "        if False:",
        OF_LEASES,
    ),
    Variant(
        "changes: a dear call that fits no more keeps others waiting",
        "apiflux_grpc/core/borrowing.py",
        "        self._has(borrower)  # what found no lease may fit never, or with what there is\n",
        "",
        ("tests/core/test_borrowing.py",),
    ),
    Variant(
        "changes: whoever has no bound any more keeps its part of it",
        "apiflux_grpc/core/slots.py",
        "            borrower.ledger.in_use = 0  # no more of the bound than those of a server that never had one\n",
        "",
        OF_ENGINE,
    ),
)
