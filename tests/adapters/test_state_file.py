"""The file of budgets is made for one user alone, and what isn't ours, whole and of our format is left as it is."""

from __future__ import annotations

import errno
import re
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from apiflux_grpc.adapters.state_file import APPLICATION, FORMAT, StateFileError, open_file, probe
from apiflux_grpc.core.lease.codec import LAYOUT
from apiflux_grpc.core.lease.words import Amounts
from tests.adapters.lease_files import Disk, Machine, ask, first, frozen


def test_only_its_user_may_read_it(tmp_path: Path) -> None:
    """Nor the directory that is made for it, nor what SQLite puts beside it."""
    path = tmp_path / "state" / "apiflux" / "budgets.sqlite3"
    connection = open_file(path)
    connection.execute("BEGIN IMMEDIATE; UPDATE store SET base = 1; COMMIT")
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in (path.parent, *path.parent.iterdir())}
    assert modes == {
        "apiflux": 0o700,
        "budgets.sqlite3": 0o600,
        "budgets.sqlite3-wal": 0o600,
        "budgets.sqlite3-shm": 0o600,
    }
    connection.close()


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()


def changed(path: Path, what: str) -> None:
    open_file(path).close()
    connection = apsw.Connection(str(path))
    connection.execute(what)
    connection.close()


def damaged(path: Path) -> None:
    open_file(path).close()
    content = bytearray(path.read_bytes())
    content[100:1100] = bytes(1000)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (foreign, "is a database of another program; choose another state_dir"),
        (lambda path: path.write_text("notes\n" * 500), "isn't a database; choose another state_dir"),
        (lambda path: path.write_text("notes\n"), "isn't a database; choose another state_dir"),
        (lambda path: changed(path, f"PRAGMA user_version = {FORMAT + 1}"), "newer version of APIFlux; upgrade"),
        (lambda path: changed(path, f"PRAGMA user_version = {FORMAT + 100}"), "newer version of APIFlux; upgrade"),
        (lambda path: changed(path, f"PRAGMA application_id = {APPLICATION + 1}"), "of another program"),
        (damaged, "is damaged; move it"),
    ],
)
def test_what_is_not_ours_is_refused_and_left_as_it_is(
    tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    """Not a byte of it changes, and the error says what to do."""
    path = tmp_path / "budgets.sqlite3"
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(StateFileError, match=says):
        open_file(path)
    assert path.read_bytes() == before


async def test_an_older_layout_counts_as_lost(tmp_path: Path) -> None:
    """A new version can't tell what was spent, so the budget is frozen; and it opens as any other."""
    machine = Machine(tmp_path, "boot")
    store, round = machine.store(), first("a", 10)
    await ask(store, round)
    await store.close()
    changed(machine.path, f"PRAGMA user_version = {FORMAT - 1}; UPDATE budget SET entry = '[0]'")
    store = machine.store()
    (reply,) = await ask(store, round)
    assert (reply.granted.calls, reply.opens) == (0, frozen(round))
    machine.later(reply.opens)
    (reply,) = await ask(store, first("b", 10))
    assert reply.granted.calls == 10
    await store.close()


async def test_a_newer_version_that_takes_the_file_over_is_left_alone(tmp_path: Path) -> None:
    """Its entries aren't overwritten by what this version would make of them."""
    machine = Machine(tmp_path, "boot")
    store = machine.store()
    await ask(store, first("a", 10))
    changed(machine.path, f"PRAGMA user_version = {FORMAT + 1}; UPDATE budget SET entry = '[99]'")
    for _ in range(2):
        with pytest.raises(ConnectionError, match="newer version"):
            await ask(store, first("b", 10))
    await store.close()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            PermissionError(13, "Permission denied"),
            "give this user the right to write in {}, or choose another state_dir",
        ),
        (
            OSError(errno.EROFS, "Read-only file system"),
            "{} is mounted read-only; mount it to be written, or choose another",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "the disk is full, or its quota; make room in {}, or choose another",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full, or its quota; make room in {}"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links"), "choose another state_dir than {}"),
        (apsw.ReadOnlyError("attempt to write a readonly database"), "give this user the right to write in {}"),
        (apsw.CantOpenError("unable to open database file"), "give this user the right to write in {}"),
        (
            apsw.FullError("database or disk is full"),
            "the disk is full; make room in {}, or choose another state_dir",
        ),
        (
            apsw.IOError("disk I/O error"),
            "can't be written (disk I/O error): the disk is full, over a quota, or fails; make room in {}",
        ),
    ],
)
def test_what_can_not_be_written_says_why_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    """A directory of somebody else, a file system that is mounted to be read, a disk that is full or fails: the folder
    is named."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(apsw, "Connection", refuse)
    with pytest.raises(StateFileError, match=re.escape(says.format(tmp_path))):
        open_file(tmp_path / "budgets.sqlite3")


def test_a_probe_leaves_everything_as_it_is(tmp_path: Path) -> None:
    """It may be asked by another user than the server's, who couldn't write what that one had made."""
    path = tmp_path / "state" / "apiflux" / "budgets.sqlite3"
    probe(path)
    assert [*tmp_path.iterdir()] == []
    open_file(path).close()
    before = {one: one.stat().st_mtime_ns for one in (path.parent, *path.parent.iterdir())}
    probe(path)
    assert before.keys() == {path.parent, *path.parent.iterdir()}
    assert before[path] == path.stat().st_mtime_ns


def newer(path: Path) -> None:
    open_file(path).close()
    changed(path, f"PRAGMA user_version = {FORMAT + 1}; PRAGMA wal_checkpoint(TRUNCATE)")


def anothers(path: Path) -> None:
    open_file(path).close()
    changed(path, "PRAGMA application_id = 7; PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (newer, "newer version of APIFlux; upgrade"),
        (anothers, "is a database of another program; choose another"),
        (lambda path: path.write_text("notes"), "isn't a database; choose another"),
        (lambda path: path.mkdir(), "choose another state_dir than"),
    ],
)
def test_a_probe_finds_what_a_start_would(tmp_path: Path, spoil: Callable[[Path], object], says: str) -> None:
    """In the words of that."""
    path = tmp_path / "budgets.sqlite3"
    spoil(path)
    for find in (probe, open_file):
        with pytest.raises(StateFileError, match=re.escape(says).replace("choose", ".*choose")):
            find(path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_probe_writes_as_much_as_a_start_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A disk that is full takes a file of nothing, and not one that is written."""

    def full(_: int) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StateFileError, match=str(tmp_path)):
        probe(tmp_path / "state" / "budgets.sqlite3")


