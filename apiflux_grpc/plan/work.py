"""What is to be done in a plan: batches of calls that are alike, or one batch with the calls of a file.

Rule: what can't be done is refused before anything runs, and the error names the option.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.checks import Checks
from apiflux_grpc.core.same import Same
from apiflux_grpc.core.units import parse_duration
from apiflux_grpc.plan.load import ALIKE, Load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.core.model import Pool


MOST_CALLS: Final = 10_000_000  # that an option may ask for: minutes of real time, however long the makespan is


@dataclass(frozen=True, slots=True)
class Arrival:
    """A batch of `size` calls that arrives at `at` (ns)."""

    size: int
    at: int = 0
    load: Load = ALIKE


@dataclass(frozen=True, slots=True)
class Work:
    """The options that say what is to be done; None and empty: not given. Raises ValueError for those that conflict.

    `calls_from` reads the calls of a file, for the pool that is planned.
    """

    calls: int | None = None
    batches: int | None = None
    batch: Sequence[str] = ()
    cost: int | None = None
    calls_from: Callable[[Pool], Load] | None = None

    def __post_init__(self) -> None:
        plain = self.calls is not None or self.batches is not None
        if self.calls_from is not None:
            if plain or self.batch:
                raise ValueError("--calls-from conflicts with --calls, --batches and --batch; set one or the other")
            if self.cost is not None:
                raise ValueError("--cost conflicts with --calls-from, whose calls have their own; set one of them")
        elif self.batch and plain:
            raise ValueError("--batch conflicts with --calls and --batches; set one or the other")

    @property
    def is_alike(self) -> bool:
        """Whether all calls are alike, and have no path."""
        return self.calls_from is None

    def arrivals(self, pool: Pool) -> tuple[Arrival, ...]:
        """The batches. Raises ValueError, and what `calls_from` raises."""
        if self.calls_from is not None:
            load = self.calls_from(pool)
            return (Arrival(len(load), load=load),)
        sizes = self._sizes()
        if self.cost is None:
            return sizes
        for fault in Checks(pool).estimate(1, self.cost):
            raise ValueError(f"--cost {fault.text}")
        return tuple(Arrival(size.size, size.at, Load(Same(self.cost, size.size))) for size in sizes)

    def _sizes(self) -> tuple[Arrival, ...]:
        if self.batch:
            arrivals = sorted(map(parse_batch, self.batch), key=lambda arrival: arrival.at)
            _check_number(sum(arrival.size for arrival in arrivals))
            return tuple(Arrival(arrival.size, arrival.at - arrivals[0].at) for arrival in arrivals)
        if self.calls is None:
            raise ValueError("set --calls N, how many calls a batch has, --batch SIZE@WHEN, or --calls-from FILE")
        count = 1 if self.batches is None else self.batches
        if self.calls < 1 or count < 1:
            raise ValueError("--calls and --batches must be at least 1")
        _check_number(self.calls * count)  # before so many batches are made
        return (Arrival(self.calls),) * count


def _check_number(calls: int) -> None:
    if calls > MOST_CALLS:
        raise ValueError(
            f"{calls} calls are too many for a plan, which takes at most {MOST_CALLS}; plan a part of them"
        )


def parse_batch(text: str) -> Arrival:
    """`2000@0s`, `10@5s` or `10`: so many calls, arriving then. Raises ValueError for any other form."""
    size, at_sign, when = (part.strip() for part in text.partition("@"))
    try:
        arrival = Arrival(int(size), parse_duration(when) if at_sign and when != "0" else 0)
    except ValueError as error:
        raise ValueError(f"{text!r} must be SIZE@WHEN, such as 2000@0s or 10@5s ({error})") from None
    if arrival.size < 1:
        raise ValueError(f"{text!r}: a batch needs at least one call")
    return arrival
