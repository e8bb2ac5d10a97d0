"""Broken variants of what a request may cost: what comes in, what is short, what is logged; as in variants.py."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

RECEIVING: Final = "apiflux_grpc/server/receiving.py"
OF_RECEIVING: Final = ("tests/server/test_receiving.py",)
OF_COSTS: Final = ("tests/server/test_request_costs.py",)

COSTS: Final = (
    Variant(
        "the oldest request on its way in comes first",
        RECEIVING,
        "waiter, _ = waiting.pop()",
        "waiter, _ = waiting.pop(0)",
        OF_RECEIVING,
    ),
    Variant(
        "a place that a caller got at the moment when it left is lost",
        RECEIVING,
        "                self._give()  # it was given, and nobody took it\n",
        "                pass\n",
        OF_RECEIVING,
    ),
    Variant(
        "a large message that was sent keeps its connection among the first",
        RECEIVING,
        "            self._small.pop(place.peer, None)\n",
        "",
        OF_RECEIVING,
    ),
    Variant(
        "a refused request stays until the collector comes by",
        "apiflux_grpc/server/interceptors.py",
        "            handled.__traceback__ = None\n",
        "",
        OF_COSTS,
    ),
    Variant(
        "a full queue decodes what it refuses",
        "apiflux_grpc/server/service.py",
        "        if method == PROCESS:\n",
        "        if not method:\n",
        OF_COSTS,
    ),
    Variant(
        "a missing file is the upstream's fault",
        "apiflux_grpc/core/outcome.py",
        "Cause.CLOSED, Cause.NO_FILE})",
        "Cause.CLOSED})",
        ("tests/core/test_verdict.py",),
    ),
    Variant(
        "the arguments of a library's log line are shown",
        "apiflux_grpc/adapters/observe_logs.py",
        "event = words_of(record) if foreign else record.getMessage()",
        "event = record.getMessage()",
        ("tests/adapters/test_foreign_lines.py",),
    ),
)