@pytest.mark.parametrize("entry", [f"[{LAYOUT}, 2]", "[", "7", "{}"])
async def test_an_entry_that_is_damaged_is_said_to_be(tmp_path: Path, entry: str) -> None:
    """What nobody can have written is no fault of ours that ends the server."""
    machine = Machine(tmp_path, "boot")
    store = machine.store()
    await ask(store, first("a", 10))
    changed(machine.path, f"UPDATE budget SET entry = '{entry}'")
    with pytest.raises(ConnectionError, match="is damaged; move it"):
        await ask(store, first("b", 10))
    await store.close()


async def test_a_full_disk_stops_grants_and_ends(tmp_path: Path) -> None:
    """Nothing is told that isn't written; and when there is room again it goes on by itself."""
    full = False

    def on_write() -> None:
        if full:
            raise apsw.FullError("database or disk is full")

    disk = Disk(tmp_path / "kept", on_write)
    machine = Machine(tmp_path, "boot")
    store = machine.store()
    await ask(store, first("a", 10, want=Amounts(3)))
    full = True
    with pytest.raises(ConnectionError, match="the disk is full"):
        await ask(store, first("b", 10, want=Amounts(3)))
    full = False
    (reply,) = await ask(store, first("c", 10))
    assert reply.granted.calls == 7
    await store.close()
    disk.unregister()
