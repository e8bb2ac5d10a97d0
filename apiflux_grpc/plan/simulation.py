"""The run of a plan: the service's own Scheduler on virtual time.

Rule: the scheduler decides, with its windows, pacers and fair queue; only time is virtual. This module is its pump: a
heap of answers, the batches by their arrival, and the scheduler's wake-ups in whole milliseconds, as the service's
timers are.

Modelled: a call goes out with its permit, arrives at once, and is answered after a latency drawn evenly from the
range; its slot is charged with the arrival margin as in the service. All batches are of one caller and equal weight,
every call costs 1, the budgets start unspent, and readers take results at once. The draws are the same each time, so
a plan is repeatable.

Not modelled: a network whose delay differs on the way out, connecting, CPU time, failures and so retries, 429s,
limits that others use up too, and slow readers.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.model import MILLISECOND, SECOND
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.core.units import LONGEST
from apiflux_grpc.testing import FakePacer

if TYPE_CHECKING:
    from apiflux_grpc.core.permit import Permit
    from apiflux_grpc.plan.question import Question


HORIZON: Final = 100 * LONGEST  # a plan that takes longer is refused


@dataclass(slots=True)
class Served:
    """One batch as it went; instants in ns."""

    size: int
    at: int
    first: int = 0
    last: int = 0
    done: int = 0


class Run:
    """What happened, in ns since the first batch.

    `taken` and `answered` have the calls of each key, in the order of their permits. `states` are (since, calls wait,
    every connection is in use). `ended` is the instant of the last result, the makespan.
    """

    def __init__(self, question: Question) -> None:
        keys = question.pool.keys
        self.taken: list[list[int]] = [[] for _ in keys]
        self.answered: list[list[int]] = [[] for _ in keys]
        self.batches = [Served(arrival.size, arrival.at) for arrival in question.arrivals]
        self.states: list[tuple[int, bool, bool]] = [(0, False, False)]
        self.ended = 0

    def __repr__(self) -> str:
        return f"<Run of {len(self.batches)} batches over {len(self.taken)} keys, ended at {self.ended / SECOND:g} s>"


def simulate(question: Question, seed: int = 0) -> Run:
    """The scheduler at work on virtual time. Raises ValueError if it would take more than a hundred years."""
    pool = question.pool
    run = Run(question)
    scheduler = Scheduler(pool, FakePacer, 0)
    draw = random.Random(seed).random
    least, spread = question.latency[0], question.latency[1] - question.latency[0]
    ending: list[tuple[int, int, Permit]] = []  # a heap of (answer, number, permit)
    coming = deque(sorted(enumerate(question.arrivals), key=lambda pair: pair[1].at))
    number = now = 0
    state = (False, False)
    while True:
        while coming and coming[0][1].at <= now:
            place, arrival = coming.popleft()
            scheduler.add(Batch(place, "plan", arrival.size, admitted_at=now))
        while ending and ending[0][0] <= now:
            permit = heappop(ending)[2]
            scheduler.settle(permit, now, now)
            _deliver(run.batches[permit.batch.id], permit.batch, scheduler, now)
        if scheduler.waiting:
            for permit in scheduler.assign(now)[0]:
                scheduler.sent(permit, now)
                answer = now + least + int(spread * draw())
                number += 1
                heappush(ending, (answer, number, permit))
                run.taken[permit.key.index].append(now)
                run.answered[permit.key.index].append(answer)
        waits = scheduler.waiting > 0
        if state != (waits, full := scheduler.in_flight >= pool.max_connections):
            state = (waits, full)
            run.states.append((now, waits, full))
        following = [ending[0][0]] if ending else []
        if coming:
            following.append(coming[0][1].at)
        if waits and (wake_at := scheduler.wake_at) is not None:
            following.append(now + max(1, -(-(wake_at - now) // MILLISECOND)) * MILLISECOND)
        if not following:
            break
        now = max(now, min(following))
        if now > HORIZON:
            raise ValueError("this plan would take more than a hundred years; plan fewer calls or more keys")
    if scheduler.waiting:
        raise ValueError("a call waits that no key can ever pay for")
    run.ended = now
    return run


def _deliver(served: Served, batch: Batch, scheduler: Scheduler, now: int) -> None:
    if not served.done:
        served.first = now
    served.last = now
    served.done += 1
    if served.done == served.size:
        scheduler.over(batch)
