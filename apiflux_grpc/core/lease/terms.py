"""The spans that replicas and the store reckon with.

Rule: each clock may run 500 ppm fast or slow, so two may differ by 1 in 1000. What must have ended is waited for 1/1000
longer than it lasts; what must not have ended yet is taken to be 1/1000 over sooner.

What the store reckons from whole microseconds is whole microseconds again. Redis has no numbers but doubles: they hold
every microsecond since 1970 exactly, and no longer every nanosecond.
"""

from __future__ import annotations

from typing import Final

from apiflux_grpc.core.units import MICROSECOND, MILLISECOND, SECOND

DRIFT: Final = 1000
OFF: Final = 50 * MILLISECOND  # a request may be so long on its way; a step of the store's clock is longer
BEAT: Final = SECOND  # how often replicas are heard at least, while anything of theirs may count
PROBATION: Final = 2 * SECOND  # of a new incarnation: by then all others have been heard
LAPSE: Final = 10 * SECOND  # an incarnation that wasn't heard for so long has left
FAILOVER_LAG: Final = 15 * SECOND  # the most that a store forgets of its last moments when another takes over
LONG: Final = 600 * SECOND  # windows above this open by what the replicas remember, if all of them are there
LEAST_LIFE: Final = 50 * MILLISECOND  # of a lease; a quarter of it must do for a round trip
LONGEST_LIFE: Final = 60 * SECOND  # what a process had that died is spent for that much longer
CLAIM: Final = 3 * BEAT  # how long what one claims for itself is kept for it: it is heard each BEAT meanwhile
SLOT_LIFE: Final = SECOND  # for so long what is allotted of the calls in flight may be used, unless it is renewed
SLOT_PACE: Final = 25 * MILLISECOND  # and so often it is asked for at most
TURN: Final = 5 * MILLISECOND  # how long a turn is kept at least


def whole(span: int) -> int:
    """The whole microseconds of it."""
    return span - span % MICROSECOND


def at_most(span: int) -> int:
    """After so much of any clock, `span` of every other has passed for certain."""
    return span + whole(span // DRIFT) + MICROSECOND


def at_least(span: int) -> int:
    """By when so much of any clock has passed, `span` of no other has passed for certain."""
    return max(0, span - span // DRIFT - 1)


def lag_of(shortest: int) -> int:
    """After how long what has landed is told at the latest, and who waits asks again."""
    return min(BEAT, whole(shortest // 8))


def life_of(shortest: int) -> int:
    """How long a lease lives, unless configured: the same for all, since it follows from the shortest window."""
    return min(max(shortest // 100, LEAST_LIFE), 5 * SECOND)
