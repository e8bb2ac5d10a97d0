"""--dry-run: what a run would send, what that costs, and how long it takes.

Rule: calls are read, checked and chosen as in a run, up to where they would be handed over. Nothing is sent, and no
file is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.client import ApifluxError, Unavailable
from apiflux_grpc.core.units import counted
from apiflux_grpc.jobs.ending import Ending
from apiflux_grpc.jobs.opening import time_of, where
from apiflux_grpc.jobs.ration import declared
from apiflux_grpc.jobs.shapes import Shapes
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from apiflux_grpc.client import Client
    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.jobs.checks import Checks
    from apiflux_grpc.jobs.console import Console
    from apiflux_grpc.jobs.job import Job
    from apiflux_grpc.jobs.ration import Ration

SHAPES_SHOWN: Final = 10
_TAKEN: Final = 500  # calls at a time
_SUCCESS: Final = pb.CallResult()  # tells no cost, so what was declared stands


class Rehearsal:
    """Goes through the calls of a run. `absent`: why the server hasn't told the rules of its pool."""

    def __init__(self, job: Job, pool: Pool, client: Client, absent: ApifluxError | None) -> None:
        self.calls = 0
        self._job = job
        self._pool = pool
        self._client = client
        self._absent = absent
        self._shapes = Shapes()
        self._cost = 0
        self._least = self._largest = 0  # cost of one call
        self._own = 0  # calls that say what they cost

    async def go_through(self, ration: Ration) -> None:
        """Take every call that would be sent."""
        await ration.any()
        while (calls := await ration.take(_TAKEN)) is not None:
            for call in calls:
                self._add(call)
                del ration.selection.open[self.calls]  # as its result would
                ration.settle(self.calls, _SUCCESS)
                self.calls += 1

    def _add(self, call: pb.Call) -> None:
        cost = declared(call, self._pool)
        self._least = min(self._least, cost) if self.calls else cost
        self._largest = max(self._largest, cost)
        self._cost += cost
        self._own += call.HasField("cost")
        self._shapes.add(call.method, call.path)

    async def tell(self, console: Console, checks: Checks, ration: Ration) -> Ending:
        """Say what there was, and how it ends."""
        rows = [] if self._absent else [("upstream", f"{where(self._pool)}, pool {self._pool.name}")]
        of_all = "" if checks.calls in (None, self.calls) else f" of {checks.calls:,}"
        left_out = f"; {ration.reached} leaves the others out" if ration.reached else ""
        rows.append(("calls", f"{self.calls:,}{of_all}{left_out}"))
        rows += [("", f"{calls:,} {shape}") for shape, calls in self._shapes.told(SHAPES_SHOWN)]
        if self.calls:
            rows += [("cost", self._told_cost()), ("time", await self._told_time())]
        if checks.done:
            rows.append(("earlier", f"{counted(checks.done, 'call')} with a result, not sent again"))
        if number := len(list(ration.selection.doubtful())):
            rows.append(("in doubt", f"{counted(number, 'call')} that may have run, not sent again"))
        if checks.bad:
            effect = "" if self._job.skip_bad_lines else "; a run sends nothing, or the others with --skip-bad-lines"
            rows.append(("bad lines", f"{checks.bad:,}{effect}"))
        console.table(rows, red="bad lines")
        if ration.selection.is_other:
            return Ending.OTHER_CALLS
        return Ending.BAD_CALLS if checks.bad and not self._job.skip_bad_lines else Ending.REHEARSED

    def _told_cost(self) -> str:
        each = f"{self._least:,}" if self._least == self._largest else f"{self._least:,} to {self._largest:,}"
        sources = ["by their own `cost`"] if self._own else []
        if self._own < self.calls:
            if self._absent:
                sources.append("without the pool's rule, which isn't known")
            elif self._pool.cost is None:
                sources.append("the default")
            else:
                sources.append(f"by the pool's rule, {self._pool.cost}")
        return f"{self._cost:,} ({each} each, {' or '.join(sources)})"

    async def _told_time(self) -> str:
        if isinstance(self._absent, Unavailable):
            return f"not known, as no server answers at {self._job.any_server}"
        if self._absent:
            return f"not known: {self._absent}"
        try:
            estimate = await self._client.estimate(
                self.calls, pool=self._pool.name, cost=max(1, -(-self._cost // self.calls))
            )
        except ApifluxError as error:
            return f"not known: {error}"
        return time_of(estimate)
