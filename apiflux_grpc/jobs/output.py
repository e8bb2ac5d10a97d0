"""OUTPUT: the results that a job has, those of earlier runs and those that come.

Rules:
- It only grows, a whole line for each result. If not all fits, because the disk is full, it ends with a whole line.
- A last line that an earlier run left cut is cut away, or completed if only its end is missing.
- If results are to make room for others (again.py), a new file without them takes its place. The old one is kept open,
  though it has no name any more: at the end the results are put back whose calls weren't sent after all, because a
  bound or a signal came first, or the line of a pipe said so, or never came.
- With OUTPUT.state (state.py) it says what is to be done: a call that was handed over and has no result may have run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path
from typing import IO, TYPE_CHECKING

from apiflux_grpc.jobs.again import flags_of
from apiflux_grpc.jobs.formats import format_of_result
from apiflux_grpc.jobs.job import Refused
from apiflux_grpc.jobs.known import AGAIN, DONE, DOUBT, FAILED, HANDED
from apiflux_grpc.jobs.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from apiflux_grpc.jobs.formats import Format
    from apiflux_grpc.jobs.known import Known
    from apiflux_grpc.jobs.rows import Kept


class Output:
    """The file of results with its state, open for one run. Close it, or use it as a context manager.

    With `peek` it is there, is read alone, and stays as it is. Raises Refused; OSError if a file can't be used.
    """

    def __init__(self, path: Path, known: Known, *, overwrite: bool = False, peek: bool = False) -> None:
        self.path = Path(os.path.realpath(path))
        self.known = known
        self.written = 0  # results, by this run
        self.results = 0  # of earlier runs
        self.failed = 0  # of those
        self.taken_out = 0  # of those, and not yet handed over: they are put back if they never are
        self._old: IO[bytes] | None = None  # from which they were taken
        self._format: Format | None = None  # of the results that are there
        self._pending = bytearray()
        self._is_ours = not self.path.exists()
        self._is_peek = peek
        self._is_cut = False  # the last line, which is as if it were not there
        self._state = State(Path(f"{self.path}.state"), overwrite=overwrite, peek=peek)
        try:
            self._file = self.path.open("rb" if peek else "a+b", buffering=0)
            if overwrite:
                self._file.truncate(0)
        except BaseException:
            self._state.close()
            raise

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it. If nothing was done there are no new files."""
        with contextlib.suppress(OSError):  # what can't be written was said before
            self.flush()
            self._put_back()
        if self._old is not None:
            self._old.close()
        self._file.close()
        with contextlib.suppress(OSError):
            if self._is_ours and self.is_fresh and not self.path.stat().st_size:
                self.path.unlink()
                self._state.path.unlink()
        self._state.close()

    @property
    def is_fresh(self) -> bool:
        """Nothing was done yet."""
        return not self.results and self._state.is_empty

    def expect(self, format: Format) -> None:
        """The results to come are in this format. Raises Refused if those that are there are in another."""
        if self._format is not None and self._format.name != format.name:
            raise Refused(
                f"{self.path} has results in the format {self._format.name}, and this job's are in {format.name}; "
                "name another --output, or start over with --overwrite"
            )

    async def note(self, calls: Sequence[tuple[int, int]]) -> None:
        """As State.hand_over, without blocking the event loop. Results of these calls that were taken out are gone for
        good. Cancelled, it ends when the notes are written: others that follow would be written over them."""
        writing = asyncio.ensure_future(asyncio.to_thread(self._state.hand_over, calls))
        try:
            await asyncio.shield(writing)
        finally:
            await asyncio.wait({writing})
        for key, _ in calls:
            if self.is_taken_out(key):
                self.known[key] &= ~FAILED
                self._count_taken_out(-1)

    def take_back(self, keys: Iterable[int]) -> None:
        """As State.take_back, but for calls that an earlier run handed over as well: they may have run then. Results of
        theirs that were taken out are put back."""
        keys = list(keys)
        for key in keys:
            if self.known[key] & (AGAIN | DOUBT) and not self.is_taken_out(key):
                self.known[key] |= FAILED
                self._count_taken_out(1)
        self._state.take_back(key for key in keys if not self.known[key] & HANDED)

    def is_taken_out(self, key: int) -> bool:
        """Whether a call's result was taken out, and is put back unless the call is handed over."""
        return self.known[key] & (FAILED | DONE) == FAILED

    def _count_taken_out(self, number: int) -> None:
        self.taken_out += number
        self.results += number
        self.failed += number

    # -- the results of earlier runs ----------------------------------------------------------

    def load(self) -> Iterator[None]:
        """Learn what is there, and repair a last line that was cut. Yields so that others can take a turn."""
        for count, (number, line) in enumerate(self._lines()):
            if not line.endswith(b"\n"):
                self._repair(number, line)
                break
            self._learn(number, line)
            if count % 500 == 499:
                yield
        for count, (key, is_back, digest) in enumerate(self._state.notes()):
            self.known.note(key, is_back, digest)
            if count % 5_000 == 4_999:
                yield

    def take_out(
        self, goes: Callable[[int], bool], waits: Callable[[int], bool] = lambda flags: False
    ) -> Iterator[None]:
        """Take the results out whose flags say that their calls are sent again; whether those of them are that `waits`
        is true of, the line of their call has to say.

        A call that may have run is still one that was handed over. If the run is killed before it sends it, the next
        one sends it only if it may run twice, or is asked to as well.
        """
        if self._is_peek:
            with open(os.devnull, "wb") as nowhere:
                yield from self._copy_others(nowhere, goes, waits)
            return
        yield from self._note_before(goes)
        fresh = self.path.with_name(f"{self.path.name}.tmp")
        try:
            with fresh.open("wb") as file:
                yield from self._copy_others(file, goes, waits)
                file.flush()
                os.fsync(file.fileno())
            shutil.copymode(self.path, fresh)
            self._old = self.path.open("rb")
            self._file.close()
            fresh.replace(self.path)
        finally:
            fresh.unlink(missing_ok=True)
        self._file = self.path.open("a+b", buffering=0)

    def _note_before(self, goes: Callable[[int], bool]) -> Iterator[None]:
        """Note what is to be known of calls without the results that are taken out. Their lines may be corrected."""
        sure: list[int] = []
        in_doubt: list[int] = []
        for at, (number, line) in enumerate(self._lines(), 1):
            key = self._parse(number, line).key
            flags = self.known[key]
            if goes(flags):
                (in_doubt if flags & DOUBT else sure).append(key)
            if at % 500 == 0:
                self._note(sure, in_doubt)
                sure, in_doubt = [], []
                yield
        self._note(sure, in_doubt)

    def _note(self, sure: Sequence[int], in_doubt: Sequence[int]) -> None:
        if sure:
            self._state.take_back(sure)
        if in_doubt:
            self._state.hand_over((key, 0) for key in in_doubt)

    def _copy_others(
        self, file: IO[bytes], goes: Callable[[int], bool], waits: Callable[[int], bool]
    ) -> Iterator[None]:
        for count, (number, line) in enumerate(self._lines()):
            key = self._parse(number, line).key
            flags = self.known[key]
            if not goes(flags):
                file.write(line)
            else:
                kept = flags & ~(DONE | HANDED) | (HANDED if flags & DOUBT else 0)
                self.known[key] = kept if waits(flags) else kept | AGAIN
                self.known.put_digest(key, 0)
                self.taken_out += 1
            if count % 500 == 499:
                yield

    def _put_back(self) -> None:
        """Results that were taken out, and whose calls were not sent, are results again. Raises OSError."""
        if self._old is None or not self.taken_out or self._format is None:
            return
        for line in self._old:
            key = self._format.kept(line).key
            if self.is_taken_out(key):
                self.known[key] |= DONE
                self.write(line)
        self.flush()

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if self._is_cut and not line.endswith(b"\n"):
                    return
                yield number, line

    def _learn(self, number: int, line: bytes) -> None:
        found = self._parse(number, line)
        self.known.mark(found.key, flags_of(found))
        self.results += 1
        self.failed += found.failed

    def _repair(self, number: int, line: bytes) -> None:
        """The last line has no line end. It counts if nothing else is missing, else it is cut away.

        Raises Refused if it isn't ours: no line is written before its call was handed over.
        """
        try:
            self._learn(number, line)
        except Refused:
            if number == 1 and self._state.is_empty:
                raise
            self._is_cut = self._is_peek
            if not self._is_peek:
                self._file.truncate(self.path.stat().st_size - len(line))
        else:
            if not self._is_peek:
                self._file.write(b"\n")

    def _parse(self, number: int, line: bytes) -> Kept:
        try:
            if self._format is None:
                self._format = format_of_result(line)
            return self._format.kept(line)
        except ValueError as error:
            raise Refused(
                f"{self.path}:{number}: {error}; name another --output, or start over with --overwrite"
            ) from None

    # -- the results of this run --------------------------------------------------------------

    def write(self, line: bytes) -> None:
        """Take a result; it is in the file after the next flush."""
        self._pending += line

    def flush(self) -> None:
        """Raises OSError if not all fits; then the lines that do fit are there."""
        pending, self._pending = bytes(self._pending), bytearray()
        at = 0
        try:
            while at < len(pending):
                at += self._file.write(pending[at:])
        except OSError:
            whole = pending.rfind(b"\n", 0, at) + 1
            os.ftruncate(self._file.fileno(), os.fstat(self._file.fileno()).st_size - (at - whole))
            raise
        finally:
            self.written += pending.count(b"\n", 0, at)
