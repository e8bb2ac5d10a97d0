"""The input of a job: a regular file, which can be read twice, or a pipe, whose lines are taken as they come.

Rule: the event loop never blocks on the input, and no line is lost if whoever waits for it is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from apiflux_grpc.jobs.callline import line_of_call
from apiflux_grpc.jobs.formats import JsonLines, Recognised, named
from apiflux_grpc.jobs.job import Refused
from apiflux_grpc.jobs.lines import Entry, Readable, entries, lines_of
from apiflux_grpc.jobs.openai_batch import OpenAiBatch
from apiflux_grpc.jobs.spreadsheet import Spreadsheet, delimiter_of
from apiflux_grpc.jobs.template import Template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from apiflux_grpc.jobs.formats import Format
    from apiflux_grpc.jobs.job import Job

TURN: Final = 500  # lines read without giving the loop a turn


class _Pipe:
    """Lines of a file descriptor that may block; knows whether another line is there already."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()

    def readline(self, limit: int) -> bytes:
        searched = 0
        while (end := self._buffer.find(b"\n", searched) + 1) == 0 and len(self._buffer) < limit:
            searched = len(self._buffer)
            data = os.read(self._descriptor, 1 << 16)
            if not data:
                end = len(self._buffer)
                break
            self._buffer += data
        line = bytes(self._buffer[: min(end or limit, limit)])
        del self._buffer[: len(line)]
        return line

    @property
    def has_line(self) -> bool:
        return b"\n" in self._buffer


class Entries(Protocol):
    """The lines of the input, for a loop that mustn't block."""

    async def more(self) -> Sequence[Entry] | None:
        """The next ones, none of them lost when cancelled; None: that was all."""
        ...

    def wake(self) -> None:
        """Let whoever waits for more go on without."""
        ...


class _FromFile:
    def __init__(self, lines: Iterator[Entry]) -> None:
        self._lines = lines

    async def more(self) -> Sequence[Entry] | None:
        await asyncio.sleep(0)
        some = []
        for entry in self._lines:
            some.append(entry)
            if len(some) == TURN:
                break
        return some or None

    def wake(self) -> None:
        pass


class _FromPipe:
    """A thread reads: a pipe can't be waited for otherwise without changing it for whoever else has it open.

    It is a daemon, since nothing ends its waiting but the other end of the pipe.
    """

    def __init__(self, pipe: _Pipe, lines: Iterator[Entry]) -> None:
        self._pipe = pipe
        self._lines = lines
        self._queue: asyncio.Queue[list[Entry] | Refused | None] = asyncio.Queue()
        self._slots = threading.Semaphore(4)
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, daemon=True).start()

    async def more(self) -> Sequence[Entry] | None:
        some = await self._queue.get()
        self._slots.release()
        if isinstance(some, Refused):
            raise some
        return some

    def wake(self) -> None:
        self._queue.put_nowait([])

    def _read(self) -> None:
        some: list[Entry] = []
        last: Refused | None = None
        with contextlib.suppress(RuntimeError):  # the loop is gone, and so are we
            try:
                for entry in self._lines:
                    some.append(entry)
                    if len(some) == TURN or not self._pipe.has_line:
                        self._put(some)
                        some = []
            except Refused as error:
                last = error
            if some:
                self._put(some)
            self._put(last)

    def _put(self, some: list[Entry] | Refused | None) -> None:
        self._slots.acquire()
        self._loop.call_soon_threadsafe(self._queue.put_nowait, some)


