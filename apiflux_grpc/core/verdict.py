"""What an outcome means: for the call, for the key that it was made with, and for the upstream.

Rule: decided here, once, and applied by the dispatcher. A verdict says what happened to the call (`failure`; None:
it succeeded), what it shows of the key and of the upstream, and whether another key is the better choice for another
attempt. Verdicts are shared constants: a plain success makes no object.

    outcome                        failure         key        upstream   another key
    success (the pool says which)  -               works      works
    429                            LIMITED        says none  works      yes: limited
    401, 403                       KEY_REJECTED    rejected   works      yes
    5xx                            HTTP_5XX        says none  fails
    any other status               HTTP_xXX        works      works
    body cut, or not in time       its fault       works      works, or fails
    NotSent                        NOT_SENT        says none  fails, unless it was kept back by us
    Unknown                        its reason      says none  fails

A gateway's 5xx, or a 429 before the key was looked at, says nothing of the key: a run of them must not reset the
count of rejections in between. What we kept back ourselves says nothing of the upstream.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.outcome import Answer, NotSent, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.outcome import Outcome


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
    """What an outcome means."""

    failure: Reason | None
    key: KeyVerdict = KeyVerdict.WORKS
    upstream: UpstreamVerdict = UpstreamVerdict.WORKS
    other_key: bool = False  # another key is the better choice
    limited: bool = False  # the key is to wait


SUCCESS: Final = Verdict(None)
LIMITED: Final = Verdict(Reason.LIMITED, KeyVerdict.UNSEEN, other_key=True, limited=True)
REJECTED: Final = Verdict(Reason.KEY_REJECTED, KeyVerdict.REJECTED, other_key=True)
_BY_CLASS: Final = (
    Verdict(Reason.HTTP_1XX),
    Verdict(Reason.HTTP_2XX),
    Verdict(Reason.HTTP_3XX),
    Verdict(Reason.HTTP_4XX),
    Verdict(Reason.HTTP_5XX, KeyVerdict.UNSEEN, UpstreamVerdict.FAILS),
)
_BODY_FAULTS: Final = {
    Reason.BODY_CUT: Verdict(Reason.BODY_CUT),
    Reason.TIMEOUT: Verdict(Reason.TIMEOUT, upstream=UpstreamVerdict.FAILS),
    Reason.UNKNOWN: Verdict(Reason.UNKNOWN, upstream=UpstreamVerdict.FAILS),
}
_NO_ANSWER: Final = {
    reason: Verdict(reason, KeyVerdict.UNSEEN, UpstreamVerdict.FAILS)
    for reason in (Reason.NOT_SENT, Reason.TIMEOUT, Reason.UNKNOWN)
}
KEPT_BACK: Final = Verdict(Reason.NOT_SENT, KeyVerdict.UNSEEN, UpstreamVerdict.UNSEEN)


class Verdicts:
    """The verdicts of one pool. `success` has inclusive ranges of HTTP status codes."""

    __slots__ = ("_by_status", "_success")

    def __init__(self, success: Sequence[tuple[int, int]]) -> None:
        self._success = tuple(success)
        self._by_status: dict[int, Verdict] = {}  # as they are seen; a status has three digits

    def of(self, outcome: Outcome) -> Verdict:
        """What the outcome means."""
        if isinstance(outcome, Answer):
            if outcome.fault is not None:
                return _BODY_FAULTS[outcome.fault]
            verdict = self._by_status.get(outcome.status)
            if verdict is None:
                verdict = self._by_status[outcome.status] = self._of_status(outcome.status)
            return verdict
        if isinstance(outcome, NotSent):
            return KEPT_BACK if outcome.cause.ours else _NO_ANSWER[Reason.NOT_SENT]
        return _NO_ANSWER[outcome.reason]

    def _of_status(self, status: int) -> Verdict:
        if any(low <= status <= high for low, high in self._success):
            return SUCCESS
        if status == 429:
            return LIMITED
        if status in (401, 403):
            return REJECTED
        return _BY_CLASS[min(max(status // 100, 1), 5) - 1]
