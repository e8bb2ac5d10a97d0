"""When there is room in a budget for one call more, and what may still be taken without delaying it.

Rule: arithmetic over what the budget holds now; nothing is changed. In the order in which slots come back: the logs,
then the flights, then what isn't sent yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.lease.words import Amounts
from apiflux_grpc.core.model import Counts

if TYPE_CHECKING:
    from apiflux_grpc.core.budget import Budget
    from apiflux_grpc.core.window import Window


def room_at(budget: Budget, cost: int, now: int) -> int:
    """When a call of `cost` fits if nothing else is taken; FAR: never, with these limits."""
    if cost > budget.most_cost:
        return FAR
    # What the upstream told may let nothing go before another call's answer.
    latest = now if budget.told is None else max(now, budget.told.wait(cost, now))
    for counts, windows, pacers in budget.kinds:
        amount = 1 if counts is Counts.CALLS else cost
        for window in windows:
            latest = max(latest, window_room_at(budget, window, counts, amount, now))
        for pacer in pacers:
            latest = max(latest, pacer.ready_at(amount, now))
    return latest


def window_room_at(budget: Budget, window: Window, counts: Counts, amount: int, now: int) -> int:
    """The same for one window of the budget; `amount` is what such a call takes of it."""
    if amount > window.nominal:
        return FAR
    if amount > window.max:  # it was cut: it fits when enough of the cut has come back
        return window.back_at(amount)
    # In the order in which slots come back: the logs, then the flights, then what isn't sent yet.
    missing = amount - window.free
    if missing <= 0:
        return now
    for end, back in window.ends():
        missing -= back
        if missing <= 0:
            return end
    for flight in budget.flights:
        missing -= flight.calls if counts is Counts.CALLS else flight.cost
        if missing <= 0:
            return flight.last + budget.jitter + window.kept
    return now + budget.jitter + window.kept  # not sent yet


def back_by(budget: Budget, at: int) -> Amounts:
    """What the windows have free by then, if nothing more is taken; FAR: nothing is counted."""
    calls, cost = (
        min(
            (max(0, window.free) + sum(amount for end, amount in window.ends() if end <= at) for window in windows),
            default=FAR,
        )
        for windows in (budget.windows, budget.cost_windows)
    )
    return Amounts(calls, cost)


def spare_at(budget: Budget, at: int, cost: int, now: int) -> tuple[int, int]:
    """(calls, cost) that may be taken from now on and still leave room for a call of `cost` at `at`."""
    spare = {Counts.CALLS: FAR, Counts.COST: FAR}
    for counts, windows, pacers in budget.kinds:
        amount = 1 if counts is Counts.CALLS else cost
        for window in windows:
            if now + budget.jitter + window.kept < at:
                continue  # something else is waited for: what goes out now has come back by then
            free = max(window.max, amount) - window.used + sum(back for end, back in window.ends() if end <= at)
            for flight in budget.flights:
                if flight.last + budget.jitter + window.kept <= at:
                    free += flight.calls if counts is Counts.CALLS else flight.cost
            if now + budget.jitter + window.kept <= at:
                free += budget.unsent[0 if counts is Counts.CALLS else 1]
            spare[counts] = min(spare[counts], max(0, free - amount))
        for limit, pacer in budget.shaped(counts, pacers):
            burst, rate = budget.shape_of(limit)
            left = burst - amount - pacer.level(now) + rate * (at - now)  # what is taken now leaks until then
            spare[counts] = min(spare[counts], max(0, int(left)))
    return spare[Counts.CALLS], spare[Counts.COST]
