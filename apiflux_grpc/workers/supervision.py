"""What becomes of the workers: who is started, killed and waited for, and with which exit code all of it ends.

Rules:
- Until all workers serve for the first time, one that ends is the end of all: what keeps a server from starting is told
  once, as without workers.
- After that a worker that ended is started again, later each time that it didn't live long. When none works and each of
  them has failed several times in a row, trying again is left to whoever started us.
- A worker that is silent for too long is killed. It may be stopped inside a transaction of the store: then all wait.
- The first signal drains, a second one cuts.
- Time in which the supervisor itself stood still doesn't count: nobody could be heard then.

Pure: `now` is handed in, in ns of any clock, and what is to be done is returned. Workers are numbered from 1, and a
worker that is started again keeps its number.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from apiflux_grpc.workers.words import Fault

CUT_SHORT: Final = 4  # exit code
TRIES: Final = 5  # starts in a row that failed, of every worker, before all is given up
# `timeout` and some process managers signal a process and its group: that is one wish, heard twice.
ONE_WISH: Final = SECOND


@dataclass(frozen=True, slots=True)
class Bounds:
    """Spans in ns: the longest `silence` of a worker that serves, `start` of one that doesn't yet, `drain` of one that
    was told to end."""

    silence: int = 10 * SECOND
    start: int = 60 * SECOND
    drain: int = 30 * SECOND
    first_wait: int = 100 * MILLISECOND  # before a worker is started again
    longest_wait: int = 30 * SECOND
    lived: int = 60 * SECOND  # one that served so long begins with the first wait again


@dataclass(frozen=True, slots=True)
class Start:
    number: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """SIGTERM: drain."""

    number: int


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL."""

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class Announce:
    """All serve, for the first time."""


Action = Start | Terminate | Kill | Announce


class _Phase(Enum):
    WAITS = auto()  # to be started
    STARTS = auto()
    SERVES = auto()
    DRAINS = auto()  # told to
    KILLED = auto()
    GONE = auto()  # for good


_RUN: Final = frozenset({_Phase.STARTS, _Phase.SERVES, _Phase.DRAINS, _Phase.KILLED})


@dataclass(slots=True)
class _Worker:
    number: int
    phase: _Phase = _Phase.WAITS
    until: int = 0  # of this phase
    serves_since: int | None = None
    failures: int = 0  # lives in a row that were short
    fault: Fault | None = None  # its last word


