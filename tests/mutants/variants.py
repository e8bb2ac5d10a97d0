"""Broken variants of the package, each with the tests that must notice it.

Rule: one plausible mistake each, in as little text as names it; `old` stands once in its file.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tests.mutants.leases import LEASES

WINDOW: Final = "apiflux_grpc/core/window.py"
BUDGET: Final = "apiflux_grpc/core/budget.py"
ROOM: Final = "apiflux_grpc/core/room.py"
RETRIES: Final = "apiflux_grpc/core/retries.py"
READY: Final = "apiflux_grpc/core/ready.py"
BUCKET: Final = "apiflux_grpc/core/bucket.py"
RESERVATION: Final = "apiflux_grpc/core/reservation.py"
SCHEDULER: Final = "apiflux_grpc/core/scheduler.py"
KEYRING: Final = "apiflux_grpc/core/keyring.py"
QUEUE: Final = "apiflux_grpc/core/fairqueue.py"
BREAKER: Final = "apiflux_grpc/core/breaker.py"
BLOCK: Final = "apiflux_grpc/core/block.py"
ENDINGS: Final = "apiflux_grpc/core/endings.py"
COMEBACK: Final = "apiflux_grpc/core/comeback.py"
HEALTH: Final = "apiflux_grpc/core/health.py"
OF_REFUSALS: Final = ("tests/core/test_refusals.py",)
RETRY: Final = "apiflux_grpc/core/retry.py"
PUMP: Final = "apiflux_grpc/engine/pump.py"
DISPATCHER: Final = "apiflux_grpc/core/dispatcher.py"
VERDICT: Final = "apiflux_grpc/core/verdict.py"
OUTBOX: Final = "apiflux_grpc/engine/outbox.py"
BATCHES: Final = "apiflux_grpc/engine/batches.py"
MAILBOX: Final = "apiflux_grpc/engine/mailbox.py"
FORECAST: Final = "apiflux_grpc/core/forecast.py"
OTHERS: Final = "apiflux_grpc/core/others.py"
HOLDING: Final = "apiflux_grpc/core/holding.py"
PACER: Final = "apiflux_grpc/adapters/pacer.py"
SIMULATION: Final = "apiflux_grpc/plan/simulation.py"
CONNECTION: Final = "apiflux_grpc/adapters/sender/connection.py"
ORIGIN: Final = "apiflux_grpc/adapters/sender/origin.py"
READER: Final = "apiflux_grpc/adapters/sender/reader.py"
REQUESTS: Final = "apiflux_grpc/adapters/http_settings.py"
WORDS: Final = "apiflux_grpc/server/words.py"
START: Final = "apiflux_grpc/cli/start.py"

OF_START: Final = ("tests/cli/test_start.py",)
OF_KEPT: Final = ("tests/adapters/sender/test_kept.py::test_ended_while_the_loop_was_busy",)
OF_STRAYS: Final = ("tests/adapters/sender/test_kept.py::test_stray_on_idle_connections",)
OF_IDLE: Final = ("tests/adapters/sender/test_idle.py",)
OF_WRITE: Final = ("tests/adapters/sender/test_write.py::test_the_kernel_takes_nothing",)
OF_DIALING: Final = ("tests/adapters/sender/test_dialing.py::test_send_by",)
OF_WINDOW: Final = ("tests/core/test_window.py",)
OF_BUDGET: Final = (
    "tests/core/test_budget.py",
    "tests/core/test_bucket.py",
    "tests/core/test_changed_limits.py",
    "tests/core/test_reservation.py",
)
OF_SCHEDULER: Final = (
    "tests/core/test_scheduler.py",
    "tests/core/test_reservation.py",
    "tests/core/test_groups.py",
    "tests/core/test_changed_limits.py",
)
OUTLOOKS: Final = "apiflux_grpc/core/outlooks.py"
OF_OUTLOOKS: Final = ("tests/core/test_outlooks.py",)
BLAME: Final = "apiflux_grpc/core/blame.py"
OF_BLAME: Final = ("tests/core/test_blame.py",)
OF_PATHS: Final = ("tests/core/test_path_limits.py",)
OF_WAKING: Final = ("tests/core/test_waking.py",)
OF_QUEUE: Final = ("tests/core/test_fairqueue.py",)
OF_BREAKER: Final = ("tests/core/test_breaker.py",)
OF_RETRY: Final = ("tests/core/test_retry.py",)
OF_MAILBOX: Final = ("tests/engine/test_mailbox.py",)
OF_ENGINE: Final = ("tests/engine/test_engine.py",)
NOTICED: Final = ("tests/mutants/test_noticed.py",)
OF_FORECAST: Final = ("tests/core/test_forecast.py",)
OF_WAITING: Final = ("tests/core/test_waiting.py",)
OF_HOLDING: Final = ("tests/core/test_holding.py",)
CHECKS: Final = "apiflux_grpc/core/checks.py"
OF_SIMULATION: Final = ("tests/plan/test_simulation.py",)
OF_BINDING: Final = ("tests/plan/test_binding.py",)
OF_WIRE: Final = ("tests/server/test_wire.py",)
OF_STREAM: Final = ("tests/server/test_process_stream.py",)
OF_SELECTION: Final = ("tests/jobs/test_selection.py",)
OF_URLS: Final = ("tests/jobs/test_urls.py",)
# One that waits for it in real time: on virtual time its absence is an endless loop.
OF_CANCEL: Final = ("tests/server/test_cancelling.py",)


class Variant(NamedTuple):
    """`old` becomes `new` in `file`, and one of `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


VARIANTS: Final = (
    # -- the window -------------------------------------------------------------------------------
    Variant(
        "a slot comes back one ns early",
        WINDOW,
        "while log and log[0][0] <= now:",
        "while log and log[0][0] <= now + 1:",
        OF_WINDOW,
    ),
    Variant("no margin for drift", WINDOW, "self.kept = per + per // DRIFT + 1", "self.kept = per", OF_WINDOW),
    Variant(
        "a group ends with its first member",
        WINDOW,
        "if end > tail[0]:\n                    tail[0] = end",
        "if end < tail[0]:\n                    tail[0] = end",
        OF_WINDOW,
    ),
    Variant("groups without end", WINDOW, "if end - tail[2] <= self.span:", "if True:", OF_WINDOW),
    Variant(
        "an overrun of long ago never ends",
        WINDOW,
        "            self.used += difference\n            self.record(now, difference)",
        "            self.used += difference",
        OF_WINDOW,
    ),
    Variant(
        "what has ended is given back again",
        WINDOW,
        "        elif difference > 0:",
        "        elif difference:",
        OF_WINDOW,
    ),
    Variant(
        "every refusal cuts",
        WINDOW,
        "if self.cut_at >= 0 and (taken_at <= self.cut_at or now < self.cut_at + self.per):",
        "if False:",
        OF_WINDOW,
    ),
    Variant("a cut down to nothing", WINDOW, "max(1, int(self.max * CUT))", "int(self.max * CUT)", OF_WINDOW),
    Variant("an heir forgets what is on its way", WINDOW, "        new.used += pending\n", "", OF_WINDOW),
    Variant("what can't be known is free", WINDOW, "            if unknown:", "            if False:", OF_WINDOW),
    Variant(
        "an heir of an heir thinks that it knows all",
        WINDOW,
        "return max(self.since, now - self.kept)",
        "return now - self.kept",
        OF_BUDGET,
    ),
    Variant(
        "an heir ends slots as the old window would",
        WINDOW,
        "new._log.append([end + longer, amount, first + longer])",
        "new._log.append([end, amount, first])",
        OF_WINDOW,
    ),
    # -- the budget -------------------------------------------------------------------------------
    Variant(
        "a hanging call is kept without J",
        BUDGET,
        "return flight.last + self.jitter + self.kept\n\n    def answered",
        "return flight.last + self.kept\n\n    def answered",
        OF_BUDGET,
    ),
    Variant(
        "flights land before their J",
        BUDGET,
        "while flights and flights[0].last + self.jitter <= now:",
        "while flights and flights[0].last <= now:",
        OF_BUDGET,
    ),
    Variant(
        "flights land at their first member's instant",
        BUDGET,
        "instant = flight.last + self.jitter",
        "instant = flight.first + self.jitter",
        OF_BUDGET,
    ),
    Variant(
        "what wasn't sent is given back twice",
        BUDGET,
        "        for window in self.windows:\n            window.used -= 1",
        "        for window in self.windows:\n            window.used -= 2",
        OF_BUDGET,
    ),
    Variant(
        "a cost goes where anything is free",
        BUDGET,
        "if window.used + cost > window.max:",
        "if window.used >= window.max:",
        OF_BUDGET,
    ),
    Variant(
        "a bucket as deep as the upstream's",
        BUCKET,
        "depth = limit.depth - flow",
        "depth = float(limit.depth)",
        OF_BUDGET,
    ),
    Variant(
        "spaced without J",
        BUCKET,
        "return 1.0, (1 + (1 - limit.depth + flow) / limit.depth) / rate",
        "return 1.0, 1 / rate",
        OF_BUDGET,
    ),
    Variant(
        "a bucket starts afresh after a change",
        BUCKET,
        "self._pacer.fill(level, now)\n\n    def headroom",
        "self._pacer.fill(0.0, now)\n\n    def headroom",
        OF_BUDGET,
    ),
    Variant(
        "what is told of a limit without effect",
        BUDGET,
        "wait = max(wait, self.told.wait(cost, now))",
        "pass",
        ("tests/engine/test_what_the_upstream_says.py",),
    ),
    Variant(
        "an overrun isn't charged",
        BUDGET,
        "            window.used += more\n            end = window.record(at, cost + more)",
        "            end = window.record(at, cost)",
        OF_BUDGET,
    ),
    Variant(
        "room without what was never sent",
        ROOM,
        "return now + budget.jitter + window.kept  # not sent yet",
        "return now  # not sent yet",
        OF_BUDGET,
    ),
    Variant("a reservation counts itself as spare", ROOM, "max(0, free - amount)", "max(0, free)", OF_BUDGET),
    # -- the scheduler ----------------------------------------------------------------------------
    Variant(
        "small ones pass as they like",
        RESERVATION,
        "return all(left[0] >= 1 and left[1] >= cost for left in self._met(seat))",
        "return True",
        OF_SCHEDULER,
    ),
    Variant(
        "what passed isn't counted",
        RESERVATION,
        "            left[1] -= cost",
        "            left[1] -= 0",
        OF_SCHEDULER,
    ),
    Variant("a block may be shortened", BLOCK, "if until > self.until:", "if True:", OF_SCHEDULER),
    Variant(
        "one more in flight than allowed",
        KEYRING,
        "if key.in_flight < key.most and not probing:",
        "if key.in_flight <= key.most and not probing:",
        OF_SCHEDULER,
    ),
    Variant(
        "a group isn't charged",
        KEYRING,
        "                other.budget.take(cost)\n",
        "                pass\n",
        OF_SCHEDULER,
    ),
    Variant(
        "members aren't woken with their group",
        KEYRING,
        "            self._relist_members(one, now)\n",
        "            pass\n",
        OF_SCHEDULER,
    ),
    Variant(
        "a retry before its time",
        RETRIES,
        "while heap and heap[0][0] <= now:",
        "while heap and heap[0][0] <= now + 1:",
        OF_SCHEDULER,
    ),
    Variant(
        "wakes up one ns late",
        KEYRING,
        "self._alarms.set(one, max(change, now + 1))",
        "self._alarms.set(one, max(change, now) + 1)",
        (*OF_SCHEDULER, "tests/core/test_scheduler_machine.py"),
    ),
    Variant(
        "the key with most calls left, not the largest share",
        READY,
        "heappush(self.heap, (-share,",
        "heappush(self.heap, (-float(free),",
        OF_SCHEDULER,
    ),
    Variant(
        "a dropped batch leaves its retries",
        RETRIES,
        "        self._heap = [entry for entry in self._heap if entry[2] is not batch]\n",
        "",
        OF_SCHEDULER,
    ),
    Variant(
        "a change forgets what was spent",
        KEYRING,
        "key.budget = key.budget.changed(_of(limits, ()), now)",
        "key.budget = self._budget(_of(limits, ()))",
        OF_SCHEDULER,
    ),
    Variant(
        "sizes as before the change",
        SCHEDULER,
        "        self._measure()\n        for number",
        "        for number",
        OF_SCHEDULER,
    ),
    Variant(
        "usable though the upstream fails",
        SCHEDULER,
        "return self.breaker.state is State.CLOSED and any(",
        "return any(",
        OF_SCHEDULER,
    ),
    # -- limits with paths --------------------------------------------------------------------------
    Variant(
        "an endpoint's limit holds back all",
        "apiflux_grpc/core/classqueue.py",
        "        self._classes[number].closed = True\n        return True\n",
        "        return False\n",
        OF_PATHS,
    ),
    Variant(
        "a group's limit with paths isn't paid",
        KEYRING,
        "            others += [state for paths, state in key.group_scoped.items() if paths in met]\n",
        "",
        (*OF_PATHS, "tests/core/test_path_limits_machine.py"),
    ),
    Variant(
        "a path is compared as it was written",
        "apiflux_grpc/core/classes.py",
        "        path = decoded(path)\n",
        "",
        OF_PATHS,
    ),
    Variant(
        "calls wait for ever for those that were fed",
        "apiflux_grpc/core/lanes.py",
        "            self.next = self.marks.find(self.number, first)",
        "            pass",
        (*OF_PATHS, "tests/core/test_path_limits_machine.py"),
    ),
    Variant(
        "what waits for a closed class banks credit",
        "apiflux_grpc/core/classqueue.py",
        "caller.finish = max(self._virtual, caller.finish) + both[1]",
        "caller.finish += both[1]",
        OF_PATHS,
    ),
    # -- whose limit it was -----------------------------------------------------------------------
    Variant(
        "a refusal for an endpoint's limit blocks the key",
        BLAME,
        "owners.pop() if len(owners) == 1 else permit.key",
        "permit.key",
        OF_BLAME,
    ),
    Variant(
        "a hint that something is left names its limit",
        BLAME,
        "for hint in told if is_short(hint, permit))",
        "for hint in told)",
        OF_BLAME,
    ),
    Variant(
        "the block of a shared limit never ends by a success",
        HEALTH,
        "for one in permit.owners if key.block or permit.shares else ():",
        "for one in (key,):",
        ("tests/core/test_refusals.py",),
    ),
    Variant(
        "only limits of all calls are cut",
        BLAME,
        "for owner in permit.owners\n        for place",
        "for owner in permit.key.owners\n        for place",
        OF_BLAME,
    ),
    Variant(
        "what holds an endpoint back isn't told",
        HOLDING,
        "for one in key.path_owners:",
        "for one in ():",
        OF_BLAME,
    ),
    # -- when calls of some paths will be done ----------------------------------------------------
    Variant(
        "an eta leaves out limits with paths",
        OUTLOOKS,
        "for number, waiting in self._narrower(batches):\n            for id, calls",
        "for number, waiting in ():\n            for id, calls",
        OF_OUTLOOKS,
    ),
    Variant(
        "an eta of a wider limit leaves out the paths within it",
        "apiflux_grpc/core/classes.py",
        "if least <= scopes) for least",
        "if least == scopes) for least",
        OF_OUTLOOKS,
    ),
    Variant(
        "an eta overlooks the block of searches",
        FORECAST,
        "return at if state.block is None else max(",
        "return at if True else max(",
        OF_OUTLOOKS,
    ),
    # -- turns ------------------------------------------------------------------------------------
    Variant("virtual time stands still", QUEUE, "self._virtual = start", "self._virtual = 0.0", OF_QUEUE),
    Variant(
        "a batch banks credit while it idles",
        QUEUE,
        "batch.finish = max(caller.virtual, batch.finish)",
        "pass",
        OF_QUEUE,
    ),
    Variant(
        "an overrun costs no turn",
        QUEUE,
        "        batch.owed += size\n        caller = ",
        "        caller = ",
        OF_QUEUE,
    ),
    Variant(
        "weights without effect",
        QUEUE,
        "batch.finish = finish = batch_start + both[0] / batch.weight",
        "batch.finish = finish = batch_start + both[0]",
        OF_QUEUE,
    ),
    # -- breakers and retries ---------------------------------------------------------------------
    Variant(
        "any number of probes",
        BREAKER,
        "return FAR if self._probing else self._until",
        "return self._until",
        OF_BREAKER,
    ),
    Variant(
        "a probe given up is never replaced",
        BREAKER,
        "        if not self.is_probe(era):",
        "        if True:",
        OF_BREAKER,
    ),
    Variant(
        "cool-downs don't double", BREAKER, "min(2 * self._cool_down, self._longest)", "self._cool_down", OF_BREAKER
    ),
    Variant(
        "what may have run is sent again",
        RETRY,
        "if not idempotent and reason not in NOT_EXECUTED:",
        "if False:",
        (*OF_RETRY, *OF_ENGINE),
    ),
    Variant(
        "a refusal costs an attempt",
        COMEBACK,
        "    again.avoid |= 1 << key.index\n",
        "    again.avoid |= 1 << key.index\n    again.charged += 1\n",
        OF_REFUSALS,
    ),
    Variant(
        "all calls come back after a guess",
        BLOCK,
        "FAR if self.probing and self.until",
        "FAR if False and self.until",
        OF_REFUSALS,
    ),
    Variant(
        "refusals in flight double the guess", BLOCK, "return taken_at <= self.renewed", "return False", OF_REFUSALS
    ),
    Variant(
        "a rejected call tries a key again",
        COMEBACK,
        "            again.avoid |= again.tried\n",
        "",
        OF_REFUSALS,
    ),
    Variant(
        "patience ends between two probes",
        "apiflux_grpc/core/pulse.py",
        "return now >= end and (refused_at is None or refused_at >= end)",
        "return now >= end",
        OF_REFUSALS,
    ),
    # -- the engine -------------------------------------------------------------------------------
    Variant(
        "a call that was sent is refunded",
        DISPATCHER,
        "if permit.flight is None and not isinstance(outcome, NotSent):",
        "if False:",
        NOTICED,
    ),
    Variant(
        "a cancel lets attempts go on",
        PUMP,
        "        for attempt in list(outbox.attempts):\n            self.upstream.cancel(attempt)\n"
        "        self._deliver",
        "        self._deliver",
        OF_CANCEL,
    ),
    Variant(
        "nobody wakes up for a call that hangs",
        PUMP,
        "            self._set_timer(at)  # its slot comes back by itself, answer or not",
        "            pass",
        OF_ENGINE,
    ),
    Variant(
        "a retry that may have run says that it never did",
        ENDINGS,
        "never_ran = not made or not batch.call_at(again.place).idempotent",
        "never_ran = True",
        ("tests/core/test_dispatcher.py",),
    ),
    Variant(
        "room wakes a batch that is forgotten",
        DISPATCHER,
        " and batch.id in self._open:",
        ":",
        ("tests/core/test_dispatcher.py",),
    ),
    Variant(
        "a batch that is over keeps its request",
        ENDINGS,
        "            batch.let_go()",
        "            # batch.let_go()",
        ("tests/core/test_dispatcher.py",),
    ),
    Variant(
        "an ordered batch is stuck behind its own results",
        OUTBOX,
        "            if reach <= batch.done:",
        "            if False:",
        OF_ENGINE,
    ),
    Variant(
        "a told wait is forgotten",
        COMEBACK,
        "now + max(wait, told)",
        "now + wait",
        ("tests/core/test_dispatcher.py",),
    ),
    Variant(
        "a 5xx shows that its key works",
        VERDICT,
        "_class_of(status), KeyVerdict.UNSEEN, upstream,",
        "_class_of(status), KeyVerdict.WORKS, upstream,",
        ("tests/core/test_verdict.py",),
    ),
    Variant(
        "an outlook counts from the wrong permit",
        "apiflux_grpc/core/outlook.py",
        "self._curve.reaches(assigned - self._assigned + calls)",
        "self._curve.reaches(calls)",
        ("tests/core/test_forecast.py",),
    ),
    Variant(
        "a drain takes new work",
        DISPATCHER,
        "        self._draining = True  # what comes",
        "        # what comes",
        NOTICED,
    ),
    Variant(
        "the grace has no end",
        PUMP,
        "    def cut(self) -> None:",
        "    def cut(self) -> None:\n        return\n",
        OF_ENGINE,
    ),
    Variant(
        "a result takes no place",
        OUTBOX,
        "self.stored += 1",
        "self.stored += 0",
        OF_ENGINE,
    ),
    Variant(
        "an outbox that never starts",
        OUTBOX,
        "-(-(self.bytes_bound - self.held) // self.expect)",
        "(self.bytes_bound - self.held) // self.expect",
        OF_ENGINE,
    ),
    Variant(
        "no credit for what was read",
        OUTBOX,
        "        self.stored -= results\n",
        "",
        OF_ENGINE,
    ),
    Variant("a crash says nothing", BATCHES, "        self._post(Down(error_id))\n", "", OF_ENGINE),
    Variant(
        "health without an echo",
        "apiflux_grpc/engine/watchdog.py",
        "                self._set(False)\n\n    def _set",
        "                pass\n\n    def _set",
        ("tests/engine/test_watchdog.py",),
    ),
    Variant(
        "a mailbox that disarms too late",
        MAILBOX,
        "        self._armed = False\n        queue, handle = self._queue, self._handle\n"
        "        for _ in range(len(queue)):\n            handle(queue.popleft())",
        "        queue, handle = self._queue, self._handle\n"
        "        for _ in range(len(queue)):\n            handle(queue.popleft())\n        self._armed = False",
        OF_MAILBOX,
    ),
    # -- found later --------------------------------------------------------------------------------
    Variant(
        "a bucket gives back for calls from before its time",
        BUCKET,
        "if taken_at <= self.since:",
        "if taken_at < 0:",
        ("tests/core/test_bucket.py",),
    ),
    Variant(
        "a window's pacer keeps what a call was charged too much",
        BUDGET,
        "            if more < 0:",
        "            if more < 0 and not self.kept:",
        ("tests/core/test_budget.py",),
    ),
    Variant(
        "the judge counts more tokens than a client can know of",
        "apiflux_grpc/judge/apis/tokens.py",
        "1 + asked.seed % max(1, min(most, LONGEST))",
        "2 + asked.seed % max(1, min(most, LONGEST))",
        ("tests/judge/apis",),
    ),
    Variant(
        "what an API refuses takes as much as a call that it answers",
        "apiflux_grpc/judge/speaking.py",
        "            return Heard(0, self._api.missing(lacks))",
        "            return Heard(1, self._api.missing(lacks))",
        ("tests/judge/apis",),
    ),
    Variant(
        "a judge that speaks an API counts calls where it should count tokens",
        "apiflux_grpc/judge/request.py",
        "            self._admit(self.heard.cost)",
        "            self._admit(1)",
        ("tests/judge/apis",),
    ),
    Variant(
        "the judge stamps a call when it is parsed",
        "apiflux_grpc/judge/connection.py",
        "self._chunks.append((stamp, data))",
        "self._chunks.append((0, data))",
        ("tests/judge/test_backlog.py",),
    ),
    Variant(
        "a bucket's debt has no end",
        BUCKET,
        "min(most, self._pacer.level(now) + more)",
        "self._pacer.level(now) + more",
        OF_FORECAST,
    ),
    Variant(
        "a deadline is refused for a probe that is out",
        FORECAST,
        "return self.now if self._at_best and at >= FAR else at",
        "return at",
        OF_FORECAST,
    ),
    Variant(
        "nobody waits for the upstream's next try",
        FORECAST,
        "at = max(self._certain(key.usable_at(self.now)), self._certain(self._upstream_at))",
        "at = self._certain(key.usable_at(self.now))",
        OF_FORECAST,
    ),
    Variant(
        "a told wait that is over holds a key back",
        HOLDING,
        "if block.until <= now and not block.ends_by_probe:",
        "if False:",
        OF_HOLDING,
    ),
    Variant(
        "one call finds out after a refusal that others explain",
        BLOCK,
        "return not self.told and not self._known",
        "return not self.told",
        ("tests/core/test_full_use.py",),
    ),
    Variant(
        "an answer that comes after a period says what is left",
        OTHERS,
        "if now - word.sent_at > self._lasts:",
        "if False:",
        ("tests/core/test_full_use.py",),
    ),
    Variant(
        "what others had used up holds beyond the wait that was told",
        OTHERS,
        "self._doubted_at = at",
        "self._doubted_at = FAR",
        ("tests/core/test_refusals.py",),
    ),
    Variant(
        "what long calls leave to others they never get back",
        OTHERS,
        "window.others - self._step))",
        "window.others))",
        ("tests/core/test_full_use.py",),
    ),
    Variant(
        "a rejected call that waits for a busy key spins",
        SCHEDULER,
        "(now // LOOK_AGAIN + 1) * LOOK_AGAIN",
        "now + 1",
        OF_WAKING,
    ),
    Variant(
        "a reserved place outlives its batch",
        SCHEDULER,
        "        self._let_go_of(batch)  # the call",
        "        # the call",
        OF_WAKING,
    ),
    Variant(
        "a newer word leaves its key held back",
        HEALTH,
        "words.held_until(now) < held_until:",
        "words.held_until(now) < 0:",
        OF_WAKING,
    ),
    Variant(
        "the end of a word wakes nobody",
        "apiflux_grpc/core/told.py",
        "wait = max(wait, word.ends_at)",
        "return FAR",
        OF_WAKING,
    ),
    Variant(
        "a word that has ended holds back",
        "apiflux_grpc/core/told.py",
        "word.ends_at > now and word.spent",
        "word.spent",
        OF_WAKING,
    ),
    Variant(
        "a resource that is used up holds back all calls",
        "apiflux_grpc/core/resources.py",
        "names = self._names.get(_segment(path), ())\n        return sum",
        "names = {name: None for one in self._names.values() for name in one}\n        return sum",
        ("tests/core/test_hearing.py",),
    ),
    Variant(
        "calls of a resource that is used up go on",
        SCHEDULER,
        "avoid | spent, held)\n        if seat is None and avoid",
        "avoid, held)\n        if seat is None and avoid",
        ("tests/core/test_hearing.py",),
    ),
    Variant(
        "calls of a resource come back all at once",
        "apiflux_grpc/core/resources.py",
        "return at + (spent[name].line - 1) * spent[name].step",
        "return at",
        ("tests/core/test_hearing.py", "tests/core/test_resources.py"),
    ),
    Variant(
        "a lower limit of the upstream's is ignored",
        OTHERS,
        "max(word.max, window.nominal)",
        "word.max",
        ("tests/core/test_full_use.py", "tests/core/test_holding.py"),
    ),
    Variant(
        "a key that only slows down is probed",
        HOLDING,
        "words if cause in _SLOWER else held.probed(words)",
        "held.probed(words)",
        OF_HOLDING,
    ),
    Variant(
        "at best others go on taking",
        FORECAST,
        "free = window.nominal - window.used + window.others if at_best else window.free",
        "free = window.free",
        OF_FORECAST,
    ),
    Variant(
        "a key without anything left is usable",
        "apiflux_grpc/core/info.py",
        "blocked_for = max(blocked_for, key.budget.told.held_until(now) - now)",
        "pass",
        OF_HOLDING,
    ),
    Variant(
        "a batch is told the words of the key that is free last",
        HOLDING,
        "_held(min(those,",
        "_held(max(those,",
        OF_HOLDING,
    ),
    Variant(
        "what waits for nothing is told why",
        "apiflux_grpc/core/standings.py",
        "batch.held_by = held_by if batch.waiting else ()",
        "batch.held_by = held_by",
        OF_HOLDING,
    ),
    Variant(
        "every refusal of a block is news",
        "apiflux_grpc/adapters/observe_logs.py",
        "level = logging.DEBUG if again else",
        "level = logging.WARNING if again else",
        ("tests/adapters/test_observe_logs.py",),
    ),
    Variant("a debt is capacity that comes back", FORECAST, "debt = max(0, -free)", "debt = 0", OF_FORECAST),
    Variant(
        "a pacer in debt lets a burst go at its end",
        PACER,
        "self._put(level)\n        if self._limiter",
        "pass\n        if self._limiter",
        ("tests/contract/test_pacer.py",),
    ),
    Variant(
        "a cost that nothing counts never fits",
        BUDGET,
        "self.most_cost = min(costs, default=1 << 64)",
        "self.most_cost = min(costs, default=FAR)",
        OF_BUDGET,
    ),
    Variant(
        "our own lateness opens the upstream's breaker",
        VERDICT,
        "KEPT_BACK if outcome.cause.ours else _NO_ANSWER[Reason.NOT_SENT]",
        "_NO_ANSWER[Reason.NOT_SENT]",
        ("tests/engine/test_what_the_upstream_says.py",),
    ),
    Variant(
        "a stopped stream goes on with what waits",
        DISPATCHER,
        "results = self._endings.end_unsent(batch, Reason.STOPPED, now)",
        "results: list[Result] = []",
        OF_STREAM,
    ),
    Variant(
        "a fault while calls are read is silence",
        "apiflux_grpc/server/feeding.py",
        "except Exception as error:  # whatever it is, the stream's writer must hear of it",
        "except InvalidRequest as error:",
        OF_STREAM,
    ),
    Variant(
        "a duration finer than a nanosecond is rounded",
        "apiflux_grpc/core/units.py",
        "    if rest:",
        "    if rest < 0:",
        ("tests/core/test_units.py",),
    ),
    Variant(
        "a limit of cost is read as one of calls",
        "apiflux_grpc/core/units.py",
        '"cost" if match[3] else "calls"',
        '"calls"',
        ("tests/core/test_units.py",),
    ),
    Variant(
        "the same secret twice is two keys",
        "apiflux_grpc/settings/keys.py",
        "secrets.setdefault(key.secret, index)) != index",
        "secrets.setdefault(key.secret, index)) > index",
        ("tests/settings/test_keys.py",),
    ),
    Variant(
        "a fault hides those of other fields",
        "apiflux_grpc/settings/judging.py",
        "            _cut_out(raw, way)",
        "            raw.clear()",
        ("tests/settings/test_faults.py",),
    ),
    Variant(
        "a preset's rules come before the pool's own",
        "apiflux_grpc/settings/presets.py",
        "[*own, *more]",
        "[*more, *own]",
        ("tests/settings/test_presets.py",),
    ),
    Variant(
        "a rule that leaves something for a later one is said to leave nothing",
        "apiflux_grpc/settings/answers.py",
        "<= set(one.values)",
        "& set(one.values)",
        ("tests/settings/test_answers.py",),
    ),
    Variant(
        "one condition of a rule is enough",
        "apiflux_grpc/core/matching.py",
        "if all(",
        "if not rule.conditions or any(",
        ("tests/core/test_matching.py",),
    ),
    Variant(
        "the pool's word on repeating wins over the call's",
        "apiflux_grpc/server/wire.py",
        "message.idempotent\n        if told\n        else method",
        "message.idempotent\n        or method",
        ("tests/server/test_rules_of_calls.py",),
    ),
    Variant(
        "a cost is rounded down",
        "apiflux_grpc/core/cost_of_call.py",
        "to_integral_value(ROUND_CEILING)",
        "to_integral_value()",
        ("tests/core/test_cost_of_call.py",),
    ),
    Variant(
        "of several names only the first counts",
        "apiflux_grpc/core/cost_of_call.py",
        'in path[0].split("|"):',
        'in path[0].split("|")[:1]:',
        ("tests/core/test_cost_of_call.py",),
    ),
    Variant(
        "the largest bodies are read",
        "apiflux_grpc/core/cost_of_call.py",
        "if len(body) > LARGEST_JSON or not (",
        "if not (",
        ("tests/core/test_cost_of_call.py",),
    ),
    Variant(
        "bodies of too many members cost nothing",
        "apiflux_grpc/core/cost_of_call.py",
        "except TooManyMembers:\n        return Decimal(0), len(body)",
        "except TooManyMembers:\n        return Decimal(0), 0",
        ("tests/core/test_cost_of_call.py",),
    ),
    Variant(
        "a hidden .. passes as a usual path",
        CHECKS,
        "|%(?!2[Ee])[0-9A-Fa-f]",
        "|%[0-9A-Fa-f]",
        OF_WIRE,
    ),
    Variant("an id is used twice", CHECKS, "        self._used.add(id)\n", "", OF_WIRE),
    Variant(
        "allow_paths binds only paths that begin with a slash",
        CHECKS,
        'path if path.startswith("/") else f"/{path}"',
        'path if path.startswith("/") else self._pool.allow_paths[0]',
        OF_WIRE,
    ),
    Variant(
        "a caller's reasons widen the pool's",
        CHECKS,
        "own.reasons & asked if reasons",
        "own.reasons | asked if reasons",
        OF_WIRE,
    ),
    Variant(
        "a stream is read however little was answered",
        "apiflux_grpc/server/feeding.py",
        "ticket.unfinished >= window() or ",
        "",
        OF_STREAM,
    ),
    Variant(
        "a cancel during a blocked write is a fault of ours",
        "apiflux_grpc/server/interceptors.py",
        "elif self._context.cancelled() or isinstance(error, grpc.aio.InternalError):",
        "elif self._context.cancelled():",
        ("tests/server/test_cancelling.py",),
    ),
    Variant(
        "a plan's timers ring to the nanosecond",
        SIMULATION,
        "max(1, -(-(wake_at - now) // MILLISECOND)) * MILLISECOND",
        "wake_at - now",
        OF_SIMULATION,
    ),
    Variant(
        "a plan's patience isn't begun anew",
        SIMULATION,
        "needed = self._impatient or self._unusable(now)",
        "needed = self._unusable(now)",
        OF_SIMULATION,
    ),
    Variant(
        "a plan's upstream answers every attempt of a call the same",
        SIMULATION,
        "self._draws.send(call, permit.number, key.key.label)",
        "self._draws.send(call, 1, key.key.label)",
        OF_SIMULATION,
    ),
    Variant(
        "calls on their way to the engine are still to come",
        "apiflux_grpc/server/wire.py",
        "max(0, standing.expected - total)",
        "max(0, standing.expected - standing.done)",
        ("tests/server/test_progress.py",),
    ),
    Variant(
        "a plan's calls all cost 1",
        SIMULATION,
        "costs=load.costs",
        "costs=None",
        OF_SIMULATION,
    ),
    Variant(
        "a plan's calls have no path",
        SIMULATION,
        "classes=load.path_classes(size, self._dispatcher.scheduler.classes)",
        "classes=None",
        OF_SIMULATION,
    ),
    Variant(
        "a limit of cost is named when the smallest call would fit",
        "apiflux_grpc/plan/bounds.py",
        "lacking = used + cost - self._most",
        "lacking = used + 1 - self._most",
        OF_BINDING,
    ),
    Variant(
        "calls of a limit with paths wait only while their key stands still",
        "apiflux_grpc/plan/binding.py",
        "(held[place].whole if met is None else held[place].with_paths)",
        "held[place].whole",
        OF_BINDING,
    ),
    Variant(
        "a bad line of a plan's file is passed over",
        "apiflux_grpc/jobs/measure.py",
        "if lines.bad:",
        "if lines.bad and not measured.costs:",
        ("tests/jobs/test_measure.py",),
    ),
    Variant(
        "a progress hook that raises is called again",
        "apiflux_grpc/client/hook.py",
        "self._function = None",
        "pass",
        ("tests/client/test_progress.py",),
    ),
    Variant(
        "a progress hook that raises ends the stream",
        "apiflux_grpc/client/hook.py",
        "        except Exception:\n            self._leave()\n            return None",
        "        except NotImplementedError:\n            self._leave()\n            return None",
        ("tests/client/test_progress.py",),
    ),
    Variant(
        "a call without a response has an empty body",
        "apiflux_grpc/client/results.py",
        "return self._answer.body",
        "return self.response.body if self.response is not None else b''",
        ("tests/client/test_answer.py",),
    ),
    Variant(
        "json takes the place of a Content-Type of the caller's",
        "apiflux_grpc/client/calls.py",
        'if kind and not any(name.lower() == "content-type" for name, _ in fields):',
        "if kind:",
        ("tests/client/test_asked.py",),
    ),
    Variant(
        "the judge lets one call too many pass",
        "apiflux_grpc/judge/limits.py",
        "len(stamps) + cost - self._max if",
        "len(stamps) + cost - self._max - 1 if",
        ("tests/judge/test_connection.py",),
    ),
    Variant(
        "the judge has a fixed window last for two",
        "apiflux_grpc/judge/limits.py",
        "else (stamp // per_ns + 1) * per_ns",
        "else (stamp // per_ns + 2) * per_ns",
        ("tests/judge/test_ledger.py",),
    ),
    Variant(
        "the judge forgets what leaked out of a bucket before a late arrival",
        "apiflux_grpc/judge/limits.py",
        "for at in range(place, len(self._stamps)):\n            self._levels[at]",
        "for at in range(place, place + 1):\n            self._levels[at]",
        ("tests/judge/test_ledger.py",),
    ),
    Variant(
        "the judge blames the client for what others spent",
        "apiflux_grpc/judge/ledger.py",
        "own.refusal(now, cost, own.stamps) is None:",
        "own.refusal(now, cost, own.stamps) is not None:",
        ("tests/judge/test_ledger.py",),
    ),
    Variant(
        "the judge tells when more comes back for when all does",
        "apiflux_grpc/judge/telling.py",
        'if self._dialect.resets == "soonest" else left.whole',
        'if self._dialect.resets != "soonest" else left.whole',
        ("tests/judge/test_telling.py",),
    ),
    Variant(
        "the judge takes calls of different bodies for one",
        "apiflux_grpc/judge/request.py",
        "if self._body and not self._call_id:",
        "if self._body and self._call_id:",
        ("tests/judge/test_request.py",),
    ),
    Variant(
        "a late timer of the judge is forgotten",
        "apiflux_grpc/judge/answers.py",
        "            self._answer_due()\n",
        "            self.flush()\n",
        ("tests/judge/test_answers.py",),
    ),
    # -- jobs and the command line ------------------------------------------------------------------
    Variant(
        "a signal while the interpreter ends kills it",
        "apiflux_grpc/cli/signals.py",
        "signal.signal(signum, signal.SIG_IGN)",
        "pass",
        ("tests/e2e/test_process_signals.py::test_signals_while_the_interpreter_ends",),
    ),
    Variant(
        "a call that may have run is sent again",
        "apiflux_grpc/jobs/selection.py",
        "if flags & HANDED and not self._again.is_sent(flags, idempotent):",
        "if flags & HANDED and self._again.is_sent(flags, idempotent):",
        OF_SELECTION,
    ),
    Variant(
        "what may have run is sent again by --retry-failed",
        "apiflux_grpc/jobs/again.py",
        "return bool(flags & DOUBT) and not",
        "return False and not",
        ("tests/jobs/test_again.py",),
    ),
    Variant(
        "--retry-unknown is for every failure",
        "apiflux_grpc/jobs/again.py",
        "bool(self._job.retry_unknown and flags & UNANSWERED)",
        "self._job.retry_unknown",
        ("tests/jobs/test_again.py",),
    ),
    Variant(
        "what may have run before is taken back",
        "apiflux_grpc/jobs/output.py",
        "for key in keys if not self.known[key] & HANDED)",
        "for key in keys)",
        ("tests/jobs/test_state.py",),
    ),
    Variant(
        "a result that waits for its line is lost",
        "apiflux_grpc/jobs/output.py",
        "            self._put_back()\n",
        "",
        ("tests/jobs/test_state.py",),
    ),
    Variant(
        "what isn't sent after all loses its result",
        "apiflux_grpc/jobs/output.py",
        "if self.known[key] & (AGAIN | DOUBT) and not self.is_taken_out(key):",
        "if not key:",
        ("tests/jobs/test_state.py",),
    ),
    Variant(
        "a dry run counts the calls of a job that is done",
        "apiflux_grpc/jobs/selection.py",
        "            self._is_read = True\n            return False",
        "            return False",
        ("tests/e2e/test_process_at_random.py",),
    ),
    Variant(
        "--limit leaves what is behind its last call to another run",
        "apiflux_grpc/jobs/precautions.py",
        "limit = None if is_within_limit else job.limit",
        "limit = job.limit",
        ("tests/e2e/test_process_at_random.py",),
    ),
    Variant(
        "another job's output is taken",
        "apiflux_grpc/jobs/checks.py",
        "or digest == before:",
        "or digest != before:",
        OF_SELECTION,
    ),
    Variant(
        "a note of a call that was not handed over stays",
        "apiflux_grpc/jobs/state.py",
        "os.ftruncate(self._file, size)  # a note",
        "pass  # a note",
        ("tests/jobs/test_state.py",),
    ),
    Variant(
        "a document of a line is made anew",
        "apiflux_grpc/jobs/calls.py",
        "data[carried] = Carried(text[start:end])",
        "data[carried] = Carried(json.dumps(json.loads(text[start:end])))",
        ("tests/jobs/test_lines.py",),
    ),
    Variant(
        "a hole in place of a document is taken for another",
        "apiflux_grpc/jobs/calls.py",
        'if "NaN" not in text and (found',
        "if (found",
        ("tests/jobs/test_documents.py",),
    ),
    Variant(
        "what is no base64 is sent in part",
        "apiflux_grpc/jobs/values.py",
        "if not _BASE64(given):",
        "if False:",
        ("tests/jobs/test_lines.py",),
    ),
    Variant(
        "a line isn't judged by its pool's rules",
        "apiflux_grpc/jobs/checks.py",
        "self._rules = Rules(pool,",
        "self._rules = Rules(ANY_POOL,",
        ("tests/jobs/test_checks.py",),
    ),
    Variant(
        "a call that keeps its result is judged by later rules",
        "apiflux_grpc/jobs/checks.py",
        "return self._known.digest(key) in (0, digest)",
        "return False",
        ("tests/jobs/test_checks.py",),
    ),
    Variant(
        "a cost that is read from a body isn't judged",
        "apiflux_grpc/server/calls.py",
        "faults += checks.read_cost(cost, call.path)",
        "pass",
        ("tests/jobs/test_rules.py",),
    ),
    Variant(
        "--any-method is of no effect",
        "apiflux_grpc/jobs/rules.py",
        "and not self._any_method and",
        "and",
        ("tests/jobs/test_rules.py",),
    ),
    Variant(
        "a key counts for each of its limits that others use",
        HOLDING,
        "count=len(labels))",
        "count=len(those))",
        OF_HOLDING,
    ),
    Variant(
        "a rate is told while the upstream fails",
        "apiflux_grpc/jobs/progress.py",
        "if self._told.rate and not self._is_failing():",
        "if self._told.rate:",
        ("tests/jobs/test_progress.py",),
    ),
    Variant(
        "calls beyond --limit are told to be sent again",
        "apiflux_grpc/jobs/again.py",
        "self.repeated += is_sent and has_turn and idempotent",
        "self.repeated += is_sent and idempotent",
        ("tests/jobs/test_again.py",),
    ),
    Variant(
        "semicolons come before commas",
        "apiflux_grpc/jobs/spreadsheet.py",
        'if self._fits(",", seen, texts) > 1:',
        'if self._fits(",", seen, texts) > 9:',
        ("tests/jobs/test_spreadsheet.py",),
    ),
    Variant(
        "a row of empty cells is a call",
        "apiflux_grpc/jobs/spreadsheet.py",
        "if not text or text.isspace():",
        "if not row:",
        ("tests/jobs/test_spreadsheet.py",),
    ),
    Variant(
        "a column without a name can be used",
        "apiflux_grpc/jobs/template.py",
        "if name and name in columns:\n        return",
        "if name in columns:\n        return",
        ("tests/jobs/test_spreadsheet.py",),
    ),
    Variant(
        "a column's JSON isn't looked at",
        "apiflux_grpc/jobs/template.py",
        "return document(value)",
        "return value",
        ("tests/jobs/test_spreadsheet.py",),
    ),
    Variant(
        "a version is in a batch's url twice",
        "apiflux_grpc/jobs/urls.py",
        "if base[-count:] == segments[:count]:",
        "if False:",
        OF_URLS,
    ),
    Variant(
        "a batch's url leads to another host",
        "apiflux_grpc/jobs/urls.py",
        "_origin(whole) != self._origin or ",
        "",
        OF_URLS,
    ),
    Variant(
        "a line of a batch asks for a stream",
        "apiflux_grpc/jobs/openai_batch.py",
        'if name == "stream" and',
        "if False and",
        ("tests/jobs/test_openai_batch.py",),
    ),
    Variant(
        "results of a batch in an output of another format",
        "apiflux_grpc/jobs/output.py",
        "self._format.name != format.name:",
        "False:",
        ("tests/jobs/test_formats.py",),
    ),
    Variant(
        "a result is nested as deeply as its answer",
        "apiflux_grpc/core/jsontext.py",
        "and depth(text) > DEEPEST",
        "and False",
        ("tests/jobs/test_rows.py",),
    ),
    Variant(
        "a mistake costs what a server makes until it tells of fifty",
        "apiflux_grpc/jobs/ration.py",
        "return self._taken < self._guard.allowed and (",
        "return (",
        ("tests/jobs/test_ration.py", "tests/e2e/test_process_mistakes.py"),
    ),
    Variant(
        "a job ends for calls that were limited",
        "apiflux_grpc/jobs/guard.py",
        "if failure in _OF_WAITING:",
        "if failure in ():",
        ("tests/jobs/test_guard.py",),
    ),
    Variant(
        "wrong keys fail the whole job",
        "apiflux_grpc/jobs/guard.py",
        "how not in (self._alike, _NO_KEY)",
        "how != self._alike",
        ("tests/jobs/test_guard.py",),
    ),
    Variant(
        "a dry run cuts an output",
        "apiflux_grpc/jobs/output.py",
        "if not self._is_peek:\n                self._file.truncate(",
        "if True:\n                self.path.open('a').truncate(",
        ("tests/e2e/test_process_mistakes.py",),
    ),
    Variant(
        "calls in flight cost nothing yet",
        "apiflux_grpc/jobs/ration.py",
        "if self.spent + self._held + cost > self.most:",
        "if self.spent + cost > self.most:",
        ("tests/jobs/test_ration.py",),
    ),
    Variant(
        "the server repeats what was paid for",
        "apiflux_grpc/jobs/precautions.py",
        "return None if self._job.max_cost is None else RETRY",
        "return None",
        ("tests/e2e/test_process_mistakes.py",),
    ),
    Variant(
        "what may have run is ready to be sent again",
        "apiflux_grpc/jobs/failed.py",
        "is_ready=idempotent or _never_ran(result))",
        "is_ready=True)",
        ("tests/jobs/test_failed.py",),
    ),
    Variant(
        "a terminal acts on what an upstream says",
        "apiflux_grpc/jobs/excerpt.py",
        "one if one.isprintable() else _escape(one)",
        "one",
        ("tests/jobs/test_excerpt.py",),
    ),
    # -- the sender -------------------------------------------------------------------------------
    Variant("the kernel isn't asked before reuse", CONNECTION, "and not self._poll.poll(0)", "", OF_KEPT),
    Variant(
        "not sent counts as unknown",
        CONNECTION,
        "return self._transport.get_write_buffer_size() >= self._wire",
        "return False",
        OF_WRITE,
    ),
    Variant(
        "a stray answer stays for the next call",
        CONNECTION,
        "            self._owner.never_again(self)\n            self.abort()\n            return\n",
        "            return\n",
        OF_STRAYS,
    ),
    Variant(
        "written though it is too late",
        ORIGIN,
        "if not exchange.over and exchange.send_by is not None and exchange.send_by < now:",
        "if False:",
        OF_DIALING,
    ),
    Variant("an old connection is taken", ORIGIN, "if now >= until:", "if False:", OF_IDLE),
    Variant(
        "a call that may not run twice takes an old connection",
        ORIGIN,
        "elif not exchange.idempotent and",
        "elif False and",
        OF_IDLE,
    ),
    Variant(
        "the round trip is forgotten",
        "apiflux_grpc/adapters/sender/idle.py",
        "told - margin - round_trip",
        "told - margin",
        OF_IDLE,
    ),
    Variant(
        "the first member of gzip is the whole",
        "apiflux_grpc/adapters/decoding.py",
        "if len(text) == most or not decoder.unused_data:",
        "if True:",
        ("tests/adapters/sender/test_codings.py",),
    ),
    Variant(
        "two codings are taken for chunks",
        READER,
        'return [coding.lower() for coding in self._all(b"transfer-encoding")] == [b"chunked"]',
        'return self._all(b"transfer-encoding")[0].lower() == b"chunked"',
        ("tests/adapters/sender/test_table.py",),
    ),
    # -- lists and words of the contract ----------------------------------------------------------
    Variant(
        "a repeated header goes out once",
        REQUESTS,
        "if lower not in self._ours:",
        "if lower not in self._ours and lower not in spelled:",
        ("tests/adapters/test_request_bytes.py",),
    ),
    Variant(
        "a repeated header goes out in two spellings",
        REQUESTS,
        "spelled.setdefault(lower, name)",
        "spelled.setdefault(lower, name) and name",
        ("tests/adapters/test_request_bytes.py",),
    ),
    Variant(
        "a reason that isn't known is left out",
        WORDS,
        "[_WORDS.get(number, str(number)) for number in reasons]",
        "[_WORDS[number] for number in reasons if number in _WORDS]",
        ("tests/server/test_wire.py",),
    ),
    # -- how a batch stands, and how a job is shown ------------------------------------------------
    Variant(
        "calls that are expected don't count",
        "apiflux_grpc/core/batch.py",
        "return self.waiting + self.to_come",
        "return self.waiting",
        OF_OUTLOOKS,
    ),
    Variant(
        "a rejected key is counted on",
        FORECAST,
        "if key.breaker.state is not State.CLOSED and not self._at_best:",
        "if False:",
        OF_FORECAST,
    ),
    Variant(
        "a rate is that of the whole pool",
        "apiflux_grpc/core/turns.py",
        "its = min(most, total * weight / weights)",
        "its = min(most, total)",
        OF_OUTLOOKS,
    ),
    Variant(
        "what a batch can't use of its share is lost to others",
        "apiflux_grpc/core/turns.py",
        "total, weights = total - its, weights - weight",
        "total, weights = total - total * weight / weights, weights - weight",
        OF_OUTLOOKS,
    ),
    Variant(
        "a call that had a place kept for it isn't charged before its batch's next turn",
        "apiflux_grpc/core/scheduler.py",
        "self.queue.charge_parked(batch, size)",
        "self.queue.owe(batch, size)",
        ("tests/core/test_shares_by_cost.py",),
    ),
    Variant(
        "who fits nowhere banks turns",
        "apiflux_grpc/core/scheduler.py",
        "passed.append((turn, False))",
        "passed.append((turn, True))",
        ("tests/core/test_shares_by_cost.py",),
    ),
    Variant(
        "calls wait for a limit though a key has room",
        "apiflux_grpc/core/waiting.py",
        "        if one is None:\n            return None",
        "        if one is None:\n            continue",
        OF_WAITING,
    ),
    Variant(
        "of a key's limits the first that is spent is told",
        "apiflux_grpc/core/waiting.py",
        "at > latest.at",
        "at < latest.at",
        OF_WAITING,
    ),
    Variant(
        "a rejected key waits for its limit",
        "apiflux_grpc/core/waiting.py",
        "or seat.usable_at(now) > now or",
        "or",
        OF_WAITING,
    ),
    Variant(
        "the first ETA waits for its second",
        "apiflux_grpc/engine/batches.py",
        "if is_news or now",
        "if now",
        ("tests/engine/test_engine.py::test_the_first_eta_comes_within_a_second",),
    ),
    Variant(
        "a new connection expects the calls that are done",
        "apiflux_grpc/client/resume.py",
        "self.header.expected_calls = len(self._accounts.ready) + to_take",
        "pass",
        ("tests/client/test_resumption.py",),
    ),
    Variant(
        "a lost connection is told at every try",
        "apiflux_grpc/client/resume.py",
        "self._is_lost is (error is None):",
        "(error or self._is_lost):",
        ("tests/client/test_resumption.py",),
    ),
    Variant(
        "a time for a part of the calls is told",
        "apiflux_grpc/jobs/progress.py",
        "if told.total + told.to_come < self._to_send:",
        "if False:",
        ("tests/jobs/test_progress.py",),
    ),
    Variant(
        "a bar is as wide as the terminal",
        "apiflux_grpc/jobs/bar.py",
        "self._console.width - FREE",
        "self._console.width",
        ("tests/jobs/test_console.py",),
    ),
    Variant(
        "a bar is drawn over results",
        "apiflux_grpc/jobs/console.py",
        " and not shared",
        "",
        ("tests/jobs/test_console.py",),
    ),
    Variant(
        "a line every 30 s goes on after the end",
        "apiflux_grpc/jobs/screen.py",
        "            self._timer.cancel()",
        "            pass",
        ("tests/jobs/test_screen.py",),
    ),
    # -- the first step of a command --------------------------------------------------------------
    Variant(
        "--version loads the command line",
        START,
        'case ["--version"]:',
        'case ["--version"] if width < WIDTH:',
        OF_START,
    ),
    Variant(
        "help is as wide on a narrow terminal",
        START,
        "os.get_terminal_size(descriptor).columns",
        "WIDTH + 2",
        OF_START,
    ),
    Variant(
        "a command's help reads the options before all commands",
        "apiflux_grpc/cli/app.py",
        "option in HELP and",
        "option not in HELP and",
        OF_START,
    ),
    Variant(
        "the list of commands is cut",
        "apiflux_grpc/cli/app.py",
        "app.command(short_help=short, ",
        "app.command(",
        OF_START,
    ),
    Variant(
        "a bucket gives back more than it held",
        BUCKET,
        "return -min(-more, self._lows.least(taken_at, self._pacer.level(now)))",
        "return more",
        ("tests/core/test_lows.py",),
    ),
    Variant(
        "what was given back doesn't lower earlier levels",
        "apiflux_grpc/core/lows.py",
        "self._lowered += amount",
        "pass",
        ("tests/core/test_lows.py",),
    ),
    Variant(
        "a bucket gives back only what hasn't leaked away",
        BUCKET,
        "return -min(-more, self._lows.least(taken_at, self._pacer.level(now)))",
        "return 0.0",
        ("tests/core/test_lows.py",),
    ),
    # -- leases -----------------------------------------------------------------------------------
    *(Variant(*one) for one in LEASES),
)
