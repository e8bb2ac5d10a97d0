"""What tests of the file of budgets share: rounds, a store of one boot, and a disk that forgets."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import apsw

from apiflux_grpc.adapters.lease_sqlite import SqliteLeaseStore
from apiflux_grpc.core.lease.terms import at_most, life_of
from apiflux_grpc.core.lease.words import NOTHING, Amounts, Cap, Reply, Round
from apiflux_grpc.core.units import MILLISECOND, SECOND

JITTER: Final = 250 * MILLISECOND
HOUR: Final = 3600 * SECOND


def first(name: str, most: int, per: int = 60 * SECOND, **other: Any) -> Round:
    """The first round of an incarnation of that name, for the budget `key` unless another is told."""
    terms = {"want": Amounts(1000), "trust": True, **other}
    return Round("key", name, 1, (Cap(per, most),), life_of(per), JITTER)._replace(**terms)


def after(round: Round, reply: Reply, **other: Any) -> Round:
    """The next round of who got this reply, at once."""
    told = {"epoch": reply.epoch, "told": reply.now, "floor": reply.now, "paused": reply.paused}
    return round._replace(**{**told, "number": round.number + 1, "want": NOTHING, **other})


def frozen(round: Round) -> int:
    """For how long a budget is frozen whose store lost something."""
    return at_most(round.caps[-1].per + round.life + round.jitter)


class Machine:
    """One run of the machine: its clock begins anew with each, the wall clock doesn't."""

    def __init__(self, directory: Path, boot: str, wall: int = 0) -> None:
        self.path = directory / "budgets.sqlite3"
        self.boot = boot
        self.now = 5 * SECOND
        self.wall = wall

    def store(self, *, path: Path | None = None) -> SqliteLeaseStore:
        return SqliteLeaseStore(path or self.path, lambda: self.now, lambda: self.wall, self.boot)

    def later(self, span: int) -> None:
        self.now += span
        self.wall += span


async def ask(store: SqliteLeaseStore, *rounds: Round) -> list[Reply]:
    return await store.exchange(rounds)


class Disk(apsw.VFS):
    """SQLite's way to the disk, the default while it lives: keeps what the disk certainly has, and counts writes."""

    def __init__(self, kept: Path, on_write: Callable[[], None] = lambda: None) -> None:
        super().__init__(f"disk-{id(self)}", "unix", makedefault=True)
        self.kept = kept
        self.syncs = 0
        self.on_write = on_write

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        (self.kept / Path(filename).name).unlink(missing_ok=True)

    def synced(self, path: Path) -> None:
        """What was written of this file so far survives."""
        if path.parent == self.kept:
            return
        self.syncs += 1
        self.kept.mkdir(exist_ok=True)
        shutil.copy(path, self.kept)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "")

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.on_write()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._disk.synced(self._path)
