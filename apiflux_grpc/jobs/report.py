"""What came of a run, in words: the figures, the calls that failed, how far it got and how to continue.

Rule: it says what to do next wherever something can be done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from apiflux_grpc.client import Unavailable
from apiflux_grpc.client.tally import Tally
from apiflux_grpc.core.units import SECOND, counted, spoken
from apiflux_grpc.jobs.ending import Ending
from apiflux_grpc.jobs.words import rate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apiflux_grpc.client import ApifluxError
    from apiflux_grpc.jobs.again import Again
    from apiflux_grpc.jobs.console import Console
    from apiflux_grpc.jobs.job import Job
    from apiflux_grpc.jobs.output import Output
    from apiflux_grpc.jobs.selection import Selected
    from apiflux_grpc.v1 import apiflux_pb2 as pb

FAILURES_SHOWN: Final = 10


@dataclass(slots=True)
class _Alike:
    """Calls that failed with the same words; `line` is that of the first."""

    line: int
    calls: int = 1


class Report:
    """Counts results, and tells of them at the end."""

    def __init__(self, job: Job, source_name: str, console: Console, again: Again) -> None:
        self.tally = Tally()
        self._job = job
        self._source_name = source_name
        self._console = console
        self._again = again
        self._failures: dict[str, _Alike] = {}
        self.is_simulated = False  # the upstream

    def add(self, result: pb.CallResult, call: Selected) -> None:
        """Count a result of the input's call."""
        failure = self.tally.add(result)
        self._again.met(result, call.idempotent)
        if not failure:
            return
        what = failure
        if result.HasField("error"):
            what = f"{failure}: {result.error.message}"
            if failure == "INVALID_CALL":
                what = result.error.message.replace(f"calls[{call.index}].", "")
        elif failure in ("KEY_REJECTED", "LIMITED") or failure.endswith("XX"):
            status = result.response.status_code
            # A 200 that the pool calls a failure, and a 403 that is a limit, would look like something else.
            says_it_all = status >= 300 and failure != "LIMITED"
            what = f"HTTP {status}" if says_it_all else f"{failure}: HTTP {status}"
        if (alike := self._failures.get(what[:300])) is not None:
            alike.calls += 1
        elif len(self._failures) < FAILURES_SHOWN:
            self._failures[what[:300]] = _Alike(call.line)

    def figures(
        self,
        output: Output | None,
        skipped: int,
        bad_lines: int,
        by_key: Mapping[str, int] | None = None,
        *,
        skipped_failed: int = 0,
    ) -> None:
        """The table, and what calls failed of. `skipped` calls had their result before, `skipped_failed` of them a
        failure. `by_key` has the attempts made with each key as the server counts them; without it all of a call are
        counted for the key of its last."""
        tally = self.tally
        by_key = by_key or tally.by_key
        elapsed = tally.elapsed
        rows = [("results", "none: nothing was sent")]
        if tally.total:
            rows = [
                (
                    "results",
                    f"{tally.total:,} in {spoken(round(elapsed * SECOND))}, {rate(tally.total / max(elapsed, 1e-9))}",
                )
            ]
        if self.is_simulated:
            rows.append(("upstream", "the simulator: its answers are made up, and no call left the server"))
        if tally.failed:
            rows.append(("failed", f"{tally.failed.total():,}: {_counts(tally.failed)}"))
        if tally.retries:
            rows.append(("retries", f"{tally.retries:,}"))
        if by_key:
            rows.append(("by key", _counts(by_key)))
        if tally.total:
            waited, took = (spoken(ns // tally.total) for ns in (tally.waiting, tally.in_calls))
            rows.append(("on average", f"a call waited {waited} for its turn and took {took}"))
        if output is not None and skipped:
            rows.append(("earlier", self._earlier(skipped, skipped_failed)))
        if output is not None and (why_not := self._again.why_not):
            rows.append(("in doubt", why_not))
        if bad_lines:
            rows.append(("bad lines", f"{bad_lines:,}"))
        self._console.table(rows, red="failed")
        for what, alike in self._failures.items():
            others = f" (and {alike.calls - 1:,} more alike)" if alike.calls > 1 else ""
            self._console.error(f"{self._source_name}:{alike.line}: {what}{others}")
        if (more := tally.failed.total() - sum(alike.calls for alike in self._failures.values())) > 0:
            self._console.say(f"... and {more:,} more that failed")

    def _earlier(self, skipped: int, failed: int) -> str:
        text = f"{counted(skipped, 'call')} had {'its' if skipped == 1 else 'their'} result"
        if failed:
            text += f", {failed:,} of them a failure" if skipped > 1 else ", a failure"
        if self._again.failed:
            text += f"; --retry-failed sends {self._again.failed:,} again"
        return text

    def explain(self, error: ApifluxError) -> None:
        """Why the server didn't do it, and what helps."""
        for place, what in error.violations:
            self._console.error(f"{place}: {what}")
        if not error.violations:
            self._console.error(str(error))
        if isinstance(error, Unavailable) and self._job.wait is None and not (error.reason or self.tally.total):
            self._console.say(f"is a server running at {self._job.any_server}? --wait SECONDS waits for one")
        if error.retry_delay is not None:
            self._console.say(f"try again in {error.retry_delay:.0f} s")

    def unwritable(self, error: OSError) -> None:
        """Where results, or notes of what is handed over, can't be written."""
        where = error.filename or self._job.output or "standard output"
        self._console.error(f"can't write to {where}: {error.strerror}")

    def how_far(
        self, ending: Ending, output: Output | None, before: int, total: int, *, is_known: bool, stopped_by_line: bool
    ) -> None:
        """How much of the whole job is done after a run that was cut short. `before`: results of earlier runs. Unless
        `is_known`, more than `total` calls may be on their way through a pipe."""
        is_full = ending is Ending.UNWRITABLE
        if is_full and output is None:
            self._console.say("the last line may be incomplete")
            return
        begin = _BEGIN.get(ending, "")
        if not begin and stopped_by_line:
            begin = "stopped at a bad line (--skip-bad-lines skips such lines): "
        there = before + (self.tally.total if output is None else output.written)
        if not total:
            if not is_full:
                self._console.say(f"{begin}nothing was sent")
        elif there < total or is_known:
            self._console.say(f"{begin}{there:,} of {total:,} results were written")
        else:
            self._console.say(f"{begin}{counted(there, 'result')} {'was' if there == 1 else 'were'} written")

    def how_to_continue(self, ending: Ending, output: Output | None) -> None:
        """What the same command does next; nothing is said if it would do nothing."""
        is_full = ending is Ending.UNWRITABLE
        if output is not None and (is_full or not output.is_fresh):
            room = "once there is room, " if is_full else ""
            self._console.say(f"{room}run the same command with --output {self._job.output} again to continue")
        elif output is None and (is_full or ending in _BEGIN):
            self._console.say("with --output, the same command run again would continue from here")
        if ending is Ending.FAILING:
            again = "--retry-failed also sends again what failed; " if output is not None else ""
            self._console.say(f"{again}--max-failures none goes on whatever fails")


_BEGIN: Final[Mapping[Ending, str]] = {
    Ending.INTERRUPTED: "interrupted: ",
    Ending.TIMED_OUT: "--timeout has passed: ",
    Ending.FAILING: "ended because calls fail: ",
    Ending.COST_REACHED: "--max-cost is reached: ",
    Ending.LIMIT_REACHED: "--limit is reached: ",
}


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
