"""Broken variants of one job over several servers; as in variants.py."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

SEVERAL: Final = "apiflux_grpc/client/several.py"
TESTS: Final = ("tests/client/test_several.py",)

TARGETS: Final = (
    Variant(
        "a server may take the whole window",
        SEVERAL,
        "share = -(-self.window // sharing)",
        "share = self.window",
        TESTS,
    ),
    Variant(
        "near the end a server takes more than its part",
        SEVERAL,
        "share = min(share, self._part(server, self.books.left + self.to_take))",
        "pass",
        TESTS,
    ),
    Variant(
        "a server that hasn't reckoned yet is taken to do nothing",
        SEVERAL,
        'if server.told is not None or message.progress.HasField("eta"):',
        "if True:",
        TESTS,
    ),
    Variant(
        "calls go to and fro between servers",
        SEVERAL,
        "return is_free and self.has_answered",
        "return is_free",
        TESTS,
    ),
    Variant(
        "a call that is to be tried again later begins anew elsewhere",
        SEVERAL,
        " and told.waits_for.cause != pb.HELD_CAUSE_BACKOFF",
        "",
        TESTS,
    ),
    Variant(
        "a job gives up though a server is there",
        SEVERAL,
        "        if self._are_all_gone:\n            was_never_there",
        "        if True:\n            was_never_there",
        TESTS,
    ),
    Variant(
        "a fault at one server ends the others at once",
        SEVERAL,
        "        self.failure = self.failure or error\n        self.stop()",
        "        self.failure = self.failure or error",
        TESTS,
    ),
    Variant(
        "what is handed over is whatever is ready first",
        "apiflux_grpc/client/books.py",
        "while self.ready and len(items) < len(indexes) and self.ready[0].index in indexes:",
        "while self.ready and len(items) < len(indexes):",
        TESTS,
    ),
    Variant(
        "a call that was given back is at its server too",
        "apiflux_grpc/client/accounts.py",
        "        self._open.clear()\n        self._books.give_back(again)",
        "        self._books.give_back(again)",
        TESTS,
    ),
    Variant(
        "servers with other limits share a job",
        "apiflux_grpc/client/same_pool.py",
        "if list(key.limits) != list(others[label].limits):",
        "if False:",
        ("tests/client/test_standing.py",),
    ),
    Variant(
        "a server that was replaced is tried for ever",
        SEVERAL,
        "elif server.has_left:",
        "elif False:",
        TESTS,
    ),
    Variant(
        "a connection that is lost has no name asked again",
        "apiflux_grpc/client/spreading.py",
        "            if error is not None:\n                self._is_lost.set()",
        "",
        ("tests/client/test_names.py",),
    ),
    Variant(
        "the blocking client's threads go on when nobody reads",
        "apiflux_grpc/client/spreading_sync.py",
        "self._cancelled = self._closed = True",
        "self._cancelled = True",
        ("tests/client/test_spreading_sync.py",),
    ),
)
