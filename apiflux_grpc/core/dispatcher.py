"""One pool at work: the one face of the core. Whoever drives it has the clock, the network and the readers.

Rule: a coordinator without arithmetic. Whose turn it is, with which key, is the scheduler's; what an outcome means is
verdict.py's; when a call is tried again is retry.py's. Here they are applied, in one order, for every driver: the
engine's pump, `apiflux plan` and the tests over virtual time.

How it is driven. Every method takes `now`, ns of one monotonic clock that never goes back. A pass is

    result = settle(permit, outcome, ...)         of each attempt that ended; deliver it, unless it is None
    permits, wake_at = assign(now, most)          begin each; sent(permit, at) when it is written
    ask again at wake_at, or when anything else has happened
    take_events()                                 tell the observers

`room(batch)` is said when the reader has room for more results, and `tick(now)` comes about once a second. What is
returned is to be delivered, in that order; a batch whose `finished` is true is forgotten here. A call is accounted in
one place only, `settle`: one never sent is refunded, one that was sent stays charged, and if its upstream can't say
when, the moment the attempt ended counts as its sending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.batch import REASONS, Again, Batch, Ending
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.comeback import Moment, comeback, next_of
from apiflux_grpc.core.cost import cost_of
from apiflux_grpc.core.demand import PoolDemand
from apiflux_grpc.core.endings import Ended, Endings
from apiflux_grpc.core.events import KeyPaused, KeyResumed, NothingUsable, SecretChanged
from apiflux_grpc.core.fields import AnswerFields
from apiflux_grpc.core.forecast import Forecast
from apiflux_grpc.core.health import Health
from apiflux_grpc.core.info import pool_snapshot
from apiflux_grpc.core.outcome import Answer, Cause, NotSent, Reason, Result
from apiflux_grpc.core.outlook import mean_cost
from apiflux_grpc.core.outlooks import Outlooks
from apiflux_grpc.core.pulse import Patience, Pulse
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.core.standings import Standings
from apiflux_grpc.core.turns import work_before
from apiflux_grpc.core.verdict import KeyVerdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from apiflux_grpc.core.batch import FedCall
    from apiflux_grpc.core.borrower import Borrower
    from apiflux_grpc.core.bucket import PacerFactory
    from apiflux_grpc.core.events import Event
    from apiflux_grpc.core.info import PoolSnapshot
    from apiflux_grpc.core.leased import Leasing
    from apiflux_grpc.core.model import Limit, Pool
    from apiflux_grpc.core.outcome import Outcome
    from apiflux_grpc.core.permit import Permit
    from apiflux_grpc.core.slots import SlotBorrower

MOST_LATE: Final = 3  # for each call of a batch, on average; further ones count as attempts


class Dispatcher:
    """The batches and keys of one pool. `make_pacer` None: nothing is paced, and bucket limits can't be."""

    def __init__(
        self, pool: Pool, make_pacer: PacerFactory | None, now: int = 0, leasing: Leasing | None = None
    ) -> None:
        self.pool = pool
        self.scheduler = Scheduler(pool, make_pacer, now, leasing)
        self._endings = Endings(self.scheduler)
        self._open = self._endings.open
        self._pulse = Pulse()
        self._patience = Patience(pool.patience)
        self._health = Health(self.scheduler, self._pulse, self._patience)
        self._reads = pool.cost_from is not None or bool(pool.answers)  # fields of answers
        self._outlooks = Outlooks(
            self.scheduler, self._pulse, lambda now, met: self.forecast(now, coarse=True, met=met)
        )
        self._standings = Standings(self.scheduler, self._pulse, self._outlooks)
        self._draining = False
        self.borrowing = self.scheduler.keyring.borrowing  # None: the pool's budgets are its own
        self._demand = PoolDemand(self.scheduler, self._pulse, self._open)

    # -- batches --------------------------------------------------------------------------------

    def submit(self, batch: Batch, now: int) -> list[Result]:
        """A batch that was admitted. It is INFEASIBLE at once if not even all capacity could make its deadline."""
        if batch.deadline is not None:
            takes = self._at_best(batch, now)
            if takes is None or takes > batch.deadline:
                batch.ending, batch.eta = Ending.INFEASIBLE, takes
                return []
        self._open[batch.id] = batch
        # Before draining is looked at: a batch that ends at once takes the same way out as every other.
        self.scheduler.add(batch, batch.caller_weight)
        return self._endings.end_unsent(batch, Reason.DRAINING, now) if self._draining else []

    def feed(self, batch: Batch, calls: Sequence[FedCall], wrong: Sequence[tuple[int, str]], now: int) -> list[Result]:
        """More calls of a batch that is fed; and (index, what is wrong) of those that can't be made."""
        if batch.ending is Ending.CANCELLED:  # its stream is gone: messages may still have crossed the cancel
            return []
        results = [self._endings.refuse(batch, index, Reason.INVALID_CALL, now, detail) for index, detail in wrong]
        if batch.ending is None:
            batch.feed(calls, now)
            self.scheduler.grow(batch, len(calls))
        else:
            results += [self._endings.refuse(batch, fed.ordinal, REASONS[batch.ending], now) for fed in calls]
        return results

    def end(self, batch: Batch) -> None:
        """No more calls come."""
        batch.closed = True
        self._endings.forget_if_finished(batch)

    def room(self, batch: Batch) -> None:
        """Its reader has room again: `batch.reach` has grown. A batch that is over is ignored."""
        if batch.ending is None and batch.id in self._open:
            self.scheduler.queue.wake(batch)

    def stop(self, batch: Batch, now: int) -> list[Result]:
        """The caller has had enough: what waits ends as STOPPED, what is in flight goes on, no more calls come."""
        results = self._endings.end_unsent(batch, Reason.STOPPED, now)
        self.end(batch)
        return results

    def cancel(self, batch: Batch) -> None:
        """Nobody waits for it: unsent calls are dropped, what is in flight is the driver's to stop."""
        batch.ending = Ending.CANCELLED
        self.scheduler.drop(batch)
        self._endings.forget_if_finished(batch)

    def drain(self, now: int) -> Ended:
        """From now on what was never sent ends as DRAINING; what is in flight goes on."""
        self._draining = True  # what comes from now on ends in the same way, in `submit`
        return [(batch, self._endings.end_unsent(batch, Reason.DRAINING, now)) for batch in list(self._open.values())]

    def change_limits(self, index: int, limits: Sequence[Limit], now: int) -> None:
        """Other limits for the key at this place from now on; what it has spent stays spent."""
        self.scheduler.change_limits(index, limits, now)
        self._outlooks.forget()

    def change_group_limits(self, index: int, limits: Sequence[Limit], now: int) -> None:
        """The same for the group at this place."""
        self.scheduler.keyring.change_group_limits(self.scheduler.groups[index], limits, now)
        self._changed()

    def change_max_in_flight(self, index: int, most: int | None, now: int) -> None:
        """Another bound on the calls in flight of the key at this place, None: none; those that are go on."""
        self.scheduler.keyring.change_max_in_flight(self.scheduler.keys[index], most, now)
        self._changed()

    def _changed(self) -> None:
        self.scheduler.measure()
        self._outlooks.forget()

    # -- administration -------------------------------------------------------------------------

    def pause(self, index: int, now: int) -> None:
        """No call gets the key at this place until it is resumed; those that have it go on. Calls that could go with
        no other wait, however long."""
        key = self.scheduler.keys[index]
        if key.paused_at is None:
            self.scheduler.keyring.pause(key, now)
            self._changed()  # a place that is kept may be on this key
            self._health.tell(KeyPaused(key.key.label))

    def resume(self, index: int, now: int) -> None:
        """Calls may get the key at this place again."""
        key = self.scheduler.keys[index]
        if key.paused_at is not None:
            self.scheduler.keyring.resume(key, now)
            self._outlooks.forget()
            self._health.tell(KeyResumed(key.key.label))

    def rotate(self, index: int, secret: str, now: int) -> None:
        """Another secret for the key at this place, for calls that get their permit from now on. What was spent stays
        spent, and what the upstream said of the old secret doesn't count against the new one."""
        key = self.scheduler.keys[index]
        self.scheduler.keyring.rotate(key, secret, now)
        self._outlooks.forget()
        self._health.tell(SecretChanged(key.key.label))

    # -- the way of a call ----------------------------------------------------------------------

    def assign(self, now: int, most: int) -> tuple[list[Permit], int | None]:
        """Up to `most` permits for now, and when to ask again; None: not before something else happens."""
        return self.scheduler.assign(now, most)

    def ask(self, now: int) -> list[Borrower | SlotBorrower]:
        """Those of its borrowers that have a round to send now, after what `assign` found to be lacking."""
        return [] if self.borrowing is None else self.borrowing.ask(now, self._demand)

    @property
    def expires_at(self) -> int:
        """Not before this has a call waited for as long as the pool lets it; FAR: none waits so."""
        return self._endings.expires_at

    @property
    def wake_at(self) -> int | None:
        """What `assign` last said, and what was told since: when time alone brings something to assign."""
        return self.scheduler.wake_at

    def sent(self, permit: Permit, at: int) -> None:
        """The call's bytes went to the socket at `at`; said at most once."""
        permit.sent_at = at
        self.scheduler.sent(permit, at)

    def settle(self, permit: Permit, outcome: Outcome, now: int, wall_now: datetime, draw: float) -> Result | None:
        """The attempt is over. Returns the call's result; None: it waits to be tried again, or nobody waits for it.

        `wall_now` is for what upstreams tell as a date; `draw`, random in [0, 1), spreads retries.
        """
        # The order matters: the budget first, for what an outcome means for the key is judged on a budget that has it;
        # the call last, for whether it goes back depends on what its key was told.
        batch = permit.batch
        fields = AnswerFields(outcome) if self._reads and isinstance(outcome, Answer) else None
        self._account(permit, outcome, fields, now)
        if self._was_late(permit, outcome):
            self._health.says_nothing(permit, now)
            self._retry(batch, next_of(permit, now, 0), now)
            return None
        label, latency = permit.key.key.label, now - permit.taken_at
        batch.tally.attempted(label, permit.number, latency)
        # We ended it: that nothing came back is our doing and no failure of the upstream's. An answer that came all the
        # same is as good as any for its key.
        if batch.ending is Ending.CANCELLED and not isinstance(outcome, Answer):
            self._health.says_nothing(permit, now)
            self._endings.forget_if_finished(batch)
            return None
        verdict, told = self._health.judge(permit, outcome, fields, now, wall_now)
        if batch.ending is Ending.CANCELLED:
            self._endings.forget_if_finished(batch)
            return None
        if verdict.key is KeyVerdict.REJECTED and permit.key_era < permit.key.secret_era and self._is_no_attempt(batch):
            self._retry(batch, next_of(permit, now), now)  # the key has another secret by now
            return None
        failure = verdict.failure
        # A batch that was stopped, drained or given up lets what is in flight finish, and tries nothing again.
        if failure is not None and batch.ending is None:
            back = comeback(permit, verdict, told, self.scheduler, Moment(now, wall_now, draw))
            if back.again is not None:
                if back.ends:
                    return self._endings.limited(batch, back.again, now, back.ends)
                self._retry(batch, back.again, back.at)
                return None
        index = batch.take_off(permit.place)
        return self._endings.result(
            batch, Result(index, outcome, failure, label, permit.number, permit.queue_time, latency, now)
        )

    def _retry(self, batch: Batch, again: Again, at: int) -> None:
        self.scheduler.retry(batch, again, at)
        self._endings.waits(again)

    def _account(self, permit: Permit, outcome: Outcome, fields: AnswerFields | None, now: int) -> None:
        """What the attempt took of its key's budget."""
        answered_at = actual = None
        if isinstance(outcome, Answer):
            answered_at = outcome.answered_at
            self._pulse.answered(now - permit.taken_at, permit.sent_at, answered_at)
            if self.pool.cost_from is not None and fields is not None:
                actual = cost_of(fields, self.pool.cost_from)
        # The adapter couldn't say when: then it may have gone out as late as now.
        if permit.flight is None and not isinstance(outcome, NotSent):
            self.scheduler.sent(permit, now)
        self.scheduler.settle(permit, now, answered_at, actual)

    def _was_late(self, permit: Permit, outcome: Outcome) -> bool:
        """The connection took too long to open for a bucket's pacer. It is open now: that was no attempt."""
        return isinstance(outcome, NotSent) and outcome.cause is Cause.LATE and self._is_no_attempt(permit.batch)

    def _is_no_attempt(self, batch: Batch) -> bool:
        """Whether a call of it may go again at once, whatever its policy says, for what wasn't its fault."""
        if batch.ending is not None:
            return False
        batch.late += 1
        return batch.late <= MOST_LATE * batch.total

    # -- endings --------------------------------------------------------------------------------

    def tick(self, now: int) -> Ended:
        """What is due about once a second: how batches stand, and the end of patience."""
        ended = self._endings.expire(now)
        if self._patience.is_over(not self._open or self.scheduler.usable(), now, self.scheduler.keyring.guessed_at):
            if self.scheduler.waiting:
                self._health.tell(NothingUsable(self.scheduler.waiting, self._health.why_unusable))
            batches = list(self._open.values())
            ended += [(batch, self._endings.end_unsent(batch, Reason.NO_USABLE_KEY, now)) for batch in batches]
        if self._open:
            self._standings.tell(self._open, now)
        return ended

    # -- what it knows --------------------------------------------------------------------------

    def take_events(self) -> Sequence[Event]:
        """What happened since this was last asked, for observers."""
        events = self._health.take_events()
        return events if self.borrowing is None else [*events, *self.borrowing.store.take_events()]

    def _at_best(self, batch: Batch, now: int) -> int | None:
        """How long (ns) until its last call has its permit if all capacity is its own; None: never."""
        takes = self.forecast(now, at_best=True).permits_for(batch.total, batch.mean_cost)
        for number, calls in self.scheduler.met_by(batch):
            # Nobody knows what those cost alone: counted in calls they take as long at least.
            met = self.scheduler.classes.scopes(number)
            alone = self.forecast(now, at_best=True, met=met).permits_for(calls, 1.0 if batch.costs is None else 0.0)
            takes = None if takes is None or alone is None else max(takes, alone)
        return takes

    def forecast(
        self, now: int, *, coarse: bool = False, at_best: bool = False, met: frozenset[tuple[str, ...]] = frozenset()
    ) -> Forecast:
        """What the keys can do from now on; see Forecast."""
        scheduler = self.scheduler
        scheduler.advance(now)
        return Forecast(
            scheduler.keys,
            now,
            self._pulse.latency,
            scheduler.slots,
            scheduler.groups,
            upstream_at=self._may_go_at(now),
            coarse=coarse,
            at_best=at_best,
            met=met,
        )

    def _may_go_at(self, now: int) -> int:
        """When calls may go whatever their key; FAR: nobody knows."""
        is_silent = self.borrowing is not None and self.borrowing.store.is_silent
        return FAR if is_silent else self.scheduler.breaker.ready_at(now)

    def makespan(self, caller: str, calls: int, cost: float, now: int) -> tuple[int | None, str]:
        """(ns, what binds) for a batch that came now and got its fair share; None: no key will ever have room."""
        # As if it stood in the queue: its share then follows from fair queueing like everybody's.
        guest = Batch(0, caller, calls, admitted_at=now)
        guest.mean_cost = cost
        everyone = [*self._open.values(), guest]
        work = work_before(everyone)[0] if calls > 0 else 0
        forecast, mean = self.forecast(now), mean_cost(everyone)
        return forecast.time_for(work, mean), forecast.binding(work, mean)

    def info(self, now: int, connecting: int | None = None, *, detail: bool = False) -> PoolSnapshot:
        """The state of the pool; with `detail` of every key too. `connecting`: see pool_snapshot."""
        drain_time = self._outlooks.drain_time(self._open, now)
        return pool_snapshot(self.scheduler, self._pulse, drain_time, connecting, now, detail=detail)

    def __repr__(self) -> str:
        return f"<Dispatcher of {self.scheduler!r}: {len(self._open)} batches open>"
