"""Which calls of the input are sent: the producer of the stream.

Rules:
- A call that has its result is skipped. One that was handed over and has none may have run: again.py says whether it is
  sent again. Else it is in doubt, and gets a result that says so.
- A bad line ends the reading unless bad lines are skipped; a call that isn't what it was always does. What was sent by
  then is finished.

An index is a call's place among the calls of the input; the stream counts the calls that are sent by its own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apiflux_grpc.client.calls import is_idempotent
from apiflux_grpc.jobs.known import DONE, DOUBT, FED, HANDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apiflux_grpc.jobs.again import Again
    from apiflux_grpc.jobs.checks import Checks
    from apiflux_grpc.jobs.console import Console
    from apiflux_grpc.jobs.job import Job
    from apiflux_grpc.jobs.known import Known
    from apiflux_grpc.jobs.lines import Entry
    from apiflux_grpc.jobs.source import Entries
    from apiflux_grpc.v1 import apiflux_pb2 as pb


@dataclass(frozen=True, slots=True)
class Selected:
    """A call that has no result yet: its index, its line, what it is known by."""

    index: int
    line: int
    id: str
    key: int
    idempotent: bool
    digest: int  # 0: it is not written down


class Selection:
    """One reading of the input, from its start, or none if it is known that all calls have their results."""

    def __init__(
        self, job: Job, entries: Entries, known: Known, checks: Checks, again: Again, console: Console
    ) -> None:
        self.calls = 0  # of the input, so far
        self.open: dict[int, Selected] = {}  # sent, and without a result; by the stream's index
        self.is_other = False  # a call isn't what it was
        self._job = job
        self._entries = entries
        self._known = known
        self._checks = checks
        self._again = again
        self._console = console
        self._chunk: deque[Entry] = deque()
        self._doubtful: deque[Selected] = deque()
        self._sent = 0
        self._is_read = checks.is_all_done  # to its end
        self._is_stopped = False
        if self._is_read:
            self.calls = checks.done
        else:
            checks.begin_again()

    @property
    def is_done(self) -> bool:
        """Every call of the input was sent or dealt with."""
        # A stream that was stopped doesn't ask once more, and so may not have met the end of the file.
        return self.calls == self._checks.calls or (self._is_read and not self._chunk)

    def stop(self) -> None:
        """Send nothing more; whoever waits for a call gets None."""
        self._is_stopped = True
        self._entries.wake()

    async def take(self, most: int) -> Sequence[pb.Call] | None:
        """The next calls to send, 1 to `most`; None: there are no more. Cancelled, it loses none."""
        calls: list[pb.Call] = []
        while True:
            while self._chunk and len(calls) < most and not self._is_stopped:
                call = self._select(self._chunk.popleft())
                if call is not None:
                    calls.append(call)
            if calls:
                return calls
            if self._is_stopped or self._is_read:
                return None
            some = await self._entries.more()
            self._is_read = some is None
            self._chunk.extend(some or ())

    def doubtful(self, before: int | None = None) -> Iterator[Selected]:
        """Take the calls that are in doubt, in their order; with `before` those with a lower index."""
        while self._doubtful and (before is None or self._doubtful[0].index < before):
            yield self._doubtful.popleft()

    def notes(self, indexes: Sequence[int]) -> list[tuple[int, int]]:
        """(key, digest) of these calls, by the stream's indexes."""
        return [(self.open[index].key, self.open[index].digest) for index in indexes]

    def _select(self, entry: Entry) -> pb.Call | None:
        """The call of a line, if it is to be sent."""
        index = self.calls
        good = self._checks.good(entry, FED, index)
        if good is None:
            self._is_stopped = self._is_stopped or not self._job.skip_bad_lines
            return None
        call, key, digest = good
        if fault := self._checks.other(entry.line, call, index, key, digest):
            self._console.error(fault)
            self.is_other = self._is_stopped = True
            return None
        self.calls += 1
        flags = self._known[key]
        if flags & DONE:
            self._checks.skip(entry.line, flags, call)
            return None
        idempotent = self._again.may_run_twice(call)
        selected = Selected(index, entry.line, call.id, key, idempotent, digest)
        if flags & HANDED and not self._again.is_sent(flags, idempotent):
            if flags & DOUBT:  # it had a result, which is put back
                self._again.leave(flags, call)
            self._doubtful.append(selected)
            return None
        if idempotent != is_idempotent(call):
            call.idempotent = idempotent  # the client doesn't know the pool's rules, and may have to send it again
        self.open[self._sent] = selected
        self._sent += 1
        return call
