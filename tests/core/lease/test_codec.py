"""What the stores write down of a budget is all that the next rounds need."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.lease.codec import entry_of, plain
from apiflux_grpc.core.lease.entry import Entry, Lease, Member, Slots
from apiflux_grpc.core.lease.level import Level
from apiflux_grpc.core.lease.log import Log
from apiflux_grpc.core.lease.serve import serve
from apiflux_grpc.core.lease.words import COST, Amounts, Cap, Reply, Round
from apiflux_grpc.core.units import SECOND
from tests.core.lease.conversation import Steps, converse, slot_steps, steps


def written(entry: Entry) -> str:
    """The entry as a store has it."""
    return json.dumps(plain(entry), separators=(",", ":"))


@settings(max_examples=60)
@given(st.one_of(steps(), slot_steps()), st.booleans())
def test_a_store_that_writes_entries_down_says_what_one_does_that_keeps_them(steps: Steps, steady: bool) -> None:
    """Whatever was said, and whatever happened in between: each reply is the same, word for word."""
    kept: dict[str, Entry] = {}
    text = ""

    def both(round: Round, clock: int, run: str) -> Reply:
        nonlocal text
        reply = serve(kept, round, clock, run, steady=steady)
        read = {"key": entry_of(json.loads(text))} if text else {}
        assert serve(read, round, clock, run, steady=steady) == reply
        assert read == {} or written(read["key"]) == written(kept["key"])
        assert read.keys() == kept.keys()
        text = written(kept["key"]) if kept else ""
        return reply

    converse(steps, both)


def test_every_field_is_written() -> None:
    """One that a change adds and the layout forgets is noticed here, whether or not a round reads it."""
    log = Log(SECOND, 5)
    log.record(SECOND, 4, 5)
    level = Level(SECOND, COST, 6, 7)
    reply = Reply(3, "epoch", 4, Amounts(5, 6), 6, 7, "refused", frozenset("xy"), 8, forgotten=True)
    lease = Lease(9, 8, 7, Amounts(6, 5), Amounts(4, 3), 2, Amounts(1, 2))
    slots = Slots(1, 2, 3, 4, 5, 6, 7, 8)
    member = Member(
        1, 2, reply, (Cap(3, 4, COST, 5),), 5, 6, 7, True, 8, "why", Amounts(9, 8), 7, 10, 11, (13,), {12: lease}, slots
    )
    logs, levels = {SECOND: log}, {(SECOND, COST): level}
    entry = Entry("epoch", "run", 1, 2, 3, True, 4, logs, levels, {"a": member}, ["a"], {"b"}, {"c"})
    entry.facts, entry.claims = {"x": (1, 2)}, {"y": (3, "a")}
    for one in (lease, slots, member, entry):
        for field in fields(one):
            assert getattr(one, field.name) != field.default, f"{field.name} needs a value here that isn't its default"
    read = entry_of(json.loads(written(entry)))
    assert (read.members, written(read)) == (entry.members, written(entry))
    for field in fields(Entry):
        if field.name not in ("logs", "levels"):
            assert getattr(read, field.name) == getattr(entry, field.name), field.name
    assert [getattr(read.logs[SECOND], name) for name in Log.__slots__] == [
        getattr(log, name) for name in Log.__slots__
    ]
    assert [getattr(read.levels[SECOND, COST], name) for name in Level.__slots__] == [
        getattr(level, name) for name in Level.__slots__
    ]


def test_another_layout_is_refused() -> None:
    """Its fields would be misread."""
    told = plain(Entry("epoch", "run", 1))
    with pytest.raises(ValueError, match="layout 99"):
        entry_of([99, *told[1:]])
