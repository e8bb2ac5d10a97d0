"""What each outcome means for the call, its key and the upstream: the table at the top of verdict.py, row by row."""

from __future__ import annotations

from typing import Final

import pytest

from apiflux_grpc.core.fields import AnswerFields, HeaderField, JsonField
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.hints import Hint
from apiflux_grpc.core.model import Counts
from apiflux_grpc.core.outcome import Answer, Cause, NotSent, Outcome, Reason, Unknown
from apiflux_grpc.core.rules import AnswerRule, Condition, Means
from apiflux_grpc.core.verdict import KeyVerdict, UpstreamVerdict, Verdict, Verdicts, of_no_answer

WORKS, REJECTED, UNSEEN = KeyVerdict.WORKS, KeyVerdict.REJECTED, KeyVerdict.UNSEEN
UP, FAILS, NOTHING = UpstreamVerdict.WORKS, UpstreamVerdict.FAILS, UpstreamVerdict.UNSEEN
TWO_HUNDREDS: Final = ((200, 299),)
SUCCESS, LIMITED, KEY, AGAIN, FAILED = Means
CUT: Final = Reason.BODY_CUT


def answer(status: int, fault: Reason | None = None, body: bytes = b"", **headers: str) -> Answer:
    named = Headers.of({name.replace("_", "-"): value for name, value in headers.items()})
    return Answer(status, named, body, 0, fault=fault)


def judged(outcome: Outcome, *told: Hint, rules: tuple[AnswerRule, ...] = ()) -> Verdict:
    if not isinstance(outcome, Answer):
        return of_no_answer(outcome)
    return Verdicts(TWO_HUNDREDS, rules).of(outcome, told, AnswerFields(outcome))


@pytest.mark.parametrize(
    ("outcome", "means", "failure", "key", "upstream"),
    [
        (answer(200), SUCCESS, None, WORKS, UP),
        (answer(299), SUCCESS, None, WORKS, UP),
        (answer(0), FAILED, Reason.HTTP_1XX, WORKS, UP),
        (answer(199), FAILED, Reason.HTTP_1XX, WORKS, UP),
        (answer(302), FAILED, Reason.HTTP_3XX, WORKS, UP),
        (answer(400), FAILED, Reason.HTTP_4XX, WORKS, UP),
        (answer(428), FAILED, Reason.HTTP_4XX, WORKS, UP),
        (answer(499), FAILED, Reason.HTTP_4XX, WORKS, UP),
        (answer(503, retry_after="5"), AGAIN, Reason.HTTP_5XX, UNSEEN, FAILS),
        (answer(404, retry_after="5"), FAILED, Reason.HTTP_4XX, WORKS, UP),
        (answer(401), KEY, Reason.KEY_REJECTED, REJECTED, UP),
        (answer(401, retry_after="5"), KEY, Reason.KEY_REJECTED, REJECTED, UP),
        (answer(402), KEY, Reason.KEY_REJECTED, REJECTED, UP),
        (answer(403), KEY, Reason.KEY_REJECTED, REJECTED, UP),
        (answer(403, retry_after="5"), LIMITED, Reason.LIMITED, UNSEEN, UP),
        (answer(403, retry_after="0"), LIMITED, Reason.LIMITED, UNSEEN, UP),
        (answer(403, retry_after_ms="5"), LIMITED, Reason.LIMITED, UNSEEN, UP),
        (answer(429), LIMITED, Reason.LIMITED, UNSEEN, UP),
        (answer(408), AGAIN, Reason.HTTP_4XX, UNSEEN, UP),
        (answer(425), AGAIN, Reason.HTTP_4XX, UNSEEN, UP),
        (answer(500), AGAIN, Reason.HTTP_5XX, UNSEEN, FAILS),
        (answer(529), AGAIN, Reason.HTTP_5XX, UNSEEN, FAILS),
        (answer(999), AGAIN, Reason.HTTP_5XX, UNSEEN, FAILS),
        # whether the body came whole
        (answer(200, CUT), AGAIN, CUT, WORKS, UP),
        (answer(404, CUT), AGAIN, CUT, WORKS, UP),
        (answer(200, Reason.TIMEOUT), AGAIN, Reason.TIMEOUT, WORKS, FAILS),
        (answer(200, Reason.UNKNOWN), AGAIN, Reason.UNKNOWN, WORKS, FAILS),
        (answer(429, CUT), LIMITED, Reason.LIMITED, UNSEEN, UP),
        (answer(429, Reason.TIMEOUT), LIMITED, Reason.LIMITED, UNSEEN, UP),
        (answer(401, CUT), KEY, Reason.KEY_REJECTED, REJECTED, UP),
        (answer(403, CUT, retry_after="5"), LIMITED, Reason.LIMITED, UNSEEN, UP),
        (answer(500, CUT), AGAIN, Reason.HTTP_5XX, UNSEEN, FAILS),
        # no answer
        (NotSent(Cause.UNREACHABLE, "refused"), AGAIN, Reason.NOT_SENT, UNSEEN, FAILS),
        (NotSent(Cause.NO_CONNECTION, "swallowed"), AGAIN, Reason.NOT_SENT, UNSEEN, FAILS),
        (NotSent(Cause.DROPPED, "closed"), AGAIN, Reason.NOT_SENT, UNSEEN, FAILS),
        (NotSent(Cause.LATE, "late"), AGAIN, Reason.NOT_SENT, UNSEEN, NOTHING),
        (NotSent(Cause.OUT_OF_TIME, "late"), AGAIN, Reason.NOT_SENT, UNSEEN, NOTHING),
        (NotSent(Cause.CANCELLED, "cancelled"), AGAIN, Reason.NOT_SENT, UNSEEN, NOTHING),
        (NotSent(Cause.CLOSED, "closed"), AGAIN, Reason.NOT_SENT, UNSEEN, NOTHING),
        (NotSent(Cause.NO_FILE, "no file"), AGAIN, Reason.NOT_SENT, UNSEEN, NOTHING),
        (Unknown("reset"), AGAIN, Reason.UNKNOWN, UNSEEN, FAILS),
        (Unknown("slow", Reason.TIMEOUT), AGAIN, Reason.TIMEOUT, UNSEEN, FAILS),
    ],
    ids=str,
)
def test_what_an_outcome_means(
    outcome: Outcome, means: Means, failure: Reason | None, key: KeyVerdict, upstream: UpstreamVerdict
) -> None:
    """Each outcome means one thing for its call, and has one word on its key and one on the upstream."""
    verdict = judged(outcome)
    assert (verdict.means, verdict.failure, verdict.key, verdict.upstream) == (means, failure, key, upstream)


