"""Which calls are sent again, and how many are not, for which reason.

Rules:
- Whether a call may run twice is decided by its line as it is now, else by its method and its pool's rules. What an
  earlier run thought of it doesn't count: lines and rules are corrected after a look at what became of it.
- A call that was handed over and has no result is sent again if it may run twice, or with --retry-unknown.
- With --retry-failed a call whose result is a failure is sent again, if it certainly didn't run, was answered, or may
  run twice. With --retry-unknown it is, if it has no answer (NO_ANSWER), whether it may run twice or not.

Here it is decided and counted; the results that are taken out for it are output.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.client.tally import failure_of, may_have_run
from apiflux_grpc.core.call import may_run_twice
from apiflux_grpc.core.units import counted
from apiflux_grpc.jobs.known import AGAIN, DONE, DOUBT, FAILED, UNANSWERED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apiflux_grpc.core.rules import CallRule
    from apiflux_grpc.jobs.job import Job
    from apiflux_grpc.jobs.rows import Kept
    from apiflux_grpc.v1 import apiflux_pb2 as pb

NO_ANSWER: Final = frozenset({"UNKNOWN", "TIMEOUT", "BODY_CUT"})


def flags_of(kept: Kept) -> int:
    """What a result says of its call, as flags of Known."""
    if not kept.failed:
        return DONE
    if not kept.doubt:
        return DONE | FAILED
    return DONE | FAILED | DOUBT | (UNANSWERED if kept.doubt in NO_ANSWER else 0)


class Again:
    """Of one run. `rules` are those of the pool about what may run twice."""

    def __init__(self, job: Job) -> None:
        self.rules: Sequence[CallRule] = ()
        self.repeated = 0  # calls without a result that are sent again because they may run twice
        self.handed = 0  # calls without a result that are sent again though they must not run twice
        self.doubtful = 0  # calls without a result that are not sent again
        self.failed = 0  # results that --retry-failed would take out
        self.unknown = 0  # calls that may have run and must not run twice, and that --retry-unknown would send again
        self.stuck = 0  # the same, but it wouldn't
        self._job = job

    def may_run_twice(self, call: pb.Call) -> bool:
        """What a call says of itself, else what its pool says."""
        if call.HasField("idempotent"):
            return call.idempotent
        return may_run_twice(call.method or "GET", call.path, self.rules)

    def replaces(self, flags: int, call: pb.Call) -> bool:
        """Whether a call with a result is sent again, so that its result makes room for another."""
        return self.is_candidate(flags) and (not self.needs_its_line(flags) or self.may_run_twice(call))

    def is_candidate(self, flags: int) -> bool:
        """Whether a call with this result is sent again, as far as it is known without its line."""
        if not flags & FAILED:
            return False
        return self._job.retry_failed or bool(self._job.retry_unknown and flags & UNANSWERED)

    def needs_its_line(self, flags: int) -> bool:
        """Whether a candidate is sent again only if it may run twice."""
        return bool(flags & DOUBT) and not (self._job.retry_unknown and flags & UNANSWERED)

    def is_sent(self, flags: int, idempotent: bool) -> bool:
        """Whether a call that was handed over, and has no result, is sent again."""
        # DOUBT: it had a result, which was either taken out for good or waits for what is decided here.
        return idempotent or bool(flags & AGAIN) or (self._job.retry_unknown and not flags & DOUBT)

    def count_handed(self, flags: int, call: pb.Call, has_turn: bool) -> bool:
        """Count a call that was handed over and has no result, and return whether it is sent again. Without `has_turn`
        this run doesn't come to it."""
        idempotent = self.may_run_twice(call)
        is_sent = self.is_sent(flags, idempotent)
        self.handed += is_sent and has_turn and not idempotent
        self.repeated += is_sent and has_turn and idempotent
        self.doubtful += not is_sent
        return is_sent

    def words(self) -> Iterator[str]:
        """What is said of calls without a result that are sent again."""
        if self.repeated:
            yield f"{_unfinished(self.repeated)} sent again: {'it' if self.repeated == 1 else 'they'} may run twice"
        if self.handed:
            yield f"{_unfinished(self.handed)} sent again"

    # -- what isn't sent again ----------------------------------------------------------------

    def leave(self, flags: int, call: pb.Call) -> None:
        """Count a call that keeps its result of an earlier run."""
        if not flags & FAILED:
            return
        if not flags & DOUBT or self.may_run_twice(call):
            self.failed += 1
        else:
            self._leave(bool(flags & UNANSWERED))

    def met(self, result: pb.CallResult, idempotent: bool) -> None:
        """Count a result of this run, if its call can't simply be sent again."""
        if result.HasField("error") and not idempotent and may_have_run(result):
            self._leave(failure_of(result) in NO_ANSWER)

    def _leave(self, is_unanswered: bool) -> None:
        self.unknown += is_unanswered
        self.stuck += not is_unanswered

    @property
    def why_not(self) -> str:
        """What isn't sent again because it may have run, and what helps; "": there is none of it."""
        parts = []
        if self.unknown:
            them = "it" if self.unknown == 1 else "them"
            parts.append(
                f"{counted(self.unknown, 'call')} may have run and must not run twice: "
                f"--retry-unknown sends {them} again"
            )
        if self.stuck:
            parts.append(
                f"{counted(self.stuck, 'call')} may have run before {'it' if self.stuck == 1 else 'they'} failed: "
                "--retry-failed sends those again whose lines say `idempotent`"
            )
        return "; ".join(parts)


def _unfinished(number: int) -> str:
    return f"{counted(number, 'call')} without a result {'is' if number == 1 else 'are'}"
