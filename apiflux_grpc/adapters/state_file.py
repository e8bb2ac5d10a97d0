"""The file in which processes of one host keep what was spent: made, opened and checked.

Rule: what isn't certainly ours, whole and of a format that this version reads is left as it is, and the error says what
to do. Whoever may read the file learns names of budgets and what was spent of them; no secret is in it.

Two SQLite libraries on one file in one process drop each other's locks, so this is opened with apsw alone, which brings
its own; and each process opens it for itself, for neither connections nor locks outlive a fork.

Not known here: what the rows mean.
"""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
import time
from typing import TYPE_CHECKING, Final

import apsw

from apiflux_grpc.core.lease.codec import LAYOUT

if TYPE_CHECKING:
    from pathlib import Path

NAME: Final = "budgets.sqlite3"
APPLICATION: Final = 0x41504658  # "APFX" in the head of the file: what tells ours from any other
FORMAT: Final = 100 + LAYOUT  # counts up with the tables below, by hundreds, and with the layout of an entry
BUSY: Final = 1.0  # seconds; another process holds the file no longer than some ms, unless it was stopped meanwhile
PAUSE: Final = 0.0005
NEWER: Final = "was written by a newer version of APIFlux; upgrade this one, or choose another state_dir for it"
ANOTHERS: Final = "is a database of another program; choose another state_dir"
ROOM: Final = 1 << 16  # bytes; so much is certainly needed

_TABLES: Final = """
    CREATE TABLE store (id TEXT NOT NULL, boot TEXT NOT NULL, base INTEGER NOT NULL) STRICT;
    CREATE TABLE budget (
        name TEXT PRIMARY KEY, boot TEXT NOT NULL, synced INTEGER NOT NULL, clock INTEGER NOT NULL,
        wall INTEGER NOT NULL, entry TEXT NOT NULL
    ) STRICT;
"""


class StateFileError(Exception):
    """The file can't be used; the text says why and what to do, without the file's name."""


def open_file(path: Path) -> apsw.Connection:
    """The file at `path`, made if it isn't there, with its directory. Raises StateFileError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except (OSError, apsw.Error) as error:
        raise StateFileError(words_of(error, path.parent)) from error
    try:
        _check(connection)
    except apsw.Error as error:
        connection.close()
        raise StateFileError(words_of(error, path.parent)) from error
    except StateFileError:
        connection.close()
        raise
    return connection


def _check(connection: apsw.Connection) -> None:
    _wait_for_others(connection)
    if _is_new(connection):
        _make(connection)
    application, found = _number(connection, "application_id"), _number(connection, "user_version")
    if application != APPLICATION:
        raise StateFileError(ANOTHERS)
    if found > FORMAT:
        raise StateFileError(NEWER)
    if connection.execute("PRAGMA quick_check(1)").get != "ok":
        raise apsw.CorruptError
    if found < FORMAT:
        connection.execute(f"PRAGMA user_version = {FORMAT}")


def _wait_for_others(connection: apsw.Connection) -> None:
    """SQLite's own pauses grow to 100 ms, which a call would wait for."""

    def busy(tried: int) -> bool:
        if not tried:
            started[0] = time.monotonic()
        time.sleep(PAUSE)
        return time.monotonic() - started[0] < BUSY

    started = [0.0]
    connection.set_busy_handler(busy)


def _is_new(connection: apsw.Connection) -> bool:
    return _number(connection, "application_id") == 0 and not _number(connection, "schema_version")


def _make(connection: apsw.Connection) -> None:
    """Several processes may be at it: the first does it, the others see it done."""
    deadline = time.monotonic() + BUSY
    while True:
        try:  # not every wait here is the busy handler's
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            break
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(PAUSE)
    connection.execute("PRAGMA synchronous = FULL")
    with_all = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; {_TABLES}"
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _is_new(connection):
            connection.execute(with_all)
            connection.execute("INSERT INTO store VALUES (?, '', 0)", (secrets.token_hex(16),))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _number(connection: apsw.Connection, name: str) -> int:
    value = connection.execute(f"PRAGMA {name}").get
    assert isinstance(value, int)
    return value


def words_of(error: Exception, folder: Path) -> str:
    """Why, and what to do; `folder` has the file."""
    room = f"make room in {folder}, or choose another state_dir"
    match error:
        case apsw.BusyError() | apsw.LockedError():
            return f"is held by another process for {BUSY:g} s and longer; is one stopped?"
        case apsw.FullError():
            return f"can't be written: the disk is full; {room}"
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return f"can't be written: the disk is full, or its quota; {room}"
        case apsw.IOError():
            # SQLite doesn't say which: a quota, a bound on the length of files, or a disk that fails.
            return f"can't be written ({error}): the disk is full, over a quota, or fails; {room}"
        case apsw.NotADBError():
            return "isn't a database; choose another state_dir, or move the file away"
        case apsw.CorruptError():
            return (
                'is damaged; move it and the files whose names begin so away, and set cold_start = "wait" for one '
                "start, since nobody knows what was spent"
            )
        case OSError(errno=errno.EROFS):
            return (
                f"can't be written: {folder} is mounted read-only; mount it to be written, or choose another state_dir"
            )
        case apsw.ReadOnlyError() | apsw.CantOpenError() | PermissionError():
            return f"can't be written; give this user the right to write in {folder}, or choose another state_dir"
        case OSError():
            return f"can't be opened: {error.strerror or error}; choose another state_dir than {folder}"
        case _:
            return f"can't be used: {error}"


def probe(path: Path) -> None:
    """Whether the file can be used, or made; everything is left as it is. Raises StateFileError.

    It isn't opened as SQLite does it: that makes files, which would belong to whoever asks.
    """
    there = next(folder for folder in path.parents if folder.exists())
    try:
        if path.exists():
            _check_head(path)
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(ROOM))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StateFileError(words_of(error, there)) from error


def _check_head(path: Path) -> None:
    with path.open("r+b") as file:
        head = file.read(72)
    if head and not head.startswith(b"SQLite format 3\0"):
        raise StateFileError(words_of(apsw.NotADBError(), path.parent))
    # 0: what was written of it isn't there yet, but in the file beside it.
    version, application = (int.from_bytes(head[at : at + 4], "big") for at in (60, 68))
    if application not in (0, APPLICATION):
        raise StateFileError(ANOTHERS)
    if version > FORMAT:
        raise StateFileError(NEWER)