class Source:
    """The file or pipe that calls come from. Raises Refused; ValueError for an option; OSError if it can't be opened.

    `format` is that of its lines and of the results.
    """

    format: Format

    def __init__(self, job: Job) -> None:
        self.name = "<stdin>" if job.source is None else str(job.source)
        suffix = "" if job.source is None else job.source.suffix.lower()
        self._rows: Spreadsheet | None = None
        self._say: Callable[[str], object] = lambda word: None
        if job.template is not None and job.format == OpenAiBatch.name:
            raise Refused(f"--template conflicts with --format {job.format}; leave one of them out")
        for option, given in (("--template", job.template), ("--delimiter", job.delimiter)):
            if given is not None and suffix in (".jsonl", ".ndjson", ".json"):
                raise Refused(f"{self.name}: {option} is for CSV; leave it out")
        if job.template is not None:
            delimiter = "\t" if suffix == ".tsv" else None
            if job.delimiter is not None:
                delimiter = delimiter_of(job.delimiter)
            template = Template(_text_of(job.template))
            self._rows = Spreadsheet(template, delimiter, lambda word: self._say(f"{self.name}: {word}"))
        elif suffix in (".csv", ".tsv"):
            raise Refused(f"{self.name}: {suffix[1:].upper()} needs --template, which says what call a row makes")
        elif job.delimiter is not None:
            raise Refused("--delimiter is for CSV, which needs --template too")
        self._named = job.format if job.template is None else JsonLines.name
        self.read_for(None, lambda word: None)
        self._descriptor = 0 if job.source is None else os.open(job.source, os.O_RDONLY | os.O_CLOEXEC)
        mode = os.fstat(self._descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError("is a directory")
        self.is_regular = stat.S_ISREG(mode)
        self._start = os.lseek(self._descriptor, 0, os.SEEK_CUR) if self.is_regular else 0
        self._size = os.fstat(self._descriptor).st_size - self._start

    def read_for(self, base_url: str | None, say: Callable[[str], object]) -> None:
        """Make calls for a pool with this base URL; None: it isn't known, so nothing can be sent.

        `say` is told of what was recognised: a format, a delimiter.
        """
        self._say = say
        self._is_bound = base_url is not None

        def tell(format: Format) -> None:
            if format.name == OpenAiBatch.name:
                say(f"{self.name} is in OpenAI's batch format, and so are its results (--format {format.name})")

        url = base_url or ""
        self.format = named(self._named, url) if self._named else Recognised(url, tell)

    @property
    def knows_paths(self) -> bool:
        """Whether calls have the paths that are sent: in OpenAI's batch format they depend on the base URL."""
        return self._is_bound or self.format.name == JsonLines.name

    def is_same(self, path: Path) -> bool:
        """Whether the input is this file."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._descriptor), path.stat())
        return False

    def read(self) -> Iterator[Entry]:
        """The lines of a regular file, from its start."""
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(self._start)
            yield from self._entries(file)

    def share_read(self) -> float:
        """How much of a regular file was read in this reading, 0 to 1; a little of it may not have been looked at."""
        read = os.lseek(self._descriptor, 0, os.SEEK_CUR) - self._start
        return min(1.0, read / max(1, self._size))

    @property
    def version(self) -> tuple[int, int]:
        """Another one says that somebody has written to the file."""
        found = os.fstat(self._descriptor)
        return found.st_mtime_ns, found.st_size

    def originals(self, wanted: bytes | bytearray) -> Iterator[bytes]:
        """Lines of a regular file as they stand there, a row of CSV as its call. Line n if wanted[n] isn't 0."""
        if self._rows is not None:
            for entry in self.read():
                if entry.call is not None and entry.line < len(wanted) and wanted[entry.line]:
                    yield line_of_call(entry.call)
            return
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(self._start)
            for is_wanted, line in zip(itertools.islice(wanted, 1, None), lines_of(file), strict=False):
                if is_wanted and line is not None:
                    yield line if line.endswith(b"\n") else line + b"\n"

    def open(self) -> Entries:
        """What is to be read of it, for a loop; a regular file from its start."""
        if self.is_regular:
            return _FromFile(self.read())
        pipe = _Pipe(self._descriptor)
        return _FromPipe(pipe, self._entries(pipe))

    def _entries(self, file: Readable) -> Iterator[Entry]:
        try:
            lines = lines_of(file)
            yield from entries(lines, self.format) if self._rows is None else self._rows.entries(lines)
        except OSError as error:
            raise Refused(f"can't read {self.name}: {error.strerror or error}") from None
        except ValueError as error:  # it isn't UTF-8, or its header doesn't fit the template
            raise Refused(f"{self.name}: {error}") from None


def _text_of(template: str) -> str:
    """The template itself; @FILE is the name of its file."""
    if not template.startswith("@"):
        return template
    try:
        return Path(template[1:]).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Refused(f"can't read the template {template[1:]}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise Refused(f"the template {template[1:]} is not UTF-8; save it as UTF-8") from None
