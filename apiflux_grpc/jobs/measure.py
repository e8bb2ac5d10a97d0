"""What the calls of a file take of their pool's limits, for a plan of the job before anything is sent.

Rule: every line is judged as the job itself judges it, and a file of which the job would refuse a line has no plan.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from apiflux_grpc.core.classes import classes_of
from apiflux_grpc.core.units import counted
from apiflux_grpc.jobs.again import Again
from apiflux_grpc.jobs.checks import Checks
from apiflux_grpc.jobs.job import Refused
from apiflux_grpc.jobs.known import SEEN, Known
from apiflux_grpc.jobs.screen import Screen
from apiflux_grpc.jobs.source import Source

if TYPE_CHECKING:
    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.jobs.console import Console
    from apiflux_grpc.jobs.job import Job


@dataclass(slots=True)
class Measured:
    """Of each call: its cost, its path class, and 1 if it may run twice."""

    costs: array[int] = field(default_factory=lambda: array("q"))
    classes: bytearray = field(default_factory=bytearray)
    repeatable: bytearray = field(default_factory=bytearray)


async def measure(job: Job, pool: Pool, console: Console) -> Measured:
    """Read the whole input of a job for this pool. `console` is told of bad lines, and that a large file is read.

    Raises Refused, saying why, if a line is bad or there is none, ValueError for an option, OSError if the input can't
    be opened.
    """
    source = Source(job)
    source.read_for(pool.base_url, lambda word: None)
    again = Again(job)
    again.rules = pool.idempotent
    checks = Checks(job, source, Known(), None, again, console)
    checks.judge_for(pool)
    classes = classes_of(pool)
    measured = Measured()
    entries = source.open()
    share = source.share_read if source.is_regular else None
    with Screen(console).reads(f"reading {source.name}", share):
        while (some := await entries.more()) is not None:
            for entry in some:
                if (good := checks.good(entry, SEEN, len(measured.costs))) is None:
                    continue
                call = good[0]
                measured.costs.append(checks.cost_of_last)
                measured.classes.append(classes.of(call.path))
                measured.repeatable.append(again.may_run_twice(call))
    if checks.bad:
        raise Refused(f"nothing was planned: {counted(checks.bad, 'bad line')}, which `process` would refuse too")
    if not measured.costs:
        raise Refused(f"{source.name} has no calls; write one on each line")
    return measured
