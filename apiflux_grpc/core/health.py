"""What outcomes do to the health of a pool: its keys' breakers and blocks, its upstream's breaker, its limits.

Rule: verdict.py says what an outcome means, and here that is carried out, once for each attempt. Every change that an
operator should hear of makes an event. Nothing here is about the call itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.blame import blamed, cut
from apiflux_grpc.core.breaker import State
from apiflux_grpc.core.events import (
    KeyAccepted,
    KeyBlocked,
    KeyRejected,
    LimitCut,
    LimitLower,
    UpstreamBack,
    UpstreamFailing,
    WaitUnread,
)
from apiflux_grpc.core.forbidden import Rejections
from apiflux_grpc.core.hearing import NOTHING, hear, is_short
from apiflux_grpc.core.held import limited, lower, nothing_left, only_named
from apiflux_grpc.core.hints import hints
from apiflux_grpc.core.keys import GroupState, KeyState
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.rules import Means
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.core.verdict import (
    FORBIDDEN,
    KEPT_BACK,
    REJECTED,
    REJECTED_AGAIN,
    SUCCESS,
    KeyVerdict,
    UpstreamVerdict,
    Verdicts,
    of_no_answer,
)
from apiflux_grpc.core.waits import NO_WAIT, Wait, reset_wait, told_wait

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from apiflux_grpc.core.events import Event
    from apiflux_grpc.core.fields import AnswerFields
    from apiflux_grpc.core.hearing import Heard
    from apiflux_grpc.core.hints import Hint
    from apiflux_grpc.core.outcome import Outcome
    from apiflux_grpc.core.permit import Permit
    from apiflux_grpc.core.pulse import Patience, Pulse
    from apiflux_grpc.core.scheduler import Scheduler
    from apiflux_grpc.core.verdict import Verdict

# A limit that isn't configured may be used up every second: so long (ns) that is no news.
SAME_NEWS: Final = 3600 * SECOND


class Health:
    """The consequences of outcomes for one pool."""

    __slots__ = ("_breaker", "_events", "_patience", "_pulse", "_rejections", "_scheduler", "_verdicts")

    def __init__(self, scheduler: Scheduler, pulse: Pulse, patience: Patience) -> None:
        self._verdicts = Verdicts(scheduler.pool.success, scheduler.pool.answers)
        self._patience = patience
        self._scheduler = scheduler
        self._breaker = scheduler.breaker
        self._pulse = pulse
        self._rejections = Rejections()
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
        refused = next((one.block for key in self._scheduler.keys for one in key.owners if one.block), None)
        return "it rejects every key" if refused is None else f"it lets no key pass: {refused.cause}"

    def judge(
        self, permit: Permit, outcome: Outcome, fields: AnswerFields | None, now: int, wall_now: datetime
    ) -> tuple[Verdict, int]:
        """The outcome of an attempt that we did not end. Returns what it means, and how long (ns) the call itself was
        told to wait; `fields` may be None if the pool has no rules for answers."""
        if not isinstance(outcome, Answer):
            verdict = of_no_answer(outcome)
            self._pulse.last_failure = outcome.detail
            self._tell_breakers(permit, verdict, now)
            return verdict, 0
        told, malformed = hints(outcome.headers, wall_now)
        self._pulse.malformed += malformed  # counted and shown, since a limit that is never read is a limit overrun
        verdict = self._verdicts.of(outcome, told, fields)
        key = permit.key
        calm = permit.calm if permit.shares else key.calm
        if verdict is SUCCESS and calm and self._breaker.calm:
            # It has nothing to say to any breaker: nearly all calls go this way.
            if told or key.budget.told is not None:
                self._hear(permit, outcome, told, now, limited=False)
            return verdict, 0
        if verdict is REJECTED and permit.again is not None and permit.again.tried:
            verdict = self._of_rejected_again(permit, permit.again.tried)
        if verdict.failure is None:
            self._patience.anew()
        else:
            self._pulse.last_failure = f"HTTP {outcome.status}"
        self._tell_breakers(permit, verdict, now, outcome.status)
        is_limited, heard = verdict.means is Means.LIMITED, NOTHING
        if told or is_limited or key.budget.told is not None:
            heard = self._hear(permit, outcome, told, now, limited=is_limited)
        wait = NO_WAIT
        if verdict.means in (Means.LIMITED, Means.AGAIN):
            wait = self._wait(key, outcome, verdict, fields, wall_now)
        if is_limited:
            self._limited(permit, outcome.status, wait, told, now, heard)
        return verdict, wait.length or 0

    def _hear(self, permit: Permit, answer: Answer, told: Sequence[Hint], now: int, *, limited: bool) -> Heard:
        """What the answer's hints do. Returns what came of them."""
        budget = permit.key.budget
        held_until = now if budget.told is None else budget.told.held_until(now)
        heard = hear(permit, told, min(answer.answered_at, now), now, limited=limited)
        for owner, change in heard.changed:
            if owner.is_changed(change, now):
                self._scheduler.judged(owner, now)
            if owner.budget.told is not None:
                for limit, most in owner.budget.told.newly_lower():
                    self.tell(LimitLower(permit.key.key.label, lower(most, limit)))
        if heard.named:
            self._named(permit, answer, heard.named, now, limited=limited)
        words = budget.told
        if words is None or not (words.has_words or held_until > now):
            return heard
        if words.held_until(now) < held_until:
            self._scheduler.judged(permit.key, now)  # it was to be looked at when the old word ends
        if held_until <= now and (nothing := words.nothing_left(now)):
            name, _, until = nothing[0]
            self._tell_spent(permit.key, until, answer.status, nothing_left(name), now)
        return heard

    def _tell_spent(self, key: KeyState, until: int, status: int, why: str, now: int) -> None:
        """Nothing is left of a limit that isn't configured."""
        last = key.spent_told_at
        again = last is not None and now - last < SAME_NEWS
        key.spent_told_at = last if again else now
        self.tell(KeyBlocked(key.key.label, until - now, status, why, again=again))

    def _named(self, permit: Permit, answer: Answer, named: Sequence[Hint], now: int, *, limited: bool) -> None:
        """Limits of some calls only were told of."""
        key, resources = permit.key, self._scheduler.resources
        path = permit.batch.call_at(permit.place).path
        for hint in named:
            resources.learn(path, hint.resource)
            if not is_short(hint, permit):
                resources.left(key.index, hint.resource, permit.taken_at)
            elif not limited:  # else when the wait was read
                self._used_up(permit, hint.resource, answer.status, hint.reset_in or 0, now)

    def _used_up(self, permit: Permit, name: str, status: int, wait: int, now: int) -> None:
        """Nothing is left of what the upstream calls so."""
        key = permit.key
        until, is_new = self._scheduler.resources.used_up(key.index, name, permit.taken_at, now, wait)
        if is_new:
            self._tell_spent(key, until, status, only_named(name), now)

    def _of_rejected_again(self, permit: Permit, tried: int) -> Verdict:
        """Of a call that other keys had rejected before: one caller's forbidden calls must not open every breaker."""
        # Since it rejected this call, not since it last rejected any: it may be given others of the kind all along.
        since = permit.again.since if permit.again is not None else 0
        if any(key.breaker.has_worked_since(since) for key in self._scheduler.keys if tried >> key.index & 1):
            return FORBIDDEN
        if permit.key.breaker.is_probe(permit.key_era):
            return REJECTED
        self._rejections.rejected_too(permit.key.index, (permit.batch.id, permit.place))
        permit.key.breaker.doubted()
        return REJECTED_AGAIN

    def _wait(
        self, key: KeyState, answer: Answer, verdict: Verdict, fields: AnswerFields | None, wall_now: datetime
    ) -> Wait:
        """The explicit wait that the answer tells."""
        name, texts = "", list[str]()
        if verdict.wait is not None and fields is not None:
            name, texts = str(verdict.wait), fields.texts(verdict.wait)
        wait = told_wait(answer.headers, wall_now, name, texts, key.key.secret)
        if wait.unread:
            self._pulse.malformed += 1
            if not key.unread_told:
                key.unread_told = True
                self.tell(WaitUnread(key.key.label, wait.unread))
        return wait

    def says_nothing(self, permit: Permit, now: int) -> None:
        """The attempt ended by our own doing: it was cancelled, or kept back."""
        self._tell_breakers(permit, KEPT_BACK, now)

    def _limited(self, permit: Permit, status: int, wait: Wait, told: Sequence[Hint], now: int, heard: Heard) -> None:
        key = permit.key
        if wait.length is None:
            wait = reset_wait(hint.reset_in or 0 for hint in told if not hint.remaining)
        cause = limited(status, wait.length, wait.source)
        if not heard.explained and (spent := [hint for hint in heard.named if is_short(hint, permit)]):
            for hint in spent:  # calls of other names go on
                self._used_up(permit, hint.resource, status, wait.length or 0, now)
            return
        for owner in blamed(permit, told):
            if owner.refused(permit.taken_at, now, wait.length, cause, known=heard.known):
                self._tell_block(key, owner, status, now)
            if owner.budget.told is not None and owner.block is not None and owner.block.told:
                owner.budget.told.waits_until(owner.block.until)
            self._scheduler.judged(owner, now)
        if heard.explained:  # others took what it would have needed, and that is counted now
            return
        # Every limit was kept by our count, and yet it was refused: the limit is lower than we know.
        less = cut(permit, told, now)
        if less is not None:
            self._pulse.cuts += 1
            self.tell(LimitCut(key.key.label, str(less)))

    def _tell_block(self, key: KeyState, owner: KeyState | GroupState, status: int, now: int) -> None:
        block = owner.block
        assert block is not None
        group, paths = tuple[str, ...](), tuple[str, ...]()
        if isinstance(owner, GroupState):
            paths = owner.paths
            group = tuple(one.key.label for one in owner.members) if len(owner.members) > 1 or not paths else ()
        again = block.since < now
        self.tell(KeyBlocked(key.key.label, block.until - now, status, block.cause, group, paths, again))

    def _tell_breakers(self, permit: Permit, verdict: Verdict, now: int, status: int = 0) -> None:
        key, label, changed = permit.key, permit.key.key.label, False
        for one in permit.owners if key.block or permit.shares else ():
            worked = verdict.key is KeyVerdict.WORKS and one.worked(permit, now)
            if worked or (one.block is not None and one.block.ended(permit)):
                self._scheduler.judged(one, now)
        match verdict.key:
            case KeyVerdict.UNSEEN:
                changed = key.breaker.abandoned(now, permit.key_era)
            case KeyVerdict.WORKS:
                if permit.key_era == key.breaker.era:
                    self._others_are_excused(key, now)
                if changed := key.breaker.succeeded(now, permit.key_era):
                    if key.shared is not None:
                        key.shared.accepted(now)
                    self.tell(KeyAccepted(label))
            case KeyVerdict.REJECTED:
                key.rejected_with = status
                if permit.key_era == key.breaker.era:
                    self._rejections.charged(key.index, (permit.batch.id, permit.place))
                alone = permit.again is None or not permit.again.tried
                if changed := key.breaker.failed(now, permit.key_era, alone=alone):
                    if key.shared is not None:
                        key.shared.rejected(status, key.breaker.until, now)
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

    def _others_are_excused(self, key: KeyState, now: int) -> None:
        """The key works: what it rejected is forbidden, and no other key is to blame for it."""
        for index, failures in self._rejections.worked(key.index):
            other = self._scheduler.keys[index]
            if other.breaker.excused(failures):
                if other.shared is not None:
                    other.shared.accepted(now)
                self.tell(KeyAccepted(other.key.label))
                self._scheduler.judged(other, now)
