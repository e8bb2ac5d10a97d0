"""What an outcome means: for the call, for the key that it was made with, and for the upstream.

Rule: decided here, once, and applied by the dispatcher. The pool's rules come first; then what HTTP says. A verdict
says what becomes of the call (`means`, and `failure` in its result; None: it succeeded), and what the outcome shows of
the key and of the upstream. Verdicts are shared: a plain success makes no object.

    outcome                          means           failure        key        upstream
    success (the pool says which)    success         -              works      works
    429; 403 with a wait, or with a
    hint that nothing is left        limited         LIMITED        says none  works
    401, 402, 403                    key rejected    KEY_REJECTED   rejected   works
    5xx                              again           HTTP_5XX       says none  fails
    408; 425, which was not executed again           HTTP_4XX       says none  works
    any other status                 failed          HTTP_xXX       works      works
    its body cut, or not in time     again           its fault      works      works, or fails
    NotSent                          again           NOT_SENT       says none  fails, unless it was kept back by us
    Unknown                          again           its reason     says none  fails

Whether the body came whole matters only where the head says success or failed: limited, rejected or again is said by
the head alone. A gateway's 5xx, or a 429 before the key was looked at, says nothing of the key: a run of them must not
reset the count of rejections in between. What we kept back ourselves says nothing of the upstream.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.matching import first_match
from apiflux_grpc.core.outcome import Answer, NotSent, Reason
from apiflux_grpc.core.rules import Means
from apiflux_grpc.core.waits import is_told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.fields import AnswerFields, Field
    from apiflux_grpc.core.hints import Hint
    from apiflux_grpc.core.outcome import NoAnswer
    from apiflux_grpc.core.rules import AnswerRule


class KeyVerdict(Enum):
    """What an outcome shows of its key."""

    WORKS = "works"
    REJECTED = "rejected"
    UNSEEN = "unseen"  # nothing


class UpstreamVerdict(Enum):
    """What an outcome shows of the upstream."""

    WORKS = "works"
    FAILS = "fails"
    UNSEEN = "unseen"  # nothing


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What an outcome means.

    `retried_as` is the reason that a policy has to name for another attempt. `wait` is where the wait is told, if not
    in the usual headers. `not_executed`: the upstream says so.
    """

    means: Means
    failure: Reason | None
    key: KeyVerdict = KeyVerdict.WORKS
    upstream: UpstreamVerdict = UpstreamVerdict.WORKS
    retried_as: Reason | None = None
    wait: Field | None = None
    not_executed: bool = False


SUCCESS: Final = Verdict(Means.SUCCESS, None)
LIMITED: Final = Verdict(Means.LIMITED, Reason.LIMITED, KeyVerdict.UNSEEN)
REJECTED: Final = Verdict(Means.KEY_REJECTED, Reason.KEY_REJECTED, KeyVerdict.REJECTED)
# Of a call that another key had rejected too: it says more of the call than of this key (forbidden.py).
REJECTED_AGAIN: Final = Verdict(Means.KEY_REJECTED, Reason.KEY_REJECTED, KeyVerdict.UNSEEN)
# And if such a key has worked well for others since, it is the call that is rejected.
FORBIDDEN: Final = Verdict(Means.FAILED, Reason.KEY_REJECTED, KeyVerdict.UNSEEN)
_CLASSES: Final = (Reason.HTTP_1XX, Reason.HTTP_2XX, Reason.HTTP_3XX, Reason.HTTP_4XX, Reason.HTTP_5XX)
_BODY_FAULTS: Final = {
    reason: Verdict(Means.AGAIN, reason, upstream=upstream, retried_as=reason)
    for reason, upstream in (
        (Reason.BODY_CUT, UpstreamVerdict.WORKS),
        (Reason.TIMEOUT, UpstreamVerdict.FAILS),
        (Reason.UNKNOWN, UpstreamVerdict.FAILS),
    )
}
_NO_ANSWER: Final = {
    reason: Verdict(
        Means.AGAIN,
        reason,
        KeyVerdict.UNSEEN,
        UpstreamVerdict.FAILS,
        retried_as=reason,
        not_executed=reason is Reason.NOT_SENT,
    )
    for reason in (Reason.NOT_SENT, Reason.TIMEOUT, Reason.UNKNOWN)
}
KEPT_BACK: Final = Verdict(
    Means.AGAIN,
    Reason.NOT_SENT,
    KeyVerdict.UNSEEN,
    UpstreamVerdict.UNSEEN,
    retried_as=Reason.NOT_SENT,
    not_executed=True,
)


