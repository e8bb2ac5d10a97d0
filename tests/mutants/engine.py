"""Broken variants of the engine: its pump, batches, mailboxes and results; as in variants.py."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

PUMP: Final = "apiflux_grpc/engine/pump.py"
OUTBOX: Final = "apiflux_grpc/engine/outbox.py"
BATCHES: Final = "apiflux_grpc/engine/batches.py"
MAILBOX: Final = "apiflux_grpc/engine/mailbox.py"
OF_MAILBOX: Final = ("tests/engine/test_mailbox.py",)
OF_ENGINE: Final = ("tests/engine/test_engine.py",)
# One that waits for it in real time: on virtual time its absence is an endless loop.
OF_CANCEL: Final = ("tests/server/test_cancelling.py",)

ENGINE: Final = (
    Variant(
        "a cancel lets attempts go on",
        PUMP,
        "        for attempt in list(outbox.attempts):\n            self.upstream.cancel(attempt)\n"
        "        self._deliver",
        "        self._deliver",
        OF_CANCEL,
    ),
    Variant(
        "nobody wakes up for a call that hangs",
        PUMP,
        "            self._set_timer(at)  # its slot comes back by itself, answer or not",
        "            pass",
        OF_ENGINE,
    ),
    Variant(
        "an ordered batch is stuck behind its own results",
        OUTBOX,
        "            if reach <= batch.done:",
        "            if False:",
        OF_ENGINE,
    ),
    Variant(
        "the grace has no end",
        PUMP,
        "    def cut(self) -> None:",
        "    def cut(self) -> None:\n        return\n",
        OF_ENGINE,
    ),
    Variant(
        "a result takes no place",
        OUTBOX,
        "self.stored += 1",
        "self.stored += 0",
        OF_ENGINE,
    ),
    Variant(
        "an outbox that never starts",
        OUTBOX,
        "-(-(self.bytes_bound - self.held) // self.expect)",
        "(self.bytes_bound - self.held) // self.expect",
        OF_ENGINE,
    ),
    Variant(
        "no credit for what was read",
        OUTBOX,
        "        self.stored -= results\n",
        "",
        OF_ENGINE,
    ),
    Variant("a crash says nothing", BATCHES, "        self._post(Down(error_id))\n", "", OF_ENGINE),
    Variant(
        "health without an echo",
        "apiflux_grpc/engine/watchdog.py",
        "                self._set(False)\n\n    def _set",
        "                pass\n\n    def _set",
        ("tests/engine/test_watchdog.py",),
    ),
    Variant(
        "a mailbox that disarms too late",
        MAILBOX,
        "        self._armed = False\n        queue, handle = self._queue, self._handle\n"
        "        for _ in range(len(queue)):\n            handle(queue.popleft())",
        "        queue, handle = self._queue, self._handle\n"
        "        for _ in range(len(queue)):\n            handle(queue.popleft())\n        self._armed = False",
        OF_MAILBOX,
    ),
    Variant(
        "the first ETA waits for its second",
        "apiflux_grpc/engine/batches.py",
        "if is_news or now",
        "if now",
        ("tests/engine/test_engine.py::test_the_first_eta_comes_within_a_second",),
    ),
)
