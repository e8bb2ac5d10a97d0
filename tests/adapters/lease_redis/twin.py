"""A lease store that serves each round twice, in Python and by the script in a real Redis, and compares step by step.

Rule: both get the same rounds, in whole microseconds, with the same clock and run; then their replies and their entries
must be equal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import msgpack
import redis

from apiflux_grpc.adapters.lease_redis.script import named, script
from apiflux_grpc.adapters.lease_redis.words import reply_of, told
from apiflux_grpc.core.lease.codec import plain
from apiflux_grpc.core.lease.entry import Entry
from apiflux_grpc.core.lease.log import Log
from apiflux_grpc.core.lease.serve import serve
from apiflux_grpc.core.lease.words import Amounts, Asked, Cap, Fact, Group, Held, Memory, Reply, Round
from apiflux_grpc.core.units import MICROSECOND
from apiflux_grpc.testing import FakeLeaseStore

_CLOCK: Final = "time[1] * 1000000 + time[2]"
_RUN: Final = "string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')"
_END: Final = "\nreturn words\n"
LOGS: Final = 8  # where codec.plain has them


def told_script() -> str:
    """The script, but for its clock and its run, which it is told."""
    text = script().text
    assert text.count(_CLOCK) == text.count(_RUN) == 1
    assert text.endswith(_END)
    # What is kept is told too: it saves asking for it.
    kept = "\nreturn {words, after and redis.call('GET', KEYS[1]) or blob}"
    return text.removesuffix(_END).replace(_CLOCK, "tonumber(ARGV[2])").replace(_RUN, "ARGV[3]") + kept


class Saved(dict[str, Entry]):
    """Entries, and what Redis had of them."""

    blobs: dict[bytes, bytes]


class TwinStore(FakeLeaseStore):
    """`client` is of a Redis without keys."""

    def __init__(self, clock: Callable[[], int], client: redis.Redis) -> None:
        super().__init__(clock)
        self._twin_clock = clock
        self._client = client
        client.flushall()
        self._sha = named(told_script()).sha
        client.script_load(told_script())

    def serve(self, round: Round) -> Reply:
        if self.gone:
            raise ConnectionError("the store is gone")
        self.rounds += 1
        now = (self._twin_clock() + self.step) // MICROSECOND
        reply = serve(self.entries, rounded(told(round), round.budget), now * MICROSECOND, self.run_id)
        found: Any = self._client.evalsha(self._sha, 1, round.budget, told(round), now, self.run_id)
        words, blob = found
        assert reply_of(words) == reply
        if blob is None:
            assert round.budget not in self.entries
            return reply
        assert plain_of(msgpack.unpackb(blob)) == in_order(plain(self.entries[round.budget]))
        return reply

    def flush(self) -> None:
        super().flush()
        self._client.flushall()

    def saved(self) -> dict[str, Entry]:
        saved = Saved(super().saved())
        keys: Any = self._client.keys("*")
        saved.blobs = {key: self._client.get(key) for key in keys}  # type: ignore[misc]
        return saved

    def fail_over(self, entries: dict[str, Entry], *, same_run: bool = False) -> None:
        super().fail_over(entries, same_run=same_run)
        self._client.flushall()
        for key, blob in getattr(entries, "blobs", {}).items():
            self._client.set(key, blob)


def in_order(entry: list[Any]) -> list[Any]:
    """The groups of each log in the order of time, as the script keeps them."""
    for _, _, cells in entry[LOGS]:
        cells.sort()
    return entry


def rounded(text: str, budget: str) -> Round:
    """The round that the script is told."""
    told = json.loads(text)

    def groups(rows: list[list[int]]) -> tuple[Group, ...]:
        return tuple(Group(calls, cost, age * MICROSECOND) for calls, cost, age in rows)

    def instant(us: int) -> int:
        return us if us < 0 else us * MICROSECOND

    def held(lease: int, *amounts: Any) -> Held:
        *totals, rows = amounts
        return Held(lease, Amounts(*totals[:2]), Amounts(*totals[2:4]), groups(rows), totals[4], Amounts(*totals[5:]))

    memory = told["memory"] and Memory(
        groups(told["memory"]["landed"]), Amounts(*told["memory"]["open"]), frozenset(told["memory"]["roster"])
    )
    return Round(
        budget,
        told["incarnation"],
        told["number"],
        tuple(Cap(per * MICROSECOND, *rest) for per, *rest in told["caps"]),
        told["life"] * MICROSECOND,
        told["jitter"] * MICROSECOND,
        told["epoch"],
        instant(told["told"]),
        instant(told["floor"]),
        told["paused"] * MICROSECOND,
        Amounts(*told["want"]),
        told["least"],
        told["round_trip"] * MICROSECOND,
        tuple(held(*row) for row in told["held"]),
        memory or None,
        told["leaves"],
        told["trust"],
        tuple(Fact(name, amount, left * MICROSECOND) for name, amount, left in told["facts"]),
        tuple(told["claims"]),
        _asked(*told["slots"]) if told["slots"] else None,
        tuple(told["refused"]),
        told["delay"] * MICROSECOND,
        told.get("thaw", False),
    )


def _asked(most: int, timeout: int, holds: int, wants: int) -> Asked:
    return Asked(most, timeout * MICROSECOND, holds, wants)


def plain_of(entry: dict[str, Any]) -> list[Any]:
    """The entry that the script keeps, as core/lease/codec.py writes it."""

    def ns(us: int) -> int:
        assert isinstance(us, int), "the script left the whole microseconds"
        return us * MICROSECOND

    def log_of(log: dict[str, Any]) -> list[Any]:
        assert (log["calls"], log["cost"]) == (sum(log["n"]), sum(log["c"]))
        span = Log(ns(log["per"])).span
        cells = zip(map(ns, log["at"]), log["n"], log["c"], strict=True)
        return [ns(log["per"]), ns(log["opens"]), [[at // span, at, calls, cost] for at, calls, cost in cells]]

    def slots_of(slots: dict[str, Any]) -> list[Any]:
        front = slots["next_since"]
        return [
            slots["most"],
            ns(slots["timeout"]),
            slots["holds"],
            slots["wants"],
            slots["allotted"],
            ns(slots["valid"]),
            ns(slots["since"]),
            front if front < 0 else ns(front),
        ]

    def member_of(member: dict[str, Any]) -> list[Any]:
        reply = member["reply"]
        return [
            member["name"],
            ns(member["born"]),
            ns(member["seen"]),
            [
                member["number"],
                entry["epoch"],
                ns(reply["now"]),
                [reply["calls"], reply["cost"]],
                ns(reply["again"]),
                ns(reply["opens"]),
                member["refusal"],
                [],
                ns(reply["paused"]),
                False,
            ],
            [[ns(per), *rest] for per, *rest in member["caps"]],
            ns(member["life"]),
            ns(member["jitter"]),
            member["number"],
            int(member["established"]),
            ns(member["left_at"]) if "left_at" in member else None,
            member["refusal"],
            [member["want_calls"], member["want_cost"]],
            member["least"],
            ns(member["due"]),
            ns(member["turn"]),
            [*member["refused"]],
            [
                [
                    lease["number"],
                    lease["calls"],
                    lease["cost"],
                    ns(lease["arrived"]),
                    [lease["landed_calls"], lease["landed_cost"]],
                    [lease["returned_calls"], lease["returned_cost"]],
                    lease["over"],
                    [lease["late_calls"], lease["late_cost"]],
                ]
                for lease in member["leases"]
            ],
            slots_of(member["slots"]) if "slots" in member else None,
        ]

    return [
        entry["layout"],
        entry["epoch"],
        entry["run_id"],
        ns(entry["last"]),
        ns(entry["offset"]),
        ns(entry["paused"]),
        int(entry["trusted"]),
        ns(entry["began"]),
        [log_of(log) for log in entry["logs"]],
        [[ns(level["per"]), level["counts"], level["filled"], ns(level["at"])] for level in entry["levels"]],
        [member_of(member) for member in entry["members"]],
        entry["queue"],
        sorted(entry["registered"]),
        sorted(entry["roster"]),
        [[name, ns(until), amount] for name, until, amount in entry["facts"]],
        [[name, ns(until), whose] for name, until, whose in entry["claims"]],
    ]
