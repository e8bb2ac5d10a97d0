"""Whether an attempt is final, and if not, when the call may be tried again.

Rule: a call that isn't idempotent is tried again only when it certainly was not executed: NOT_SENT, or refused by an
upstream that says so. Waits are drawn evenly from zero to a bound that doubles ("full jitter", Brooker, "Exponential
Backoff and Jitter", AWS Architecture Blog 2015); the caller hands in the random number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.outcome import Reason

if TYPE_CHECKING:
    from apiflux_grpc.core.model import RetryPolicy

NOT_EXECUTED: Final = frozenset({Reason.NOT_SENT, Reason.LIMITED, Reason.KEY_REJECTED})


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
