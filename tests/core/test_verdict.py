"""What each outcome means for the call, its key and the upstream: the table at the top of verdict.py, row by row."""

from __future__ import annotations

from typing import Final

import pytest

from apiflux_grpc.core.headers import NO_HEADERS
from apiflux_grpc.core.outcome import Answer, Cause, NotSent, Outcome, Reason, Unknown
from apiflux_grpc.core.verdict import KeyVerdict, UpstreamVerdict, Verdicts

WORKS, REJECTED, UNSEEN = KeyVerdict.WORKS, KeyVerdict.REJECTED, KeyVerdict.UNSEEN
UP, FAILS, NOTHING = UpstreamVerdict.WORKS, UpstreamVerdict.FAILS, UpstreamVerdict.UNSEEN
TWO_HUNDREDS: Final = ((200, 299),)


def answer(status: int, fault: Reason | None = None) -> Answer:
    return Answer(status, NO_HEADERS, b"", 0, fault=fault)


@pytest.mark.parametrize(
    ("outcome", "failure", "key", "upstream"),
    [
        (answer(200), None, WORKS, UP),
        (answer(299), None, WORKS, UP),
        (answer(0), Reason.HTTP_1XX, WORKS, UP),
        (answer(199), Reason.HTTP_1XX, WORKS, UP),
        (answer(302), Reason.HTTP_3XX, WORKS, UP),
        (answer(400), Reason.HTTP_4XX, WORKS, UP),
        (answer(402), Reason.HTTP_4XX, WORKS, UP),
        (answer(428), Reason.HTTP_4XX, WORKS, UP),
        (answer(499), Reason.HTTP_4XX, WORKS, UP),
        (answer(401), Reason.KEY_REJECTED, REJECTED, UP),
        (answer(403), Reason.KEY_REJECTED, REJECTED, UP),
        (answer(429), Reason.LIMITED, UNSEEN, UP),
        (answer(500), Reason.HTTP_5XX, UNSEEN, FAILS),
        (answer(503), Reason.HTTP_5XX, UNSEEN, FAILS),
        (answer(999), Reason.HTTP_5XX, UNSEEN, FAILS),
        (answer(200, Reason.BODY_CUT), Reason.BODY_CUT, WORKS, UP),
        (answer(429, Reason.BODY_CUT), Reason.BODY_CUT, WORKS, UP),
        (answer(200, Reason.TIMEOUT), Reason.TIMEOUT, WORKS, FAILS),
        (NotSent(Cause.UNREACHABLE, "refused"), Reason.NOT_SENT, UNSEEN, FAILS),
        (NotSent(Cause.NO_CONNECTION, "swallowed"), Reason.NOT_SENT, UNSEEN, FAILS),
        (NotSent(Cause.DROPPED, "closed"), Reason.NOT_SENT, UNSEEN, FAILS),
        (NotSent(Cause.LATE, "late"), Reason.NOT_SENT, UNSEEN, NOTHING),
        (NotSent(Cause.OUT_OF_TIME, "late"), Reason.NOT_SENT, UNSEEN, NOTHING),
        (NotSent(Cause.CANCELLED, "cancelled"), Reason.NOT_SENT, UNSEEN, NOTHING),
        (NotSent(Cause.CLOSED, "closed"), Reason.NOT_SENT, UNSEEN, NOTHING),
        (Unknown("reset"), Reason.UNKNOWN, UNSEEN, FAILS),
        (Unknown("slow", Reason.TIMEOUT), Reason.TIMEOUT, UNSEEN, FAILS),
    ],
    ids=str,
)
def test_what_an_outcome_means(
    outcome: Outcome, failure: Reason | None, key: KeyVerdict, upstream: UpstreamVerdict
) -> None:
    """Each outcome has one failure (a success has none), one word on its key and one on the upstream."""
    verdict = Verdicts(TWO_HUNDREDS).of(outcome)
    assert (verdict.failure, verdict.key, verdict.upstream) == (failure, key, upstream)
    assert verdict.limited == (failure is Reason.LIMITED)
    assert verdict.other_key == (failure in (Reason.LIMITED, Reason.KEY_REJECTED))


def test_a_pool_says_what_a_success_is() -> None:
    """Ranges are inclusive, and 2xx, 404 or 429 are whatever the pool says."""
    verdicts = Verdicts(((200, 200), (404, 404), (429, 429)))
    assert [verdicts.of(answer(status)).failure for status in (200, 201, 404, 429)] == [
        None,
        Reason.HTTP_2XX,
        None,
        None,
    ]


def test_the_same_outcome_makes_no_new_verdict() -> None:
    """Verdicts are shared: judging an answer makes no object."""
    verdicts = Verdicts(TWO_HUNDREDS)
    assert verdicts.of(answer(200)) is verdicts.of(answer(204)) is Verdicts(TWO_HUNDREDS).of(answer(200))
