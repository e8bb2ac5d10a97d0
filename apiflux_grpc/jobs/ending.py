"""How a run of `apiflux process` ends, and the exit code of each ending.

Rule: this table is the only place that turns an ending into an exit code. What the codes mean for all commands stands
in cli/app.py.
"""

from __future__ import annotations

from enum import Enum


class Ending(Enum):
    """How a run ended; `code` is the exit code."""

    COMPLETE = "every call has a result, and none of them is a failure", 0
    REHEARSED = "it was a dry run", 0
    LIMIT_REACHED = "as many calls as --limit has got their results, and none of them is a failure", 0
    FAULT = "the server met a fault of its own", 1
    REFUSED = "the job can't be done as it stands", 2
    BAD_CALLS = "a line, or a call for the server, was bad", 2
    OTHER_CALLS = "the output belongs to other calls", 2
    CALLS_FAILED = "every call has a result, and some are failures", 3
    FAILING = "it ended by itself because calls fail", 3
    INTERRUPTED = "a signal came", 4
    TIMED_OUT = "the time was over", 4
    COST_REACHED = "the next call would have cost more than --max-cost leaves", 4
    SERVER_LOST = "the server was not there, or stayed away", 4
    UNWRITABLE = "results could not be written", 4
    READER_LEFT = "nobody reads the results any more", 4

    @property
    def code(self) -> int:
        """The exit code."""
        return self.value[1]
