"""A lease store in a file of this host: for workers that share keys, and for a restart that remembers.

Rule: the rounds of an exchange are served in one transaction, or none of them is; and a grant that must outlive the
machine is on disk before it is told. The file is read and written on a thread of its own: the loop never waits for it.

Time is BOOTTIME, which is that of all processes here, so nobody's clock needs to be checked (`steady`). It begins anew
with each boot: the file's time goes on from the newest that it knows by as much as the wall clock did since, and never
back. What was granted of a budget with a window of a minute or more is synced to disk, and survives. Of the others the
last moments may be lost with the machine: those budgets are frozen as if their store had forgotten them.

An exchange that isn't over in a bounded time (a process that was stopped holds the file, a disk hangs) has failed for
whoever asked; it may still be served, and asking again gets the reply.
"""

from __future__ import annotations

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import apsw

from apiflux_grpc.adapters.state_file import BUSY, NEWER, StateFileError, open_file, words_of
from apiflux_grpc.core.lease.codec import LAYOUT, entry_of, plain
from apiflux_grpc.core.lease.entry import Entry
from apiflux_grpc.core.lease.serve import serve
from apiflux_grpc.core.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from apiflux_grpc.core.lease.words import Reply, Round

SYNCED: Final = 60 * SECOND  # budgets with a window of this length are worth waiting for the disk
BOUND: Final = 2 * BUSY  # seconds until an exchange has failed
# Some disks need 30 ms and more to sync, and a busy one longer: a quarter of a lease's life must do for it.
LIFE: Final = 400 * MILLISECOND

_READ: Final = "SELECT boot, synced, entry FROM budget WHERE name = ?"
_WRITE: Final = "INSERT OR REPLACE INTO budget VALUES (?, ?, ?, ?, ?, ?)"


