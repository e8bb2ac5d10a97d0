"""What was read and stamped, and waits to be parsed.

The rule: reading comes before answering. To speak an API takes the judge 60 µs a call, so of 500 calls that came at
once the last would be stamped 30 ms late if each were answered before the next is read; and a late stamp is a violation
that nobody committed. So chunks are only stamped when they are read, and parsed a few at a time, between which the loop
reads what has come meanwhile.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

Step = Callable[[], None]
AT_ONCE: Final = 8  # chunks, before the loop reads again


class Backlog:
    """Steps in their order; `soon` has a callback made in the next turn of the loop."""

    def __init__(self, soon: Callable[[Step], object]) -> None:
        self._soon = soon
        self._steps: deque[Step] = deque()
        self._due = False

    def add(self, step: Step) -> None:
        self._steps.append(step)
        self._wake()

    def finish(self) -> None:
        """Take all steps now."""
        while self._steps:
            self._steps.popleft()()

    def _wake(self) -> None:
        if self._steps and not self._due:
            self._due = True
            self._soon(self._some)

    def _some(self) -> None:
        self._due = False
        try:
            for _ in range(min(AT_ONCE, len(self._steps))):
                self._steps.popleft()()
        finally:  # a step that fails must not hold up the others
            self._wake()
