"""What outcomes do to the health of a pool: its keys' breakers and blocks, its upstream's breaker, its limits.

Rule: verdict.py says what an outcome means, and here that is carried out, once for each attempt. Every change that an
operator should hear of makes an event. Nothing here is about the call itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.breaker import State
from apiflux_grpc.core.events import (
    KeyAccepted,
    KeyBlocked,
    KeyRejected,
    LimitCut,
    UpstreamBack,
    UpstreamFailing,
    WaitUnread,
)
from apiflux_grpc.core.held import limited
from apiflux_grpc.core.hints import hints
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.units import format_limit
from apiflux_grpc.core.verdict import KEPT_BACK, SUCCESS, KeyVerdict, UpstreamVerdict
from apiflux_grpc.core.waits import is_told, reset_wait, told_wait

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from apiflux_grpc.core.events import Event
    from apiflux_grpc.core.hints import Hint
    from apiflux_grpc.core.keys import KeyState
    from apiflux_grpc.core.outcome import Outcome
    from apiflux_grpc.core.permit import Permit
    from apiflux_grpc.core.pulse import Pulse
    from apiflux_grpc.core.scheduler import Scheduler
    from apiflux_grpc.core.verdict import Verdict


class Health:
    """The consequences of outcomes for one pool."""

    __slots__ = ("_breaker", "_events", "_pulse", "_scheduler")

    def __init__(self, scheduler: Scheduler, pulse: Pulse) -> None:
        self._scheduler = scheduler
        self._breaker = scheduler.breaker
        self._pulse = pulse
        self._events: list[Event] = []

    def take_events(self) -> Sequence[Event]:
        """What happened since this was last asked."""
        if not self._events:
            return ()
        events, self._events = self._events, []
        return events

    def tell(self, event: Event) -> None:
        self._events.append(event)

    @property
    def why_unusable(self) -> str:
        """Why no key can be used, in words."""
        if self._breaker.state is not State.CLOSED:
            return f"the upstream fails: {self._pulse.last_failure}"
        return "it rejects every key"

    def judge(self, permit: Permit, outcome: Outcome, verdict: Verdict, now: int, wall_now: datetime) -> int:
        """The outcome of an attempt that we did not end. Returns how long (ns) the call itself was told to wait."""
        if not isinstance(outcome, Answer):
            self._pulse.last_failure = outcome.detail
            self._tell_breakers(permit, verdict, now)
            return 0
        # A success while all is calm has nothing to say to any breaker: nearly all calls go this way.
        key = permit.key
        if verdict is not SUCCESS or not key.calm or not self._breaker.calm:
            if verdict.failure is not None:
                self._pulse.last_failure = f"HTTP {outcome.status}"
            self._tell_breakers(permit, verdict, now, outcome.status)
        told, malformed = hints(outcome.headers, wall_now)
        self._pulse.malformed += malformed  # counted and shown, since a limit that is never read is a limit overrun
        if verdict.limited:
            self._limited(permit, outcome, told, now, wall_now)
        if told and not (verdict.limited and is_told(outcome.headers)):  # explicit waits go before hints
            key.hear(told, now)
        if outcome.status == 503 and "retry-after" in outcome.headers:
            return told_wait(outcome.headers, wall_now).length or 0
        return 0

    def says_nothing(self, permit: Permit, now: int) -> None:
        """The attempt ended by our own doing: it was cancelled, or kept back."""
        self._tell_breakers(permit, KEPT_BACK, now)

    def _limited(self, permit: Permit, answer: Answer, told: Sequence[Hint], now: int, wall_now: datetime) -> None:
        key = permit.key
        wait = told_wait(answer.headers, wall_now)
        if wait.unread:
            self._unread(key, wait.unread)
        if wait.length is None:
            wait = reset_wait(hint.reset_in or 0 for hint in told if not hint.remaining)
        cause = limited(answer.status, wait.length, wait.source)
        if key.refused(permit.taken_at, now, wait.length, cause):
            assert key.block is not None
            self.tell(KeyBlocked(key.key.label, key.block.until - now, answer.status, cause))
        self._scheduler.judged(key, now)
        # Every limit was kept by our count, and yet it was refused: the limit is lower, or others use the key.
        cut = key.cut(now, permit.taken_at, told)
        if cut is not None:
            self._pulse.cuts += 1
            self.tell(LimitCut(key.key.label, format_limit(cut.max, cut.per, cut.counts.value)))

    def _unread(self, key: KeyState, what: str) -> None:
        self._pulse.malformed += 1
        if not key.unread_told:
            key.unread_told = True
            self.tell(WaitUnread(key.key.label, what))

    def _tell_breakers(self, permit: Permit, verdict: Verdict, now: int, status: int = 0) -> None:
        key, label, changed = permit.key, permit.key.key.label, False
        for one in key.owners if key.block or key.group else ():
            worked = verdict.key is KeyVerdict.WORKS and one.worked(permit)
            if worked or (one.block is not None and one.block.ended(permit)):
                self._scheduler.judged(one, now)
        match verdict.key:
            case KeyVerdict.UNSEEN:
                changed = key.breaker.abandoned(now, permit.key_era)
            case KeyVerdict.WORKS:
                if changed := key.breaker.succeeded(now, permit.key_era):
                    self.tell(KeyAccepted(label))
            case KeyVerdict.REJECTED:
                key.rejected_with = status
                if changed := key.breaker.failed(now, permit.key_era):
                    self.tell(KeyRejected(label, key.breaker.ready_at(now) - now, status))
        if changed:  # it can pay again, or no more: its place in the heaps is another
            self._scheduler.judged(key, now)
        match verdict.upstream:
            case UpstreamVerdict.UNSEEN:
                self._breaker.abandoned(now, permit.pool_era)
            case UpstreamVerdict.WORKS:
                if self._breaker.succeeded(now, permit.pool_era):
                    self.tell(UpstreamBack())
            case UpstreamVerdict.FAILS:
                if self._breaker.failed(now, permit.pool_era):
                    self.tell(UpstreamFailing(self._breaker.ready_at(now) - now, self._pulse.last_failure))
