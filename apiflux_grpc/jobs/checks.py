"""What is wrong with the lines of an input, before their calls are sent.

Rules:
- A line is bad if it makes no call, one with an id that was used before, or one that the pool's rules refuse. All that
  is wrong with a line is told, and of a pipe too before the call is sent. A call that keeps its result isn't sent, so
  the rules, which may have changed since, are not asked: it stays a call, and those after it keep their places.
- An output belongs to its calls: under an id or index that an earlier run handed over, a call must ask for what it
  asked for then, unless its result was a failure and is wanted anew.
- A regular file is read whole before anything is sent, and nothing is if one line is bad, unless bad lines are skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.jobs.job import Refused
from apiflux_grpc.jobs.known import AGAIN, DONE, DOUBT, FAILED, HANDED, SEEN, digest_of, key_of
from apiflux_grpc.jobs.pool import ANY_POOL
from apiflux_grpc.jobs.rules import Rules, told
from apiflux_grpc.jobs.source import TURN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.jobs.again import Again
    from apiflux_grpc.jobs.console import Console
    from apiflux_grpc.jobs.failed import Failed
    from apiflux_grpc.jobs.job import Job
    from apiflux_grpc.jobs.known import Known
    from apiflux_grpc.jobs.lines import Entry
    from apiflux_grpc.jobs.output import Output
    from apiflux_grpc.jobs.source import Source
    from apiflux_grpc.v1 import apiflux_pb2 as pb

BAD_LINES_SHOWN: Final = 20


class Checks:
    """Judges lines one after the other. `output` None: there are no earlier runs."""

    def __init__(
        self,
        job: Job,
        source: Source,
        known: Known,
        output: Output | None,
        again: Again,
        console: Console,
        failures: Failed | None = None,
    ) -> None:
        self.bad = 0  # lines, in this reading
        self.calls: int | None = None  # of the input, once it was read to its end
        self.done = 0  # those that have their result from earlier runs, as far as it is known
        self.failed = 0  # of those
        self.replaced = 0  # those whose result makes room for another
        self.cost = 0  # of those that are sent
        self._has_others = False  # whose result would make room, and to which --limit doesn't come
        self._job = job
        self._source = source
        self._known = known
        self._output = output
        self._again = again
        self._console = console
        self._failures = failures
        self._is_told = False  # an earlier reading has told of every bad line
        self._is_clean = False  # and has found none
        self._is_judged = False  # by the rules of the pool
        self._rules = Rules(ANY_POOL, any_method=job.any_method)

    def judge_for(self, pool: Pool) -> None:
        """From now on calls have to meet the rules of this pool."""
        self._is_judged = pool is not ANY_POOL
        self._rules = Rules(pool, any_method=self._job.any_method)

    @property
    def cost_of_last(self) -> int:
        """What the call costs that was judged last."""
        return self._rules.cost

    @property
    def to_send(self) -> int | None:
        """Calls without a result that are sent; None: the input isn't read to its end."""
        return None if self.calls is None else self.calls - self.done - self._again.doubtful

    @property
    def is_within_limit(self) -> bool:
        """Whether --limit, if there is one, is known to leave no call out."""
        limit = self._job.limit
        return limit is None or not (self.to_send is None or self.to_send > limit or self._has_others)

    @property
    def mean_cost(self) -> int:
        """Of a call that is sent, rounded up."""
        return -(-self.cost // self.to_send) if self.to_send else 1

    @property
    def is_all_done(self) -> bool:
        """The whole input was read, and each of its calls has its result."""
        return self.calls == self.done

    def whole_file(self) -> Iterator[None]:
        """Read the file to its end. Yields so that others can take a turn.

        Raises Refused.
        """
        calls = done = 0
        most = self._job.limit  # what isn't sent in this run keeps its result
        for number, entry in enumerate(self._source.read(), 1):
            if (good := self.good(entry, SEEN, calls)) is not None:
                call, key, digest = good
                flags = self._known[key]
                has_turn = most is None or calls - done - self._again.doubtful < most
                if flags & FAILED and self._again.replaces(flags, call):
                    if has_turn:
                        flags = self._known[key] = flags | AGAIN
                    self._has_others = self._has_others or not has_turn
                if fault := self.other(entry.line, call, calls, key, digest):
                    raise Refused(fault)
                calls += 1
                is_sent = True
                if flags & AGAIN:
                    self.replaced += 1
                elif flags & DONE:
                    is_sent = False
                    done += 1
                    self._leave(entry.line, flags, call)
                elif flags & HANDED:
                    is_sent = self._again.count_handed(flags, call, has_turn)
                if is_sent:
                    self.cost += self.cost_of_last
            if number % TURN == 0:
                yield
        if self.bad and not self._job.skip_bad_lines:
            more = f" ({self.bad} bad lines)" if self.bad > 1 else ""
            raise Refused(f"nothing was sent{more}; correct the input, or send the other lines with --skip-bad-lines")
        if not calls:
            raise Refused(f"{self._source.name} has no calls; write one on each line")
        self.calls, self.done = calls, done

    def begin_again(self) -> None:
        """The input is read once more: bad lines are counted anew, and were told."""
        self._is_told = self.calls is not None
        self._is_clean = self._is_told and not self.bad
        self.bad = 0

    def skip(self, line: int, flags: int, call: pb.Call) -> None:
        """A call has its result."""
        if self.calls is None:  # else it was counted when the file was read whole
            self.done += 1
            self._leave(line, flags, call)

    def _leave(self, line: int, flags: int, call: pb.Call) -> None:
        self.failed += bool(flags & FAILED)
        self._again.leave(flags, call)
        if self._failures is not None and flags & FAILED:
            self._failures.met_before(line, call, is_ready=not flags & DOUBT or self._again.may_run_twice(call))

    def good(self, entry: Entry, reading: int, index: int) -> tuple[pb.Call, int, int] | None:
        """The call of a line, which has this index, its key and its digest (0: without an output); None: the line is
        bad, which is told.

        `reading` is the flag for ids met in this reading.
        """
        fault = entry.fault
        if entry.call is not None:
            key = key_of(entry.call.id, index)
            digest = 0 if self._output is None else digest_of(entry.call)
            fault = self._fault(entry.call, reading, key, digest)
            if not fault:
                return entry.call, key, digest
        self.bad += 1
        if not self._is_told:
            if self.bad <= BAD_LINES_SHOWN:
                self._console.error(f"{self._source.name}:{entry.line}: {fault}")
            elif self.bad == BAD_LINES_SHOWN + 1:
                self._console.error("... and more bad lines")
        return None

    def other(self, line: int, call: pb.Call, index: int, key: int, digest: int) -> str:
        """What is wrong if an earlier run handed over another call under the same id or index; "": nothing."""
        if self._output is None or not self._source.knows_paths:
            return ""
        if self._job.skip_bad_lines and not self._is_judged and not call.id:
            return ""  # without a server it isn't known which lines before it are no calls
        flags, before = self._known[key], self._known.digest(key)
        if not before or flags & AGAIN or not flags & (DONE | HANDED) or digest == before:
            return ""
        name = repr(call.id[:64]) if call.id else f"calls[{index}]"
        return (
            f"{self._source.name}:{line}: {self._output.path} belongs to another job: {name} was a different call; "
            "name another --output, or start over with --overwrite"
        )

    def _fault(self, call: pb.Call, reading: int, key: int, digest: int) -> str:
        """What is wrong with a call, in the names of its format; "": nothing."""
        flags = self._known.mark(key, reading) if call.id else self._known[key]
        if call.id and flags & reading:
            name = self._source.format.names.get("id", "id")
            return f"the {name} {call.id[:64]!r} is used on an earlier line"
        if self._is_clean or (flags & DONE and self._keeps_its_result(call, flags, key, digest)):
            return ""
        faults = self._rules.faults(call)
        return told(faults, self._source.format.names) if faults else ""

    def _keeps_its_result(self, call: pb.Call, flags: int, key: int, digest: int) -> bool:
        """Whether it is the call that has this result, and isn't sent again. Without an id, a bad line is at the index
        of the call that follows it."""
        if flags & AGAIN or self._again.replaces(flags, call):
            return False
        return self._known.digest(key) in (0, digest)
