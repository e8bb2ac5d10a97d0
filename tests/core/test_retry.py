"""Which failures are tried again, and when."""

from __future__ import annotations

from typing import Final

import pytest

from apiflux_grpc.core.model import RetryPolicy
from apiflux_grpc.core.outcome import Reason
from apiflux_grpc.core.retry import again_in, backoff
from apiflux_grpc.core.units import MILLISECOND, SECOND

MAYBE_EXECUTED: Final = [Reason.UNKNOWN, Reason.TIMEOUT, Reason.HTTP_5XX, Reason.BODY_CUT]
NOT_EXECUTED: Final = [Reason.NOT_SENT, Reason.LIMITED, Reason.KEY_REJECTED]
FINAL: Final = sorted(set(Reason) - {*MAYBE_EXECUTED, *NOT_EXECUTED}, key=lambda reason: reason.value)


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_which_attempts_are_made_again(reason: Reason, idempotent: bool, number: int) -> None:
    """At most once unless safe: what may have been executed is repeated only if idempotent, and all end at a bound."""
    wait = again_in(RetryPolicy(max_attempts=3), reason, number, idempotent, draw=0.0)
    allowed = reason in NOT_EXECUTED or (reason in MAYBE_EXECUTED and idempotent)
    assert wait == (0 if allowed and number < 3 else None)


@pytest.mark.parametrize("reason", [*MAYBE_EXECUTED, *NOT_EXECUTED])
def test_a_policy_may_leave_a_reason_out(reason: Reason) -> None:
    """Only the reasons of the policy are tried again, 429 among them."""
    policy = RetryPolicy(reasons=RetryPolicy().reasons - {reason})
    assert again_in(policy, reason, 1, idempotent=True, draw=0.5) is None


@pytest.mark.parametrize("reason", FINAL)
def test_no_policy_repeats_what_may_have_run(reason: Reason) -> None:
    """A policy that names more reasons still doesn't repeat a call that isn't idempotent."""
    policy = RetryPolicy(reasons=frozenset(Reason))
    assert again_in(policy, reason, 1, idempotent=False, draw=0.5) is None
    assert again_in(policy, reason, 1, idempotent=True, draw=0.5) is not None


@pytest.mark.parametrize("most", [0, 1])
def test_one_attempt_is_one_attempt(most: int) -> None:
    """Without a second attempt in the policy nothing is tried again."""
    assert again_in(RetryPolicy(max_attempts=most), Reason.NOT_SENT, 1, idempotent=True, draw=0.0) is None


@pytest.mark.parametrize(
    ("number", "bound"),
    [
        (1, 200 * MILLISECOND),
        (2, 400 * MILLISECOND),
        (3, 800 * MILLISECOND),
        (6, 6400 * MILLISECOND),
        (7, 10 * SECOND),
        (1000, 10 * SECOND),
    ],
)
def test_backoffs_double_up_to_their_bound(number: int, bound: int) -> None:
    """Full jitter: evenly from nothing to a bound that doubles with each attempt."""
    policy = RetryPolicy()
    assert backoff(policy, number, 0.0) == 0
    assert backoff(policy, number, 0.5) == bound // 2
    assert bound * 0.999 < backoff(policy, number, 0.9999) < bound
