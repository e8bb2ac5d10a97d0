"""What the stores write down of a budget is all that the next rounds need."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.lease.codec import entry_of, plain
from apiflux_grpc.core.lease.entry import Entry, Lease, Member
from apiflux_grpc.core.lease.log import Log
from apiflux_grpc.core.lease.serve import serve
from apiflux_grpc.core.lease.words import COST, NOTHING, Amounts, Cap, Group, Held, Memory, Reply, Round
from apiflux_grpc.core.units import MILLISECOND, SECOND

LIFE: Final = 100 * MILLISECOND
names = st.sampled_from("abc")
small = st.integers(0, 5)


def written(entry: Entry) -> str:
    """The entry as a store has it."""
    return json.dumps(plain(entry), separators=(",", ":"))


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[int, str, dict[str, object]]]:
    """(how much later, who, what it says): of three replicas, whose limits may differ."""
    said = st.fixed_dictionaries(
        {
            "want": st.builds(Amounts, small, small),
            "least": st.integers(0, 2),
            "caps": st.sampled_from([(Cap(SECOND, 9),), (Cap(SECOND, 7), Cap(SECOND, 7, COST), Cap(700 * SECOND, 90))]),
            "jitter": st.sampled_from([0, 0, 0, MILLISECOND]),
            "leaves": st.sampled_from([False, False, False, True]),
            "landed": st.builds(Amounts, small, small),
            "age": st.integers(0, SECOND),
            "memory": st.sampled_from([None, None, Memory((Group(2, 3, SECOND),), Amounts(1), frozenset("ab"))]),
            "again": st.booleans(),
            "is_lost": st.sampled_from([False, False, False, True]),
        }
    )
    return draw(st.lists(st.tuples(st.integers(0, 2 * SECOND), names, said), max_size=25))


@settings(max_examples=60, deadline=None)
@given(steps(), st.booleans())
def test_a_store_that_writes_entries_down_says_what_one_does_that_keeps_them(
    steps: list[tuple[int, str, dict[str, object]]], steady: bool
) -> None:
    """Whatever was said, and whatever happened in between: each reply is the same, word for word."""
    kept: dict[str, Entry] = {}
    text = ""
    clock, run = SECOND, 0
    last: dict[str, Reply] = {}
    asked: dict[str, Round] = {}
    for pause, name, said in steps:
        clock += pause
        run += bool(said.pop("is_lost"))
        landed, age = said.pop("landed"), said.pop("age")
        if said.pop("again") and name in asked:
            round = asked[name]
        elif name in last:
            before = last[name]
            held = (Held(before.number, landed, NOTHING, (Group(*landed, age),)),) if any(before.granted) else ()  # type: ignore[arg-type, call-arg, misc]
            terms = {"epoch": before.epoch, "told": before.now, "floor": before.now, "paused": before.paused}
            round = asked[name]._replace(**{**said, **terms}, number=before.number + 1, held=held)  # type: ignore[arg-type]
        else:
            round = Round("key", name, 1, (), LIFE, 0, trust=True)._replace(**said)  # type: ignore[arg-type]
        reply = serve(kept, round, clock, f"run-{run}", steady=steady)
        read = {"key": entry_of(json.loads(text))} if text else {}
        assert serve(read, round, clock, f"run-{run}", steady=steady) == reply
        text = written(read["key"])
        assert text == written(kept["key"])
        asked[name], last[name] = round, reply


def test_every_field_is_written() -> None:
    """One that a change adds and the layout forgets is noticed here, whether or not a round reads it."""
    log = Log(SECOND, 5)
    log.record(SECOND, 4, 5)
    reply = Reply(3, "epoch", 4, Amounts(5, 6), 6, 7, "refused", frozenset("xy"), 8, forgotten=True)
    lease = Lease(9, 8, 7, Amounts(6, 5), Amounts(4, 3), 2)
    member = Member(1, 2, reply, (Cap(3, 4, COST, 5),), 5, 6, 7, True, 8, "why", Amounts(9, 8), 7, 10, 11, {12: lease})
    entry = Entry("epoch", "run", 1, 2, 3, True, 4, {SECOND: log}, {"a": member}, ["a"], {"b"}, {"c"})
    for one in (lease, member, entry):
        for field in fields(one):
            assert getattr(one, field.name) != field.default, f"{field.name} needs a value here that isn't its default"
    read = entry_of(json.loads(written(entry)))
    assert (read.members, written(read)) == (entry.members, written(entry))
    for field in fields(Entry):
        if field.name != "logs":
            assert getattr(read, field.name) == getattr(entry, field.name), field.name
    assert [getattr(read.logs[SECOND], name) for name in Log.__slots__] == [
        getattr(log, name) for name in Log.__slots__
    ]


def test_another_layout_is_refused() -> None:
    """Its fields would be misread."""
    told = plain(Entry("epoch", "run", 1))
    with pytest.raises(ValueError, match="layout 99"):
        entry_of([99, *told[1:]])