@dataclass(slots=True)
class Supervision:
    """`wake_at` is when to call `decide` again at the latest. `exit_code` is there once all workers are gone; `why`
    says in a line for people why all was given up."""

    count: int
    bounds: Bounds
    wake_at: int | None = None
    exit_code: int | None = None
    why: str = ""
    _workers: dict[int, _Worker] = field(init=False)
    _todo: list[Action] = field(default_factory=list)
    _now: int = 0  # without the pauses
    _paused: int = 0
    _announced: bool = False
    _stopping_since: int | None = None
    _code: int = 0

    def __post_init__(self) -> None:
        self._workers = {number: _Worker(number) for number in range(1, self.count + 1)}

    @property
    def is_stopping(self) -> bool:
        """Workers are meant to end."""
        return self._stopping_since is not None

    # -- what happens -------------------------------------------------------------------------

    def at(self, now: int) -> None:
        """It is `now`; said before what was heard since."""
        if self.wake_at is not None and now - self.wake_at > self._tick:
            self._paused += now - self.wake_at
        self._now = now - self._paused

    def serves(self, number: int) -> None:
        """This worker serves."""
        worker = self._workers[number]
        if worker.phase is _Phase.STARTS:
            worker.serves_since = self._now
            self._turn(worker, _Phase.SERVES, self.bounds.silence)

    def beat(self, number: int) -> None:
        """This worker works."""
        worker = self._workers[number]
        if worker.phase is _Phase.SERVES:
            self._turn(worker, _Phase.SERVES, self.bounds.silence)

    def failed(self, number: int, fault: Fault) -> None:
        """This worker says why it can't start; its end follows."""
        self._workers[number].fault = fault

    def ended(self, number: int, code: int) -> None:
        """The process of this worker is gone. `code` is as subprocess has it: negative if a signal killed it."""
        worker = self._workers[number]
        worker.phase = _Phase.GONE
        if self._stopping_since is not None:
            # SIGTERM may have met one that didn't listen to it yet.
            if code not in (0, -signal.SIGTERM):
                self._code = self._code or 1
            return
        fault, worker.fault = worker.fault, None
        why = fault.text if fault else f"worker {number} {how_it_ended(code)}"
        if not self._announced:
            self._give_up(fault.code if fault else 1, why if fault else f"{why} before all served")
            return
        since, worker.serves_since = worker.serves_since, None
        lived = since is not None and self._now - since >= self.bounds.lived
        worker.failures = 1 if lived else worker.failures + 1
        wait = self.bounds.first_wait << min(worker.failures - 1, 30)
        self._turn(worker, _Phase.WAITS, min(wait, self.bounds.longest_wait))
        if all(one.phase is _Phase.WAITS and one.failures >= TRIES for one in self._workers.values()):
            self._give_up(1, f"no worker can start any more: {why}")

    def signalled(self) -> None:
        """Somebody wants all of this to end."""
        if self._stopping_since is None:
            self._stop()
        elif self._now - self._stopping_since >= ONE_WISH:
            self._code = self._code or CUT_SHORT
            for worker in self._workers.values():
                if worker.phase is _Phase.DRAINS:
                    self._kill(worker, "cut by a second signal")

    # -- what to do ---------------------------------------------------------------------------

    def decide(self) -> list[Action]:
        """What is to be done now."""
        workers = self._workers.values()
        for worker in workers:
            if worker.until <= self._now:
                self._due(worker)
        if not self._announced and all(worker.phase is _Phase.SERVES for worker in workers):
            self._announced = True
            self._todo.append(Announce())
        if self._stopping_since is not None and not any(worker.phase in _RUN for worker in workers):
            self.exit_code = self._code
        ends = [worker.until for worker in workers if worker.phase not in (_Phase.KILLED, _Phase.GONE)]
        self.wake_at = self._paused + min([self._now + self._tick, *ends])
        todo, self._todo = self._todo, []
        return todo

    def _due(self, worker: _Worker) -> None:
        bounds = self.bounds
        match worker.phase:
            case _Phase.WAITS:
                self._todo.append(Start(worker.number))
                self._turn(worker, _Phase.STARTS, bounds.start)
            case _Phase.STARTS:
                self._kill(worker, f"did not serve within {_seconds(bounds.start)}")
            case _Phase.SERVES:
                self._kill(worker, f"did not answer for {_seconds(bounds.silence)}")
            case _Phase.DRAINS:
                self._kill(worker, f"did not end within {_seconds(bounds.drain)}")
            case _Phase.KILLED | _Phase.GONE:
                pass

    def _stop(self) -> None:
        self._stopping_since = self._now
        for worker in self._workers.values():
            if worker.phase is _Phase.WAITS:
                worker.phase = _Phase.GONE
            elif worker.phase in (_Phase.STARTS, _Phase.SERVES):
                self._todo.append(Terminate(worker.number))
                self._turn(worker, _Phase.DRAINS, self.bounds.drain)

    def _give_up(self, code: int, why: str) -> None:
        self._code, self.why = code, why
        self._stop()

    def _kill(self, worker: _Worker, why: str) -> None:
        self._todo.append(Kill(worker.number, why))
        worker.phase = _Phase.KILLED

    def _turn(self, worker: _Worker, phase: _Phase, span: int) -> None:
        worker.phase, worker.until = phase, self._now + span

    @property
    def _tick(self) -> int:
        """How often it looks at all: so a pause of its own is seen before it matters."""
        return self.bounds.silence // 10


def how_it_ended(code: int) -> str:
    """`was killed by SIGKILL`, `ended with exit code 1`."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a signal without a name
        return f"was killed by signal {-code}"


def _seconds(span: int) -> str:
    return f"{span / SECOND:g} s"
