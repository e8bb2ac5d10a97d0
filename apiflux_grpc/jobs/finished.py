"""Whether a job has nothing left to do, so that it needs no server.

Rule: it is asked while a server is waited for, and leaves no trace: files stay as they are, and nothing is said.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from apiflux_grpc.jobs.again import Again
from apiflux_grpc.jobs.checks import Checks
from apiflux_grpc.jobs.console import Console
from apiflux_grpc.jobs.job import Refused
from apiflux_grpc.jobs.known import Known
from apiflux_grpc.jobs.output import Output

if TYPE_CHECKING:
    from apiflux_grpc.jobs.job import Job
    from apiflux_grpc.jobs.source import Source


class _Silent(Console):
    def say(self, text: str) -> None:
        pass

    def error(self, text: str) -> None:
        pass


async def is_finished(job: Job, source: Source) -> bool:
    """Whether each call of a regular file has its result, and none of them is sent again."""
    if job.output is None or not job.output.is_file() or not source.is_regular or job.overwrite or job.dry_run:
        return False
    known = Known()
    try:
        with Output(job.output, known, peek=True) as output:
            checks = Checks(job, source, known, output, Again(job), _Silent())
            for work in (output.load(), checks.whole_file()):
                for _ in work:
                    await asyncio.sleep(0)
            return checks.is_all_done
    except (Refused, OSError):  # it is told when the server is there, or never comes
        return False
