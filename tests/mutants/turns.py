"""Broken variants of whose turn it is, and with which key: scheduler, queues, limits with paths; as in variants.py."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

READY: Final = "apiflux_grpc/core/ready.py"
SCHEDULER: Final = "apiflux_grpc/core/scheduler.py"
KEYRING: Final = "apiflux_grpc/core/keyring.py"
QUEUE: Final = "apiflux_grpc/core/fairqueue.py"
ENDINGS: Final = "apiflux_grpc/core/endings.py"
DISPATCHER: Final = "apiflux_grpc/core/dispatcher.py"
OF_SCHEDULER: Final = (
    "tests/core/test_scheduler.py",
    "tests/core/test_reservation.py",
    "tests/core/test_groups.py",
    "tests/core/test_changed_limits.py",
)
OF_OUTLOOKS: Final = ("tests/core/test_outlooks.py",)
OF_PATHS: Final = ("tests/core/test_path_limits.py",)
OF_WAKING: Final = ("tests/core/test_waking.py",)
OF_QUEUE: Final = ("tests/core/test_fairqueue.py",)
NOTICED: Final = ("tests/mutants/test_noticed.py",)
OF_STREAM: Final = ("tests/server/test_process_stream.py",)

TURNS: Final = (
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
        "a change forgets what was spent",
        KEYRING,
        "        return owner.budget.changed(limits, now)",
        "        return self._budget(limits)",
        OF_SCHEDULER,
    ),
    Variant(
        "sizes as before the change",
        SCHEDULER,
        "        self.keyring.change_limits(self.keys[index], limits, now)\n        self.measure()",
        "        self.keyring.change_limits(self.keys[index], limits, now)",
        OF_SCHEDULER,
    ),
    Variant(
        "usable though the upstream fails",
        SCHEDULER,
        "return self.breaker.state is State.CLOSED and any(",
        "return any(",
        OF_SCHEDULER,
    ),
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
    Variant(
        "an eta of a wider limit leaves out the paths within it",
        "apiflux_grpc/core/classes.py",
        "if least <= scopes) for least",
        "if least == scopes) for least",
        OF_OUTLOOKS,
    ),
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
    Variant(
        "a call that was sent is refunded",
        DISPATCHER,
        "if permit.flight is None and not isinstance(outcome, NotSent):",
        "if False:",
        NOTICED,
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
        "a drain takes new work",
        DISPATCHER,
        "        self._draining = True  # what comes",
        "        # what comes",
        NOTICED,
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
        "calls of a resource that is used up go on",
        SCHEDULER,
        "avoid | spent, held)\n        if seat is None and avoid",
        "avoid, held)\n        if seat is None and avoid",
        ("tests/core/test_hearing.py",),
    ),
    Variant(
        "a stopped stream goes on with what waits",
        DISPATCHER,
        "results = self._endings.end_unsent(batch, Reason.STOPPED, now)",
        "results: list[Result] = []",
        OF_STREAM,
    ),
    Variant(
        "calls that are expected don't count",
        "apiflux_grpc/core/batch.py",
        "return self.waiting + self.to_come",
        "return self.waiting",
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
)
