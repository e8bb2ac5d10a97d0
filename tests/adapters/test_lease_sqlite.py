"""The file of budgets over restarts of the process and of the machine, and when something is wrong with it."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiflux_grpc.adapters import lease_sqlite
from apiflux_grpc.adapters.lease_sqlite import SqliteLeaseStore
from apiflux_grpc.core.lease.words import NOTHING, Amounts, Group, Held
from apiflux_grpc.core.units import SECOND
from tests.adapters.lease_files import HOUR, Disk, Machine, after, ask, first, frozen


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "kept")
    yield made
    made.unregister()


async def test_a_restart_remembers_what_was_spent(tmp_path: Path) -> None:
    """Calls that landed count from their instants, the rest of a lease until its end; nothing is frozen."""
    machine = Machine(tmp_path, "boot")
    store = machine.store()
    round = first("a", 10, want=Amounts(6))
    (reply,) = await ask(store, round)
    machine.later(SECOND)
    await ask(store, after(round, reply, held=(Held(1, Amounts(4), NOTHING, (Group(4, 0, SECOND // 2),)),)))
    await store.close()
    again = machine.store()
    (reply,) = await ask(again, first("b", 10))
    assert (reply.granted.calls, reply.opens) == (4, 0)
    machine.later(60 * SECOND)
    (reply,) = await ask(again, first("c", 10, trust=False))
    assert reply.granted.calls == 4
    await again.close()


async def test_time_goes_on_over_a_boot_as_the_wall_clock_does(tmp_path: Path) -> None:
    """What was spent before counts for its length, though the machine's clock began anew."""
    machine = Machine(tmp_path, "boot", wall=1_000 * HOUR)
    machine.later(100 * SECOND)
    store = machine.store()
    (reply,) = await ask(store, first("a", 10, HOUR, want=Amounts(7)))
    assert reply.granted.calls == 7
    await store.close()
    machine = Machine(tmp_path, "next", wall=machine.wall + HOUR // 2)
    store = machine.store()
    (reply,) = await ask(store, first("b", 10, HOUR))
    assert (reply.granted.calls, reply.opens) == (3, 0)
    machine.later(HOUR // 2 + 20 * SECOND)
    (reply,) = await ask(store, first("c", 10, HOUR))
    assert reply.granted.calls == 7
    await store.close()


async def test_a_wall_clock_that_was_set_back_takes_no_time_back(tmp_path: Path) -> None:
    """Then the time between the boots counts as none."""
    store = Machine(tmp_path, "boot", wall=1_000 * HOUR).store()
    await ask(store, first("a", 10, HOUR, want=Amounts(7)))
    await store.close()
    machine = Machine(tmp_path, "next", wall=10 * HOUR)
    store = machine.store()
    await store.open()
    machine.later(HOUR)
    (reply,) = await ask(store, first("b", 10, HOUR, want=Amounts(3)))
    assert reply.granted.calls == 3
    machine.later(20 * SECOND)
    (reply,) = await ask(store, first("c", 10, HOUR))
    assert reply.granted.calls == 7
    await store.close()


async def test_a_boot_freezes_what_was_not_synced(tmp_path: Path) -> None:
    """Of windows below a minute the last moments may be lost: they open when all of that has ended."""
    store = Machine(tmp_path, "boot").store()
    round = first("a", 10, 20 * SECOND, want=Amounts(1))
    await ask(store, round)
    await store.close()
    machine = Machine(tmp_path, "next", wall=HOUR)
    store = machine.store()
    (reply,) = await ask(store, first("b", 10, 20 * SECOND))
    assert (reply.granted.calls, reply.opens) == (0, frozen(round))
    machine.later(reply.opens)
    (reply,) = await ask(store, first("c", 10, 20 * SECOND))
    assert reply.granted.calls == 10
    await store.close()


async def test_power_that_is_cut_loses_no_grant_of_a_long_window(tmp_path: Path, disk: Disk) -> None:
    """It was on the disk before it was told; and what is only reported, or short, isn't waited for."""
    machine = Machine(tmp_path, "boot")
    store = machine.store()
    long, short = first("a", 10, want=Amounts(6)), first("a", 10, SECOND, budget="short", want=Amounts(2))
    await ask(store, short)
    before = disk.syncs
    replies = await ask(store, short._replace(budget="shorter"))
    assert disk.syncs == before
    replies = await ask(store, long)
    assert (replies[0].granted.calls, disk.syncs) == (6, before + 1)
    await ask(store, after(long, replies[0], held=(Held(1, Amounts(1), Amounts(5), (Group(1, 0, 0),)),)))
    assert disk.syncs == before + 1
    cut = machine.store(path=disk.kept / machine.path.name)
    machine.boot = "next"
    (reply,) = await ask(cut, first("b", 10))
    assert reply.granted.calls == 4
    await store.close()
    await cut.close()


async def test_a_budget_is_synced_for_all_who_share_it(tmp_path: Path, disk: Disk) -> None:
    """One with a long window has written it; another, which knows of no such window, syncs what it is granted too."""
    machine = Machine(tmp_path, "boot")
    one, other = machine.store(), machine.store()
    await ask(one, first("a", 10, want=Amounts(1)))
    await ask(other, first("b", 10, SECOND, budget="short"))
    before = disk.syncs
    (reply,) = await ask(other, first("c", 5, SECOND, life=first("a", 1).life))
    assert (reply.granted.calls, disk.syncs) == (4, before + 1)
    await one.close()
    await other.close()


async def test_who_shares_a_file_sees_what_another_wrote(tmp_path: Path) -> None:
    """However they take turns: none goes by what it read before."""
    machine = Machine(tmp_path, "boot")
    one, other = machine.store(), machine.store()
    granted = [
        (await ask(store, first(name, 10, want=Amounts(3))))[0].granted.calls
        for store, name in ((one, "a"), (other, "b"), (one, "c"), (other, "d"))
    ]
    assert granted == [3, 3, 3, 1]
    await one.close()
    await other.close()


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_was_taken_away_is_not_written_any_more(tmp_path: Path, replaced: bool) -> None:
    """Others would open another: so it is the new one that counts, and it is frozen, for it knows less."""
    machine = Machine(tmp_path, "boot")
    store, round = machine.store(), first("a", 10, want=Amounts(6))
    (reply,) = await ask(store, round)
    for end in ("", "-wal", "-shm"):
        os.unlink(f"{machine.path}{end}")
    if replaced:
        another = machine.store()
        await another.open()
        await another.close()
    (reply,) = await ask(store, after(round, reply, want=Amounts(1)))
    assert (reply.granted.calls, reply.opens) == (0, frozen(round))
    (reply,) = await ask(store, first("b", 10, trust=True))
    assert reply.granted.calls == 0
    await store.close()


async def test_an_exchange_that_hangs_has_failed_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it does, others fail at once; what it served in the end is told to who asks again."""
    monkeypatch.setattr(lease_sqlite, "BOUND", 0.01)
    go_on = threading.Event()

    def wall() -> int:
        assert go_on.wait(30)
        return 0

    store = SqliteLeaseStore(tmp_path / "budgets.sqlite3", lambda: SECOND, wall, "boot")
    await store.open()
    with pytest.raises(ConnectionError, match="hasn't answered"):
        await ask(store, first("a", 10, want=Amounts(6)))
    with pytest.raises(ConnectionError, match="hasn't answered"):
        await ask(store, first("b", 10, want=Amounts(6)))
    go_on.set()
    while True:
        try:
            (reply,) = await ask(store, first("a", 10, want=Amounts(6)))
            break
        except ConnectionError:
            await asyncio.sleep(0)
    assert reply.granted.calls == 6
    await store.close()


async def test_an_exchange_whose_asker_was_cancelled_fails_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that ends cancels who asked; the error has nobody to tell it to, and isn't one in the log."""
    (tmp_path / "file").touch()
    store = Machine(tmp_path / "file", "boot").store()
    asked = asyncio.create_task(ask(store, first("a", 10)))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await store.close()
    gc.collect()
    assert caplog.text == ""
