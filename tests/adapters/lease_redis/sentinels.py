"""A Redis that Sentinels watch: a primary, its replica, and three that agree on who is which."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from tests.adapters.lease_redis.servers import RedisServer, program

ENOUGH: Final = 30.0  # seconds; only a fault waits so long


def wait_until(condition: Callable[[], object]) -> None:
    """Waits for what servers agree on among themselves."""
    late = time.monotonic() + ENOUGH
    while not condition():
        assert time.monotonic() < late
        time.sleep(0.01)


@contextmanager
def watched() -> Iterator[list[RedisServer]]:
    """The primary, the replica, and the Sentinels, which know of each other; they call the primary `main`."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        fast = ("--repl-diskless-sync-delay", "0")
        primary = stack.enter_context(RedisServer(program(), *fast))
        replicates = ("--replicaof", "127.0.0.1", str(primary.port), "--replica-read-only", "no")
        replica = stack.enter_context(RedisServer(program(), *fast, *replicates))
        wait_until(lambda: replica.client.info("replication").get("master_link_status") == "up")
        found = [primary, replica]
        for number in range(3):
            config = Path(folder) / f"{number}.conf"
            config.write_text(
                f"sentinel monitor main 127.0.0.1 {primary.port} 2\n"
                "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 3000\n"
            )
            found.append(stack.enter_context(RedisServer(program(), str(config), "--sentinel")))
        masters: Callable[[], Any] = found[2].client.sentinel_masters

        def known() -> bool:
            told = masters()["main"]
            return bool(told["num-other-sentinels"] == 2 and told["num-slaves"] == 1)

        wait_until(known)
        yield found
