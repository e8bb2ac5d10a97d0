"""A job from its beginning to its exit code.

Rule: whatever ends it before anything is sent, or keeps its results from being written, is told on standard error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.client import ApifluxError
from apiflux_grpc.jobs import sink
from apiflux_grpc.jobs.console import Console
from apiflux_grpc.jobs.ending import Ending
from apiflux_grpc.jobs.job import Interrupted, Refused
from apiflux_grpc.jobs.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from apiflux_grpc.jobs.job import Job

    # Entered on the running loop: for as long as the block lasts the function is called for every signal.
    Telling = Callable[[Callable[[], None]], AbstractContextManager[None]]


async def run_job(job: Job, telling: Telling) -> Ending:
    """Process one file. Every ending is told on standard error."""
    console = Console(shared=sink.is_in_sight(job))
    try:
        run = Run(job, console)
    except OSError as failed:
        name = "<stdin>" if job.source is None else str(job.source)
        console.error(f"can't read {name}: {failed.strerror or failed}")
        return Ending.REFUSED
    except (Refused, ValueError) as refused:
        console.error(str(refused))
        return Ending.REFUSED
    with telling(run.interrupt):
        try:
            return await run.run()
        except Refused as refused:
            console.error(str(refused))
            return Ending.REFUSED
        except ApifluxError as absent:  # a name without an address
            console.error(str(absent))
            return Ending.SERVER_LOST
        except Interrupted:
            console.say("interrupted: nothing was sent")
            return Ending.INTERRUPTED
        except OSError as failed:
            where = failed.filename or job.output or "standard output"
            console.error(f"can't write to {where}: {failed.strerror or failed}")
            return Ending.REFUSED
