"""Broken variants of the lease store in Redis: the client, the words, the checks, the script."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

PACKAGE: Final = "apiflux_grpc/adapters/lease_redis/"
FAULTS: Final = ("tests/adapters/lease_redis/test_faults.py",)
CHECKS: Final = ("tests/adapters/lease_redis/test_checks.py",)
WORDS: Final = ("tests/adapters/lease_redis/test_words.py",)
SCRIPT: Final = tuple(
    f"tests/adapters/lease_redis/test_script.py::test_{name}"
    for name in ("a_part_is_exact", "a_fleet_is_served_the_same", "whatever_is_said_both_serve_it_the_same")
)
SERVERS: Final = ("tests/adapters/lease_redis/test_many_servers.py",)
URL: Final = ("tests/core/test_redis_url.py",)

REDIS: Final = (
    Variant(
        "redis: the client repeats what failed",
        PACKAGE + "client.py",
        '"retry": Retry(NoBackoff(), 0),',
        "",
        FAULTS,
    ),
    Variant(
        "redis: nothing bounds an answer",
        PACKAGE + "client.py",
        '"socket_timeout": TIMEOUT,',
        '"socket_timeout": None,',
        FAULTS,
    ),
    Variant(
        "redis: what was sent is cancelled with who asked",
        PACKAGE + "store.py",
        "return await asyncio.shield(task)",
        "return await task",
        FAULTS,
    ),
    Variant(
        "redis: a script that was forgotten is an error",
        PACKAGE + "store.py",
        "        if unknown:\n",
        "        if False:\n",
        FAULTS,
    ),
    Variant(
        "redis: a server that was gone isn't checked again",
        PACKAGE + "store.py",
        "        self._is_checked = False\n        with suppress",
        "        with suppress",
        CHECKS,
    ),
    Variant(
        "redis: one node that is gone loses the rounds of all",
        PACKAGE + "store.py",
        "if len(failed) == len(results):",
        "if failed:",
        SERVERS,
    ),
    Variant(
        "redis: one that evicts may hold budgets",
        PACKAGE + "checks.py",
        'if policy.startswith("allkeys-"):',
        "if False:",
        CHECKS,
    ),
    Variant(
        "redis: another layout is overwritten",
        PACKAGE + "main.lua",
        "if before and before.layout ~= LAYOUT then",
        "if false then",
        CHECKS,
    ),
    Variant(
        "redis: the run of the server isn't asked for",
        PACKAGE + "main.lua",
        "string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')",
        "'0' or string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')",
        FAULTS,
    ),
    Variant(
        "redis: an age is rounded up",
        PACKAGE + "words.py",
        "[[group.calls, group.cost, _down(group.age)] for group in groups]",
        "[[group.calls, group.cost, _up(group.age)] for group in groups]",
        WORDS,
    ),
    Variant(
        "redis: a window is rounded down",
        PACKAGE + "words.py",
        "[_up(cap.per), cap.max",
        "[_down(cap.per), cap.max",
        WORDS,
    ),
    Variant(
        "redis: a product has the digits of a double",
        PACKAGE + "shares.lua",
        "  local quotient, rest = 0, 0\n",
        "  if c then\n    return math.ceil(a * b / c)\n  end\n  local quotient, rest = 0, 0\n",
        SCRIPT,
    ),
    Variant(
        "redis: the script keeps groups out of order",
        PACKAGE + "terms.lua",
        "table.insert(at, i + 1, instant)",
        "table.insert(at, instant)",
        SCRIPT,
    ),
    Variant(
        "redis: a place shows its password",
        "apiflux_grpc/core/redis_url.py",
        'password: str = field(default="", repr=False)',
        'password: str = field(default="")',
        URL,
    ),
)
