"""Whether a call comes back to the queue after an attempt, and when.

Rule: what was refused was not executed, so it comes back whatever its method, and costs no attempt: limited, to another
key first, or when its own may be used again; rejected, to a key that it has not tried, of at most MOST_REJECTED.
All else comes back by the retry policy (retry.py). A wait that the upstream told the call itself is kept, however long
the policy's are.

The waits of a call, since it was first limited or told to wait, add up to the pool's `longest_wait` at most. A call
that would have to wait longer, or that was told to wait beyond its RPC's deadline, ends at once, and its result says
until when.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from apiflux_grpc.core.batch import Again
from apiflux_grpc.core.outcome import Reason
from apiflux_grpc.core.retry import again_in
from apiflux_grpc.core.rules import Means

if TYPE_CHECKING:
    from datetime import datetime

    from apiflux_grpc.core.permit import Permit
    from apiflux_grpc.core.scheduler import Scheduler
    from apiflux_grpc.core.verdict import Verdict

MOST_REJECTED: Final = 3  # keys that one call may show to its upstream in vain


class Comeback(NamedTuple):
    """The call comes back as `again` at `at` (ns), unless `ends` says, in words, why it waits no longer for a limit.
    None: its attempt was the last, and the outcome is its result."""

    again: Again | None
    at: int = 0
    ends: str = ""


FINAL: Final = Comeback(None)


@dataclass(frozen=True, slots=True)
class Moment:
    """When an attempt ended, by both clocks; `draw`, random in [0, 1), spreads retries."""

    now: int
    wall_now: datetime
    draw: float = 0.0

    def in_words(self, until: int) -> str:
        """An instant as the time of day: `2026-01-01T00:00:07Z`."""
        at = self.wall_now + timedelta(microseconds=-(-(until - self.now) // 1000))
        return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def comeback(permit: Permit, verdict: Verdict, told: int, scheduler: Scheduler, moment: Moment) -> Comeback:
    """What becomes of a call whose attempt failed; `told` (ns): so long the call itself was asked to wait."""
    policy, now = permit.batch.policy, moment.now
    match verdict.means:
        case Means.LIMITED:
            if Reason.LIMITED not in policy.reasons:
                return FINAL
            return _limited(permit, scheduler, moment)
        case Means.KEY_REJECTED:
            again = next_of(permit, now)
            again.tried |= 1 << permit.key.index
            again.avoid |= again.tried
            if Reason.KEY_REJECTED not in policy.reasons or again.tried.bit_count() >= MOST_REJECTED:
                return FINAL
            seats = scheduler.keyring.seats_but(again.tried, permit.path_class)
            return Comeback(again, now) if any(seat.takes(permit.cost, now) for seat in seats) else FINAL
    reason = verdict.retried_as
    if reason is None:
        return FINAL
    again = next_of(permit, now)
    again.charged += 1
    idempotent = verdict.not_executed or permit.batch.call_at(permit.place).idempotent
    wait = again_in(policy, reason, again.charged, idempotent, moment.draw)
    if wait is None:
        return FINAL
    if told:
        again.waited = max(0, again.waited)
        if too_late(permit, again, now + told, scheduler.pool.longest_wait, told=True):
            return FINAL
    return Comeback(again, now + max(wait, told))


def _limited(permit: Permit, scheduler: Scheduler, moment: Moment) -> Comeback:
    now, key, longest = moment.now, permit.key, scheduler.pool.longest_wait
    again = next_of(permit, now)
    again.waited = max(0, again.waited)
    again.avoid |= 1 << key.index
    blocks = [one.block for one in permit.owners if one.block is not None]
    if not blocks:  # it was on its way for long, and its key is open again
        return Comeback(again, now)
    block = max(blocks, key=lambda one: one.until)
    if not block.is_guess_repeated and not too_late(permit, again, block.until, longest, told=block.told):
        return Comeback(again, now)
    others = scheduler.keyring.others_at(again.tried | 1 << key.index, permit.path_class, now)
    if others > now:
        # No other key can be used now: it waits for the first of all.
        until = min(block.until, others)
        late = too_late(permit, again, until, longest, told=block.told)
        if late:
            return Comeback(again, ends=f"limited until {moment.in_words(until)}, {late}")
        if block.is_guess_repeated:
            # It was the probe, and may be the one call that is always refused: with this key others go first.
            return Comeback(again, min(until + 1, others))
    return Comeback(again, now)


def too_late(permit: Permit, again: Again, until: int, longest: int, *, told: bool) -> str:
    """Why the call can't wait until then, in words; "": it can."""
    batch = permit.batch
    if again.waited + until - again.since > longest:
        return "longer than the pool's longest_wait"
    if told and batch.deadline is not None and until > batch.admitted_at + batch.deadline:
        return "after the request's deadline"
    return ""


def expires_at(again: Again, longest: int) -> int:
    """When the call has waited for `longest` in all."""
    return again.since + longest - again.waited


def next_of(permit: Permit, now: int, number: int = 1) -> Again:
    """The call comes back: what it has behind it, and so many sends more."""
    before = permit.again
    if before is None:
        return Again(
            permit.place,
            permit.number + number,
            permit.queue_time,
            since=now,
            label=permit.key.key.label,
            path_class=permit.path_class,
        )
    waited = before.waited if before.waited < 0 else before.waited + permit.taken_at - before.since
    return Again(
        permit.place,
        permit.number + number,
        permit.queue_time,
        before.tried,
        before.tried,
        before.charged,
        waited,
        now,
        permit.key.key.label,
        permit.path_class,
    )
