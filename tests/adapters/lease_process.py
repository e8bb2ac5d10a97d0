"""A process of its own that uses a file of budgets: `python -m tests.adapters.lease_process WHAT PATH`.

`spend`: takes what it can get, one call at a time, and prints how many. `stop`: stops itself in the middle of an
exchange. `die`: has children that die at each write of an exchange in turn, and prints what the file says after each.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from apiflux_grpc.adapters.lease_sqlite import SqliteLeaseStore
from apiflux_grpc.core.lease.words import NOTHING, Amounts, Held, Reply, Round
from tests.adapters.lease_files import HOUR, Disk, Machine, after, ask, first

BUDGETS: Final = ("x", "y", "z")


def boottime() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


async def spend(path: Path) -> None:
    store = SqliteLeaseStore(path, boottime, time.time_ns, "boot")
    round = first(f"process {os.getpid()}", 40, HOUR, want=Amounts(1))
    got = 0
    held: list[Held] = []
    while True:
        (reply,) = await ask(store, round)
        if not reply.granted.calls:
            break
        got += reply.granted.calls
        held.append(Held(reply.number, NOTHING, NOTHING))
        round = after(round, reply, want=Amounts(1), held=tuple(held))
    print(got, flush=True)
    await store.close()


async def stop(path: Path) -> None:
    def clock() -> int:  # read while the file is held
        os.kill(os.getpid(), signal.SIGSTOP)
        while True:  # this thread may run on until another has heard of it
            time.sleep(3600)

    store = SqliteLeaseStore(path, clock, time.time_ns, "boot")
    await ask(store, first("stopped", 10, want=Amounts(6)))
    await store.close()


def all_of(machine: Machine, name: str) -> list[int]:
    """What a newcomer is granted of each budget of which there were 10."""

    async def asked() -> list[Reply]:
        store = machine.store()
        replies = await ask(store, *(first(name, 10, budget=budget) for budget in BUDGETS))
        await store.close()
        return replies

    return [reply.granted.calls for reply in asyncio.run(asked())]


def die(path: Path) -> None:
    """Prints a line for each write at which a child died, until one doesn't: what is left of each budget."""
    number = 0
    while True:
        number += 1
        machine = Machine(path / str(number), "boot")
        child = os.fork()
        if not child:
            dies_at(number, machine)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(*all_of(machine, "next"), flush=True)
        if not os.WIFSIGNALED(status):
            break


def dies_at(number: int, machine: Machine) -> None:
    """The exchange of three rounds, killed at this write of it."""
    writes = 0
    asked = False

    def on_write() -> None:
        nonlocal writes
        writes += asked
        if writes == number:
            os.kill(os.getpid(), signal.SIGKILL)

    async def exchange() -> None:
        nonlocal asked
        store = machine.store()
        await store.open()
        asked = True
        await ask(store, *(Round(*first("dies", 10, want=Amounts(6), budget=budget)) for budget in BUDGETS))

    disk = Disk(machine.path.parent / "kept", on_write)
    asyncio.run(exchange())
    disk.unregister()


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    ways: dict[str, Callable[[], None]] = {
        "spend": lambda: asyncio.run(spend(where)),
        "stop": lambda: asyncio.run(stop(where)),
        "die": lambda: die(where),
    }
    ways[what]()