def of_no_answer(outcome: NoAnswer) -> Verdict:
    """What it means that no answer came."""
    if isinstance(outcome, NotSent):
        return KEPT_BACK if outcome.cause.ours else _NO_ANSWER[Reason.NOT_SENT]
    return _NO_ANSWER[outcome.reason]


class Verdicts:
    """The verdicts of one pool. `success` has inclusive ranges of HTTP status codes, `rules` come before them."""

    __slots__ = ("_by_rule", "_by_status", "_rules", "_success")

    def __init__(self, success: Sequence[tuple[int, int]], rules: Sequence[AnswerRule] = ()) -> None:
        self._success = tuple(success)
        self._rules = tuple(rules)
        self._by_status: dict[int, Verdict] = {}  # as they are seen; a status has three digits
        self._by_rule: dict[tuple[AnswerRule, Reason], Verdict] = {}

    def of(self, answer: Answer, told: Sequence[Hint], fields: AnswerFields | None) -> Verdict:
        """What the answer means. `told` are the hints in its headers; `fields` may be None if the pool has no rules."""
        if self._rules and fields is not None:
            rule = first_match(self._rules, fields, answer.status)
            if rule is not None:
                return self._if_whole(self._of_rule(rule, answer.status), answer)
        verdict = self._by_status.get(answer.status)
        if verdict is None:
            verdict = self._by_status[answer.status] = self._of_status(answer.status)
        if verdict is SUCCESS and answer.fault is None:
            return verdict
        if verdict is REJECTED and answer.status == 403 and _speaks_of_a_limit(answer, told):
            return LIMITED
        return self._if_whole(verdict, answer)

    @staticmethod
    def _if_whole(verdict: Verdict, answer: Answer) -> Verdict:
        if answer.fault is not None and verdict.means in (Means.SUCCESS, Means.FAILED):
            return _BODY_FAULTS[answer.fault]
        return verdict

    def _of_status(self, status: int) -> Verdict:
        if any(low <= status <= high for low, high in self._success):
            return SUCCESS
        if status == 429:
            return LIMITED
        if status in (401, 402, 403):
            return REJECTED
        if status in (408, 425):
            return _again(status, not_executed=status == 425)
        reason = _class_of(status)
        return _again(status) if reason is Reason.HTTP_5XX else _failed(reason)

    def _of_rule(self, rule: AnswerRule, status: int) -> Verdict:
        case = rule, _class_of(status)
        if case not in self._by_rule:
            self._by_rule[case] = _by_rule(rule, status)
        return self._by_rule[case]


def _by_rule(rule: AnswerRule, status: int) -> Verdict:
    match rule.means:
        case Means.SUCCESS:
            return SUCCESS
        case Means.LIMITED:
            return (
                LIMITED
                if rule.wait is None
                else Verdict(Means.LIMITED, Reason.LIMITED, KeyVerdict.UNSEEN, wait=rule.wait)
            )
        case Means.KEY_REJECTED:
            return REJECTED
        case Means.AGAIN:
            return _again(status, fails=True, wait=rule.wait, not_executed=rule.not_executed)
        case Means.FAILED:
            return _failed(_class_of(status))


def _again(status: int, *, fails: bool = False, wait: Field | None = None, not_executed: bool = False) -> Verdict:
    """Policies have one word for an answer that is worth another attempt, whatever its status: HTTP_5XX."""
    upstream = UpstreamVerdict.FAILS if fails or status >= 500 else UpstreamVerdict.WORKS
    return Verdict(
        Means.AGAIN, _class_of(status), KeyVerdict.UNSEEN, upstream, Reason.HTTP_5XX, wait, not_executed=not_executed
    )


def _failed(reason: Reason) -> Verdict:
    return Verdict(Means.FAILED, reason, retried_as=reason)


def _class_of(status: int) -> Reason:
    return _CLASSES[min(max(status // 100, 1), 5) - 1]


def _speaks_of_a_limit(answer: Answer, told: Sequence[Hint]) -> bool:
    """It says when to come back, or that nothing is left of some limit."""
    return is_told(answer.headers) or any(not hint.remaining for hint in told)
