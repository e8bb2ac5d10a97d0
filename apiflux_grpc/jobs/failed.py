"""--failed FILE: the calls that failed, as lines that are ready to be sent again.

Rules:
- A line of the input is written as it stands there. A row of CSV can't stand alone, and what came through a pipe is
  gone: they are written anew, in the format of the input or as calls in JSON.
- Of a job that goes on, calls that failed in earlier runs and aren't sent again are in the file too.
- A call that may have run and must not run twice isn't in the file: it isn't ready to be sent again. It is counted.
- The file is there whole or not at all; until it is, an earlier one stays. It takes nobody else's place: not the
  input's, the output's or the template's, and no device's.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from apiflux_grpc.client.tally import failure_of, may_have_run
from apiflux_grpc.jobs.job import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apiflux_grpc.jobs.job import Job
    from apiflux_grpc.jobs.source import Source
    from apiflux_grpc.v1 import apiflux_pb2 as pb

_IN_MEMORY: Final = 1 << 20  # bytes of calls of a pipe


class Failed:
    """Collects what failed. Raises Refused if the file can't be written, or is another's."""

    def __init__(self, path: Path, job: Job, source: Source) -> None:
        self.path = Path(os.path.realpath(path))
        self.calls = 0  # in the file
        self.left_out = 0  # may have run
        self._source = source
        self._lines = bytearray()  # 1 for each line of the input whose call failed
        self._sent: dict[int, pb.Call] = {}  # of a pipe, without a result
        self._spool: IO[bytes] | None = None  # failed ones of a pipe
        self._check(path, job)
        self._version = source.version
        # It has to be told of calls before they are sent: nobody can read them once more.
        self.keeps = not source.is_regular

    def keep(self, place: int, call: pb.Call) -> None:
        """A call of a pipe is about to be sent. `place`: in the stream."""
        self._sent[place] = call

    def met(self, place: int, result: pb.CallResult, line: int, *, idempotent: bool) -> None:
        """The call of a line has its result."""
        kept = self._sent.pop(place, None)
        if not failure_of(result):
            return
        self._add(line, kept, is_ready=idempotent or _never_ran(result))

    def met_before(self, line: int, call: pb.Call, *, is_ready: bool) -> None:
        """A call has failed in an earlier run, and keeps that result. `is_ready`: it may be sent again."""
        self._add(line, call if self.keeps else None, is_ready)

    def _add(self, line: int, kept: pb.Call | None, is_ready: bool) -> None:
        if not is_ready:
            self.left_out += 1
            return
        self.calls += 1
        if kept is not None:
            self._spool = self._spool or tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  (`write` closes it)
            self._spool.write(self._source.format.written(kept))
            return
        if len(self._lines) <= line:
            self._lines.extend(bytes(line + 1))
        self._lines[line] = 1

    def write(self) -> None:
        """Write the file. Raises Refused if the input was changed meanwhile; OSError if there is no room for it."""
        if not self.keeps and self._source.version != self._version:
            raise Refused(f"{self._source.name} was changed meanwhile, so {self.path} wasn't written")
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with fresh.open("xb") as file:
                file.writelines(self._all())
                file.flush()
                os.fsync(file.fileno())
            if self.path.exists():
                shutil.copymode(self.path, fresh)
            fresh.replace(self.path)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        finally:
            fresh.unlink(missing_ok=True)

    def _all(self) -> Iterator[bytes]:
        if not self.keeps:
            yield from self._source.originals(self._lines)
        elif self._spool is not None:
            with self._spool as spool:
                spool.seek(0)
                yield from spool

    def _check(self, path: Path, job: Job) -> None:
        """Raises Refused if the file can't be, or mustn't be, written."""
        if whose := self._whose(job):
            raise Refused(f"--failed {path}: that is {whose}; name another file")
        if self.path.exists() and not self.path.is_file():
            raise Refused(f"--failed {path}: that is no regular file; name another")
        if not self.path.parent.is_dir():
            raise Refused(f"--failed {path}: there is no folder {self.path.parent}")
        if not os.access(self.path.parent, os.W_OK):
            raise Refused(f"--failed {path}: can't write to the folder {self.path.parent}")

    def _whose(self, job: Job) -> str:
        """What the file is to this job already; "": nothing."""
        if self._source.is_same(self.path):
            return "the input"
        if job.output is None and _is_standard_output(self.path):
            return "the output"
        if job.output is not None:
            if _is_same(self.path, job.output):
                return "the output"
            if _is_same(self.path, Path(f"{os.path.realpath(job.output)}.state")):
                return "the state of the output"
        if job.template is not None and job.template.startswith("@") and _is_same(self.path, Path(job.template[1:])):
            return "the template"
        return ""


def _never_ran(result: pb.CallResult) -> bool:
    """Whether it certainly wasn't executed, or its answer says what came of it."""
    return not result.HasField("error") or not may_have_run(result)


def _is_same(path: Path, other: Path) -> bool:
    """Whether both names are, or would be, one file."""
    try:
        return os.path.samestat(path.stat(), other.stat())
    except OSError:
        return str(path) == os.path.realpath(other)


def _is_standard_output(path: Path) -> bool:
    try:
        found = path.stat()
        return stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.fstat(1))
    except OSError:
        return False