class SqliteLeaseStore:
    """`path` is of the file; `clock` is BOOTTIME in ns, `wall` the wall clock's, `boot` names the run of the machine.

    `boot` "": nobody knows, so everything is synced.
    """

    least_life = LIFE
    is_near = True

    def __init__(self, path: Path, clock: Callable[[], int], wall: Callable[[], int], boot: str) -> None:
        self.path = path
        self._clock = clock
        self._wall = wall
        self._boot = boot
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="budgets")
        self._connection: apsw.Connection | None = None
        self._file = (0, 0)  # which one is open: device and inode
        self._id = ""
        self._base = 0  # of the file's time, over the clock
        self._is_full: bool | None = None  # whether commits are synced now
        self._lasting: set[str] = set()  # the budgets that are known to be synced
        self._entries: dict[str, Entry] = {}  # as they are in the file, while its version is this
        self._version: object = None
        self._late: set[asyncio.Future[list[Reply]]] = set()  # those that nobody waits for any more

    async def open(self) -> None:
        """Open the file now, instead of with the first exchange. Raises StateFileError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def exchange(self, rounds: Sequence[Round]) -> list[Reply]:
        """See LeaseStore."""
        if not rounds:
            return []
        if self._late:
            raise ConnectionError(f"{self.path} hasn't answered for {BOUND:g} s and longer")
        served = asyncio.get_running_loop().run_in_executor(self._thread, self._exchange, tuple(rounds))
        served.add_done_callback(self._is_over)
        done, _ = await asyncio.wait([served], timeout=BOUND)
        if not done:
            self._late.add(served)
            raise ConnectionError(f"{self.path} hasn't answered for {BOUND:g} s")
        return served.result()

    def _is_over(self, served: asyncio.Future[list[Reply]]) -> None:
        self._late.discard(served)
        if not served.cancelled():
            served.exception()  # whoever asked may have been cancelled, or told that it failed

    async def close(self) -> None:
        """Close the file; what is being served is served first."""
        if self._late:  # it would be waited for
            self._thread.shutdown(wait=False)
            return
        try:
            closed = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        except RuntimeError:  # it was closed before
            return
        self._thread.shutdown(wait=False)
        await asyncio.wait([closed], timeout=BOUND)

    # -- on the thread ------------------------------------------------------------------------

    def _exchange(self, rounds: Sequence[Round]) -> list[Reply]:
        try:
            connection = self._opened()
            lasting = not self._boot or any(self._must_last(round) for round in rounds)
            replies = self._served(connection, rounds, lasting=lasting)
            if replies is None:
                replies = self._served(connection, rounds, lasting=True)
            assert replies is not None
            return replies
        except StateFileError as error:
            raise ConnectionError(f"{self.path} {error}") from error
        except (apsw.Error, OSError) as error:
            if not isinstance(error, apsw.BusyError | apsw.FullError):
                self._close()  # opened again it is checked again
            raise ConnectionError(f"{self.path} {words_of(error, self.path.parent)}") from error

    def _must_last(self, round: Round) -> bool:
        """Whether what it is granted must outlive the machine."""
        return any(round.want) and (round.budget in self._lasting or any(cap.per >= SYNCED for cap in round.caps))

    def _served(self, connection: apsw.Connection, rounds: Sequence[Round], *, lasting: bool) -> list[Reply] | None:
        """The replies; None: nothing was done, for it must be synced after all."""
        if lasting is not self._is_full:  # it can't be said within a transaction
            connection.execute(f"PRAGMA synchronous = {'FULL' if lasting else 'NORMAL'}")
            self._is_full = lasting
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._read(connection, rounds)
            if not lasting and any(map(self._must_last, rounds)):
                connection.execute("ROLLBACK")
                return None
            now = self._clock() + self._base
            replies = [serve(self._entries, round, now, self._id, steady=True) for round in rounds]
            synced = self._lasting | {round.budget for round in rounds if lasting and self._must_last(round)}
            wall = self._wall()
            connection.executemany(
                _WRITE,
                [
                    (name, self._boot, int(name in synced), now, wall, json.dumps(plain(self._entries[name])))
                    for name in dict.fromkeys(round.budget for round in rounds)
                    if name in self._entries  # a thaw makes none
                ],
            )
            connection.execute("COMMIT")
        except BaseException:
            self._entries.clear()  # they are ahead of the file
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._lasting = synced
        return replies

    def _read(self, connection: apsw.Connection, rounds: Sequence[Round]) -> None:
        """Have the entries as the file has them: what is here from before is, unless another process wrote since."""
        version = connection.execute("PRAGMA data_version").get
        if version != self._version:
            self._entries.clear()
            self._version = version
        for round in rounds:
            if round.budget in self._entries:
                continue
            for boot, synced, text in connection.execute(_READ, (round.budget,)):
                entry = _entry(str(text))
                if synced:
                    self._lasting.add(round.budget)
                elif boot != self._boot:
                    entry.run_id = ""  # its last moments may be lost
                self._entries[round.budget] = entry

    def _opened(self) -> apsw.Connection:
        if self._connection is not None:
            # One that was moved away, or replaced, is nobody's any more: others would open another.
            try:
                found = os.stat(self.path)
                if (found.st_dev, found.st_ino) == self._file:
                    return self._connection
            except FileNotFoundError:
                pass
            self._close()
        return self._open()

    def _open(self) -> apsw.Connection:
        connection = open_file(self.path)
        found = os.stat(self.path)
        self._connection, self._file = connection, (found.st_dev, found.st_ino)
        self._is_full = self._version = None
        self._lasting = set()
        self._entries.clear()
        try:
            self._go_on(connection)
        except apsw.Error as error:
            self._close()
            raise StateFileError(words_of(error, self.path.parent)) from error
        return connection

    def _go_on(self, connection: apsw.Connection) -> None:
        """Let the file's time go on in this run of the machine."""
        connection.execute("PRAGMA synchronous = FULL")
        with connection:
            connection.execute("UPDATE store SET id = id")  # takes the lock: it's asked below, and then written
            id, boot, base = connection.execute("SELECT id, boot, base FROM store").get
            newest = "SELECT clock, wall FROM budget ORDER BY clock DESC LIMIT 1"
            if boot != self._boot and (last := connection.execute(newest).get) is not None:
                base = last[0] + max(0, self._wall() - last[1]) - self._clock()
            connection.execute("UPDATE store SET boot = ?, base = ?", (self._boot, base))
        self._id, self._base = id, base

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __repr__(self) -> str:
        return f"<SqliteLeaseStore {self.path}>"


def _entry(text: str) -> Entry:
    """The entry as it was written; by an older version: one that was lost. Raises StateFileError, and CorruptError of
    what was written by none."""
    try:
        told = json.loads(text)
        if told[0] > LAYOUT:
            raise StateFileError(NEWER)  # while this had it open
        return entry_of(told) if told[0] == LAYOUT else Entry("", "", 0)
    except (ValueError, TypeError, LookupError) as error:
        raise apsw.CorruptError(str(error)) from error
