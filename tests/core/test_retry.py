"""Which failures are tried again, and what a 429 says of its key."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from apiflux_grpc.core.feedback import LONGEST_RETRY_AFTER, retry_after
from apiflux_grpc.core.model import SECOND, Reason, RetryPolicy
from apiflux_grpc.core.retry import again_in

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("reason", [Reason.UNKNOWN, Reason.TIMEOUT, Reason.HTTP_5XX, Reason.BODY_CUT])
def test_what_may_have_run_is_sent_again_only_if_it_is_idempotent(reason: Reason) -> None:
    """At most once unless safe."""
    assert again_in(RetryPolicy(), reason, 1, idempotent=False, draw=0.5) is None
    assert again_in(RetryPolicy(), reason, 1, idempotent=True, draw=0.5) is not None


@pytest.mark.parametrize("reason", [Reason.NOT_SENT, Reason.HTTP_429])
def test_what_was_certainly_not_executed_is_tried_again(reason: Reason) -> None:
    """A call that isn't idempotent too."""
    assert again_in(RetryPolicy(), reason, 1, idempotent=False, draw=0.0) == 0


def test_attempts_are_bounded_and_backoffs_double_up_to_their_bound() -> None:
    """Full jitter under a bound that doubles."""
    policy = RetryPolicy(max_attempts=4, initial_backoff=SECOND, max_backoff=3 * SECOND)
    waits = [again_in(policy, Reason.NOT_SENT, number, idempotent=True, draw=1.0) for number in (1, 2, 3, 4)]
    assert waits == [SECOND, 2 * SECOND, 3 * SECOND, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", 3 * SECOND),
        ("0", 0),
        ("99999999999999999999", LONGEST_RETRY_AFTER),
        ("Thu, 01 Jan 2026 00:00:07 GMT", 7 * SECOND),
        ("Wed, 31 Dec 2025 00:00:07 GMT", 0),
        ("soon", None),
        ("-1", None),
        ("", None),
    ],
)
def test_retry_after(text: str, expected: int | None) -> None:
    """Seconds or an HTTP date; the far future is capped, and what can't be read is ignored."""
    assert retry_after(text, NOW) == expected