@pytest.mark.parametrize(("left", "means"), [(0, LIMITED), (1, KEY)])
@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_403_of_a_spent_limit_is_no_rejection(status: int, left: int, means: Means) -> None:
    """If a hint says that nothing is left, 403 means the limit; 401 and 402 mean the key whatever is left."""
    plenty = Hint(99, None, 100, None, Counts.COST)
    verdict = judged(answer(status), plenty, Hint(left, None, 100, None, Counts.CALLS))
    assert verdict.means is (means if status == 403 else KEY)


@pytest.mark.parametrize(
    ("outcome", "retried_as", "not_executed"),
    [
        (answer(500), Reason.HTTP_5XX, False),
        (answer(408), Reason.HTTP_5XX, False),
        (answer(425), Reason.HTTP_5XX, True),
        (answer(404), Reason.HTTP_4XX, False),
        (answer(200, CUT), CUT, False),
        (NotSent(Cause.UNREACHABLE, "refused"), Reason.NOT_SENT, True),
        (Unknown("slow", Reason.TIMEOUT), Reason.TIMEOUT, False),
    ],
    ids=str,
)
def test_what_a_policy_calls_it(outcome: Outcome, retried_as: Reason, not_executed: bool) -> None:
    """Answers worth another attempt are HTTP_5XX to a policy, 425 the one that certainly was not executed."""
    verdict = judged(outcome)
    assert (verdict.retried_as, verdict.not_executed) == (retried_as, not_executed)


OK_BUT: Final = answer(200, body=b'{"status": "OVER_QUERY_LIMIT", "error": {"delay": "7s"}}')
STATUS: Final = JsonField(("status",))


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        (SUCCESS, (SUCCESS, None, WORKS, UP)),
        (LIMITED, (LIMITED, Reason.LIMITED, UNSEEN, UP)),
        (KEY, (KEY, Reason.KEY_REJECTED, REJECTED, UP)),
        (AGAIN, (AGAIN, Reason.HTTP_2XX, UNSEEN, FAILS)),
        (FAILED, (FAILED, Reason.HTTP_2XX, WORKS, UP)),
    ],
)
def test_a_rule_comes_before_http(means: Means, expected: tuple[object, ...]) -> None:
    """Whatever the status says: a 200 whose body says otherwise is what the pool's rule says."""
    delay = JsonField(("error", "delay"))
    rule = AnswerRule(means, ((200, 200),), (Condition(STATUS, ("OVER_QUERY_LIMIT",)),), delay, not_executed=True)
    verdict = judged(OK_BUT, rules=(rule,))
    assert (verdict.means, verdict.failure, verdict.key, verdict.upstream) == expected
    assert (verdict.wait is delay) == (means in (LIMITED, AGAIN))
    assert verdict.not_executed == (means is AGAIN)


def test_the_first_rule_that_matches_holds_and_http_if_none_does() -> None:
    """In their order; a rule that doesn't match says nothing."""
    nothing = AnswerRule(KEY, (), (Condition(STATUS, ("OK",)),))
    first = AnswerRule(LIMITED, ((200, 299), (500, 500)))
    second = AnswerRule(SUCCESS)
    assert judged(OK_BUT, rules=(nothing, first, second)).means is LIMITED
    assert judged(answer(500), rules=(nothing, first, second)).means is LIMITED
    assert judged(answer(501), rules=(nothing, first, second)).means is SUCCESS
    assert judged(answer(501), rules=(nothing, first)).means is AGAIN
    header = AnswerRule(LIMITED, (), (Condition(HeaderField("x-code"), ("7",)),))
    assert judged(answer(400, x_code="7"), rules=(header,)).means is LIMITED
    assert judged(answer(400, x_code="8"), rules=(header,)).means is FAILED


def test_a_pool_says_what_a_success_is() -> None:
    """Ranges are inclusive, and 2xx, 404 or 429 are whatever the pool says."""
    verdicts = Verdicts(((200, 200), (404, 404), (429, 429)))
    assert [verdicts.of(answer(status), (), None).failure for status in (200, 201, 404, 429)] == [
        None,
        Reason.HTTP_2XX,
        None,
        None,
    ]


def test_the_same_outcome_makes_no_new_verdict() -> None:
    """Verdicts are shared: judging an answer makes no object, by a rule neither."""
    verdicts = Verdicts(TWO_HUNDREDS, (AnswerRule(AGAIN, ((418, 418),)),))
    fields = AnswerFields(answer(418))
    assert verdicts.of(answer(200), (), fields) is verdicts.of(answer(204), (), fields)
    assert verdicts.of(answer(200), (), fields) is Verdicts(TWO_HUNDREDS).of(answer(200), (), None)
    assert verdicts.of(answer(418), (), fields) is verdicts.of(answer(418), (), fields)
