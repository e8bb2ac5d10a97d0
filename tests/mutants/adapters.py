"""Broken variants of the sender, and of what else touches the network; as in variants.py."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

PACER: Final = "apiflux_grpc/adapters/pacer.py"
CONNECTION: Final = "apiflux_grpc/adapters/sender/connection.py"
ORIGIN: Final = "apiflux_grpc/adapters/sender/origin.py"
READER: Final = "apiflux_grpc/adapters/sender/reader.py"
REQUESTS: Final = "apiflux_grpc/adapters/http_settings.py"
OF_KEPT: Final = ("tests/adapters/sender/test_kept.py::test_ended_while_the_loop_was_busy",)
OF_STRAYS: Final = ("tests/adapters/sender/test_kept.py::test_stray_on_idle_connections",)
OF_IDLE: Final = ("tests/adapters/sender/test_idle.py",)
OF_WRITE: Final = ("tests/adapters/sender/test_write.py::test_the_kernel_takes_nothing",)
OF_DIALING: Final = ("tests/adapters/sender/test_dialing.py::test_send_by",)

ADAPTERS: Final = (
    Variant(
        "every refusal of a block is news",
        "apiflux_grpc/adapters/observe_logs.py",
        "level = logging.DEBUG if again else",
        "level = logging.WARNING if again else",
        ("tests/adapters/test_observe_logs.py",),
    ),
    Variant(
        "a pacer in debt lets a burst go at its end",
        PACER,
        "self._put(level)\n        if self._limiter",
        "pass\n        if self._limiter",
        ("tests/contract/test_pacer.py",),
    ),
    Variant("the kernel isn't asked before reuse", CONNECTION, "and not self._poll.poll(0)", "", OF_KEPT),
    Variant(
        "not sent counts as unknown",
        CONNECTION,
        "return self._transport.get_write_buffer_size() >= self._wire",
        "return False",
        OF_WRITE,
    ),
    Variant(
        "a stray answer stays for the next call",
        CONNECTION,
        "            self._owner.never_again(self)\n            self.abort()\n            return\n",
        "            return\n",
        OF_STRAYS,
    ),
    Variant(
        "written though it is too late",
        ORIGIN,
        "if not exchange.over and exchange.send_by is not None and exchange.send_by < now:",
        "if False:",
        OF_DIALING,
    ),
    Variant("an old connection is taken", ORIGIN, "if now >= until:", "if False:", OF_IDLE),
    Variant(
        "a call that may not run twice takes an old connection",
        ORIGIN,
        "elif not exchange.idempotent and",
        "elif False and",
        OF_IDLE,
    ),
    Variant(
        "the round trip is forgotten",
        "apiflux_grpc/adapters/sender/idle.py",
        "told - margin - round_trip",
        "told - margin",
        OF_IDLE,
    ),
    Variant(
        "the first member of gzip is the whole",
        "apiflux_grpc/adapters/decoding.py",
        "if len(text) == most or not decoder.unused_data:",
        "if True:",
        ("tests/adapters/sender/test_codings.py",),
    ),
    Variant(
        "two codings are taken for chunks",
        READER,
        'return [coding.lower() for coding in self._all(b"transfer-encoding")] == [b"chunked"]',
        'return self._all(b"transfer-encoding")[0].lower() == b"chunked"',
        ("tests/adapters/sender/test_table.py",),
    ),
    Variant(
        "a repeated header goes out once",
        REQUESTS,
        "if lower not in self._ours:",
        "if lower not in self._ours and lower not in spelled:",
        ("tests/adapters/test_request_bytes.py",),
    ),
    Variant(
        "a repeated header goes out in two spellings",
        REQUESTS,
        "spelled.setdefault(lower, name)",
        "spelled.setdefault(lower, name) and name",
        ("tests/adapters/test_request_bytes.py",),
    ),
)
