"""Where results go: a file of results that a later run can go on with, or standard output, a device, a pipe.

Rule: only a regular file can be continued, so only that has a state.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import IO, TYPE_CHECKING

from apiflux_grpc.jobs.job import Refused
from apiflux_grpc.jobs.output import Output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apiflux_grpc.jobs.job import Job
    from apiflux_grpc.jobs.known import Known
    from apiflux_grpc.jobs.source import Source


@contextlib.contextmanager
def opened(job: Job, source: Source, known: Known) -> Iterator[Output | IO[bytes]]:
    """What results are written to, for as long as the block lasts; with --dry-run no file is changed.

    Raises Refused; OSError if it can't be opened.
    """
    if job.output is not None and _may_be_file(job.output):
        if source.is_same(job.output):
            raise Refused(f"{job.output} is the input; name another --output")
        if not job.dry_run:
            with Output(job.output, known, overwrite=job.overwrite) as output:
                yield output
        elif job.output.exists() and not job.overwrite:
            with Output(job.output, known, peek=True) as output:
                yield output
        else:  # as if it were new
            with open(os.devnull, "wb") as nowhere:
                yield nowhere
        return
    if job.retry_failed or job.retry_unknown:
        option = "--retry-failed" if job.retry_failed else "--retry-unknown"
        raise Refused(f"{option} needs --output, the file of an earlier run")
    # Of standard output a buffer of our own: of what is left in its own one the interpreter would complain at its end.
    path = Path(os.devnull) if job.dry_run else job.output
    file: IO[bytes] = open(1, "wb", closefd=False) if path is None else path.open("wb")  # noqa: SIM115
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # what can't be written was said before
            file.close()


def is_in_sight(job: Job) -> bool:
    """Whether results may come up on the terminal: it is standard output, or at the other end of that pipe."""
    if job.output is not None:
        return False
    try:
        return os.isatty(1) or stat.S_ISFIFO(os.fstat(1).st_mode)
    except OSError:
        return False


def _may_be_file(path: Path) -> bool:
    """Whether it is a regular file, or could become one."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True
