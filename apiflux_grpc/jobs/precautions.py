"""What keeps a mistake from costing more than it must, for one run: its bounds, its guard, the calls that failed.

Rule: the run asks here whether to go on. What each precaution decides, and why, is told in its own file: guard.py,
ration.py, excerpt.py, failed.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.units import counted
from apiflux_grpc.jobs.ending import Ending
from apiflux_grpc.jobs.excerpt import excerpt
from apiflux_grpc.jobs.failed import Failed
from apiflux_grpc.jobs.guard import NO_END, Guard
from apiflux_grpc.jobs.job import Refused
from apiflux_grpc.jobs.ration import RETRY, Purse, Ration

if TYPE_CHECKING:
    from apiflux_grpc.client import Retry
    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.jobs.console import Console
    from apiflux_grpc.jobs.job import Job
    from apiflux_grpc.jobs.selection import Selected, Selection
    from apiflux_grpc.jobs.source import Source
    from apiflux_grpc.v1 import apiflux_pb2 as pb


class Precautions:
    """Of one run. Raises Refused if the file for failed calls can't be used."""

    def __init__(self, job: Job, source: Source, console: Console) -> None:
        self._job = job
        self._source = source
        self._console = console
        self._guard = Guard(NO_END if job.dry_run else job.max_failures)
        self.failed = None if job.failed is None else Failed(job.failed, job, source)
        if job.dry_run:
            self.failed = None  # that it could be written is known now
        self._purse: Purse | None = None
        self._ration: Ration | None = None
        self._is_body_shown = False
        self._is_unmasked = False
        self._is_stopped = False

    @property
    def retry(self) -> Retry | None:
        """Which attempts the server may repeat; None: as its pool has it."""
        return None if self._job.max_cost is None else RETRY

    def producer(self, selection: Selection, pool: Pool, *, is_within_limit: bool) -> Ration:
        """What gives the stream its calls. `is_within_limit`: --limit leaves none of them out."""
        job, failed = self._job, self.failed
        # Behind the last call that is sent there may be others that want to be dealt with.
        limit = None if is_within_limit else job.limit
        self._is_unmasked = pool.is_unmasked
        keep = failed.keep if failed is not None and failed.keeps else None
        self._purse = None if job.max_cost is None else Purse(job.max_cost, pool)
        self._ration = Ration(selection, self._guard, limit, self._purse, keep)
        return self._ration

    def met(self, place: int, result: pb.CallResult, call: Selected) -> None:
        """A call that this run sent has its result. `place`: in the stream."""
        if self._guard.is_watching:
            self._guard.add(result)
        if self._ration is not None:
            self._ration.settle(place, result)
        if self.failed is not None:
            self.failed.met(place, result, call.line, idempotent=call.idempotent)
        if result.failure and not self._is_body_shown and result.response.body:
            self._is_body_shown = True
            self._show(result.response.body, call.line)

    def _show(self, body: bytes, line: int) -> None:
        self._console.error(f"{self._source.name}:{line}: the first answer that is a failure:")
        lines = excerpt(body)
        if self._is_unmasked:
            lines = ["it isn't shown, since it may have a key in it (mask_secrets = false)"]
        for text in lines:
            self._console.say(f"    {text}")

    def met_in_doubt(self) -> None:
        """A call that an earlier run sent may have run, and isn't sent again."""
        if self.failed is not None:
            self.failed.left_out += 1

    def finish(self) -> None:
        """Tell what it cost, and write the calls that failed. Raises OSError if they can't be written."""
        if (purse := self._purse) is not None:
            self._console.say(f"cost: {purse.spent:,} of {purse.most:,}, {purse.source}")
        failed = self.failed
        if failed is None:
            return
        try:
            failed.write()
        except Refused as changed:
            self._console.error(str(changed))
            return
        told = f"{self._job.failed}: {counted(failed.calls, 'failed call')}, to be sent again"
        if not failed.calls:
            told = f"{self._job.failed}: no failed call to be sent again"
        if failed.left_out:
            told += f"; {failed.left_out} more may have run and must not run twice, so they are not in it"
        self._console.say(told)

    def at_most(self, calls: int | None) -> int | None:
        """How many of so many calls are sent at most; None: not known."""
        return calls if calls is None or self._job.limit is None else min(calls, self._job.limit)

    @property
    def why(self) -> str:
        """Why nothing more is to be sent: too many calls fail. "": go on."""
        return self._guard.why

    def stops(self) -> bool:
        """Whether nothing more is to be sent from now on; true once."""
        is_first = bool(self._guard.why) and not self._is_stopped
        self._is_stopped |= is_first
        return is_first

    @property
    def has_left(self) -> bool:
        """Calls that were read, and that a bound kept back."""
        return self._ration is not None and self._ration.left > 0

    @property
    def ending(self) -> Ending | None:
        """How the run ended if calls are left; None: no precaution ended it."""
        if self._guard.why:
            return Ending.FAILING
        if self._ration is not None and self._ration.reached:
            return Ending.LIMIT_REACHED if self._ration.reached == "--limit" else Ending.COST_REACHED
        return None
