"""What happened in the run of a plan: sends, results, and what kept keys from being used.

Rule: plain sequences in the order of time, in ns since the first batch; nothing is worked out here. What held calls
back is found in held.py and binding.py. A plan may have millions of calls, so a send is a few numbers, and results are
kept only for who asks.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from apiflux_grpc.core.events import KeyBlocked, KeyRejected, LimitCut, UpstreamFailing
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.events import Event
    from apiflux_grpc.core.model import Key
    from apiflux_grpc.core.outcome import Reason, Result
    from apiflux_grpc.plan.work import Arrival


AFTER_429: Final = "429s"
AFTER_401: Final = "rejected"
AFTER_5XX: Final = "failing upstream"


@dataclass(slots=True)
class Served:
    """One batch as it went; instants in ns."""

    size: int
    at: int
    first: int = 0
    last: int = 0
    done: int = 0


class Sends:
    """The sends of one key, in the order of their permits: when each was sent and answered (ns), its cost, its path
    class."""

    __slots__ = ("answered", "classes", "costs", "taken")

    def __init__(self) -> None:
        self.taken = array("q")
        self.answered = array("q")
        self.costs = array("q")
        self.classes = bytearray()

    def add(self, now: int, answer: int, cost: int, path_class: int) -> None:
        self.taken.append(now)
        self.answered.append(answer)
        self.costs.append(cost)
        self.classes.append(path_class)

    def __len__(self) -> int:
        return len(self.taken)


class Closed(NamedTuple):
    """A key wasn't used from `since` until `until`, because of what the upstream had answered: `why`."""

    since: int
    until: int
    why: str


class State(NamedTuple):
    """From `since` on: whether calls wait for a key, or only for the time of their next attempt (`pauses`), and whether
    every connection is in use (`full`)."""

    since: int = 0
    waits: bool = False
    pauses: bool = False
    full: bool = False


class Run:
    """The record of a plan's run.

    `sends` are those of each key; `closed` when each key couldn't be used; `failed` how many calls ended without
    success, by reason; `cuts` how often a 429 made a limit smaller for a while. `ended` is the instant of the last
    result, the makespan. `results` are kept with `keep` alone.
    """

    def __init__(self, keys: Sequence[Key], arrivals: Sequence[Arrival], *, keep: bool = False) -> None:
        self.sends = [Sends() for _ in keys]
        self.closed: list[list[Closed]] = [[] for _ in keys]
        self.batches = [Served(arrival.size, arrival.at) for arrival in arrivals]
        self.states = [State()]
        self.failed: Counter[Reason] = Counter()
        self.cuts = 0
        self.ended = 0
        self.done = 0
        self._first_call = [0, *accumulate(arrival.size for arrival in arrivals)]
        self._results: dict[int, Result] | None = {} if keep else None
        self._place = {key.label: place for place, key in enumerate(keys)}

    def call_number(self, batch: int, index: int) -> int:
        """The place of a call among those of all batches."""
        return self._first_call[batch] + index

    @property
    def is_over(self) -> bool:
        """Whether every call has its result."""
        return self.done == self._first_call[-1]

    @property
    def results(self) -> list[Result]:
        """Of every call, batch after batch."""
        assert self._results is not None
        return [self._results[call] for call in range(self._first_call[-1])]

    def ended_one(self, batch: int, result: Result, now: int) -> None:
        """A call has its result."""
        if self._results is not None:
            self._results[self.call_number(batch, result.index)] = result
        if result.failure is not None:
            self.failed[result.failure] += 1
        self.done += 1
        served = self.batches[batch]
        if not served.done:
            served.first = now
        served.last = self.ended = now
        served.done += 1

    def note_event(self, event: Event, now: int) -> None:
        """What observers are told."""
        match event:
            case KeyBlocked(label, wait):
                self.closed[self._place[label]].append(Closed(now, now + wait, AFTER_429))
            case KeyRejected(label, cool_down):
                self.closed[self._place[label]].append(Closed(now, now + cool_down, AFTER_401))
            case UpstreamFailing(cool_down):
                for spans in self.closed:
                    spans.append(Closed(now, now + cool_down, AFTER_5XX))
            case LimitCut():
                self.cuts += 1

    def note_state(self, state: State) -> None:
        """Kept only if it differs from the one before."""
        if state[1:] != self.states[-1][1:]:
            self.states.append(state)

    def __repr__(self) -> str:
        return f"<Run of {len(self.batches)} batches over {len(self.sends)} keys, ended at {self.ended / SECOND:g} s>"
