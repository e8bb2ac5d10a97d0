"""Broken variants of the operations port."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

PACKAGE: Final = "apiflux_grpc/ops/"
GUARDS: Final = ("tests/ops/test_guards.py",)
DECODING: Final = ("tests/ops/test_decoding.py",)
LIMITS: Final = ("tests/ops/test_limits.py",)
PROCESS: Final = ("tests/ops/test_process.py",)
STATES: Final = ("tests/ops/test_states.py",)
TLS: Final = ("tests/ops/test_tls.py",)

OPS: Final = (
    Variant(
        "operations port: a Host that begins as one of ours passes",
        PACKAGE + "guards.py",
        "if host not in LOOPBACK and host not in names",
        "if not host.startswith(tuple(LOOPBACK)) and host not in names",
        GUARDS,
    ),
    Variant(
        "operations port: a page of the same site passes, on another port",
        PACKAGE + "guards.py",
        '_OWN_SITE: Final = ("same-origin", "none")',
        '_OWN_SITE: Final = ("same-origin", "same-site", "none")',
        GUARDS,
    ),
    Variant(
        "operations port: a token of any role runs a batch",
        PACKAGE + "handling.py",
        "            allowed(known, route.rpc)\n",
        "",
        STATES,
    ),
    Variant(
        "operations port: a probe without a token is told the names of all pools",
        PACKAGE + "handling.py",
        "(Unauthenticated, Forbidden):\n            return lambda name: False",
        "(Unauthenticated, Forbidden):\n            return lambda name: True",
        STATES,
    ),
    Variant(
        "health: a request may be as large as a batch",
        "apiflux_grpc/server/service.py",
        "most = LARGEST_OF_HEALTH if method.startswith(_HEALTH) else LARGEST",
        "most = LARGEST",
        ("tests/server/test_request_costs.py",),
    ),
    Variant(
        "operations port: an answer that can't be finished ends as a whole one does",
        PACKAGE + "process.py",
        "        self._request.protocol.force_close()\n",
        "",
        PROCESS,
    ),
    Variant(
        "operations port: a value of a call may be of any size",
        PACKAGE + "decoding.py",
        'if sum(text.count(mark, at, end) for mark in ",[{") > MOST_VALUES:',
        "if False:",
        DECODING,
    ),
    Variant(
        "operations port: a body is too slow only if nothing comes at all",
        PACKAGE + "bodies.py",
        "asyncio.timeout_at(start + PATIENCE + len(body) / LEAST_RATE)",
        "asyncio.timeout(PATIENCE)",
        LIMITS,
    ),
    Variant(
        "operations port: what was read of bodies stays counted",
        PACKAGE + "bodies.py",
        "            self.used -= have\n",
        "            pass\n",
        LIMITS,
    ),
    Variant(
        "operations port: connections of an authority that was removed go on",
        PACKAGE + "port.py",
        "set(before.client_ca) <= set(pair.client_ca)",
        "True",
        TLS,
    ),
)
