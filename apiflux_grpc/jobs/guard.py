"""When a job ends by itself because its calls fail, so that a mistake that is in every line costs few calls.

Rules:
- With `most` it ends when more results failed. Without, it ends if its first SAMPLE results all failed alike: for the
  same reason, with the same status. Until one of them clears the others, no more than SAMPLE calls are handed over, for
  a server with a fast upstream makes hundreds in the time in which it tells of fifty.
- What was refused for a limit, or only waited, says nothing of the calls: it isn't in that sample, as no success and as
  no failure, and makes room for one more.
- A call for which no key could be used failed as the others did: once the first were rejected, or the upstream was not
  there, no more are tried, and all that follow end so.
- Only calls that this run sent are counted. What an earlier run left in doubt has its result first, as UNKNOWN, and
  would end the job before anything was sent.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from apiflux_grpc.client.tally import failure_of

if TYPE_CHECKING:
    from apiflux_grpc.v1 import apiflux_pb2 as pb

SAMPLE: Final = 50  # results
NO_END: Final = math.inf  # as `most`: whatever comes
_NO_KEY: Final = "NO_USABLE_KEY"
_OF_WAITING: Final = frozenset({"LIMITED", "DRAINING", "STOPPED"})


class Guard:
    """Counts results, in the order in which they come."""

    def __init__(self, most: float | None = None) -> None:
        self.why = ""  # the job is to end; "": not yet
        self.is_watching = most != NO_END  # else results needn't be told
        self.allowed = float(SAMPLE) if most is None else math.inf  # calls that may be handed over so far
        self._most = most
        self._results = 0
        self._failed = 0
        self._alike = ""  # how the first of the sample failed

    def add(self, result: pb.CallResult) -> None:
        """Count the result of a call that this run sent."""
        failure = failure_of(result)
        if self._most is not None:
            self._failed += bool(failure)
            if self._failed > self._most and not self.why:
                self.why = f"more than {self._most:g} calls failed (--max-failures)"
            return
        if failure in _OF_WAITING:
            self.allowed += 1
            return
        self._results += 1
        how = _how(failure, result)
        if failure != _NO_KEY:
            self._alike = self._alike or how
        if not failure or how not in (self._alike, _NO_KEY):
            self.is_watching = False
            self.allowed = math.inf
        elif self._results == SAMPLE:
            self.why = f"the first {SAMPLE} results all failed alike ({self._alike or _NO_KEY})"
            self.is_watching = False


def _how(failure: str, result: pb.CallResult) -> str:
    status = result.response.status_code
    return f"{failure}: HTTP {status}" if status else failure
