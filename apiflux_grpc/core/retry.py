"""Whether an attempt is final, and if not, when the call may be tried again.

Rule: a call that isn't idempotent is tried again only when it certainly was not executed: NOT_SENT, or 429, 401 or
403, with which an upstream says that it refused. Waits are drawn evenly from zero to a bound that doubles ("full
jitter", Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog 2015); the caller hands in the random number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.outcome import Answer, NotSent, Reason

if TYPE_CHECKING:
    from apiflux_grpc.core.model import Pool, RetryPolicy
    from apiflux_grpc.core.outcome import Outcome

NOT_EXECUTED: Final = frozenset({Reason.NOT_SENT, Reason.HTTP_429, Reason.KEY_REJECTED})
KEY_AT_FAULT: Final = frozenset({Reason.HTTP_429, Reason.KEY_REJECTED})  # another key is the better choice
_BY_CLASS: Final = (Reason.HTTP_1XX, Reason.HTTP_2XX, Reason.HTTP_3XX, Reason.HTTP_4XX, Reason.HTTP_5XX)


def failure_of(outcome: Outcome, pool: Pool) -> Reason | None:
    """Why the attempt failed; None: it succeeded."""
    if isinstance(outcome, Answer):
        if outcome.fault is not None:
            return outcome.fault
        if pool.is_success(outcome.status):
            return None
        if outcome.status == 429:
            return Reason.HTTP_429
        if outcome.status in (401, 403):
            return Reason.KEY_REJECTED
        return _BY_CLASS[min(max(outcome.status // 100, 1), 5) - 1]
    if isinstance(outcome, NotSent):
        return Reason.NOT_SENT
    return outcome.reason


def backoff(policy: RetryPolicy, number: int, draw: float) -> int:
    """How long (ns) after attempt `number` the next one waits; `draw` is random in [0, 1)."""
    bound = min(policy.max_backoff, policy.initial_backoff << min(number - 1, 40))
    return int(bound * draw)


def again_in(policy: RetryPolicy, reason: Reason, number: int, idempotent: bool, draw: float) -> int | None:
    """How long (ns) until the call may be tried again after attempt `number` failed; None: the failure is final."""
    if number >= policy.max_attempts or reason not in policy.reasons:
        return None
    if not idempotent and reason not in NOT_EXECUTED:
        return None
    return backoff(policy, number, draw)
