"""What replicas may say to a store, in any order: steps that are drawn, and the rounds that they come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hypothesis import strategies as st

from apiflux_grpc.core.lease.words import (
    CALLS,
    COST,
    NOTHING,
    Amounts,
    Asked,
    Cap,
    Fact,
    Group,
    Held,
    Memory,
    Reply,
    Round,
)
from apiflux_grpc.core.units import MILLISECOND, SECOND

LIFE: Final = 100 * MILLISECOND

Steps = list[tuple[int, str, dict[str, Any]]]

names = st.sampled_from("abc")
small = st.integers(0, 5)
# Of the limits below those of a second: what strangers take, and cuts.
fact_names = st.sampled_from(
    [f"{of}/1000000/{counts}/{kind}" for of in ("others", "cut") for counts in (0, 1) for kind in (0, 1)]
)


@st.composite
def slot_steps(draw: st.DrawFn) -> Steps:
    """The same of replicas that share the calls in flight: `steps` without limits."""
    taken = draw(steps())
    for _, _, said in taken:
        most, timeout = draw(st.integers(1, 4)), draw(st.sampled_from([50 * MILLISECOND, SECOND]))
        said["caps"], said["want"], said["jitter"] = (), NOTHING, 0
        said["slots"] = Asked(most, timeout, draw(st.integers(0, 3)), draw(small))
    return taken


@st.composite
def steps(draw: st.DrawFn) -> Steps:
    """(how much later, who, what it says): of three replicas, whose limits may differ."""
    said = st.fixed_dictionaries(
        {
            "want": st.builds(Amounts, small, small),
            "least": st.integers(0, 2),
            "caps": st.sampled_from(
                [
                    (Cap(SECOND, 9),),
                    (Cap(SECOND, 7), Cap(SECOND, 7, COST), Cap(700 * SECOND, 90)),
                    (Cap(SECOND, 7, CALLS, 5), Cap(SECOND, 9, COST, 3), Cap(5 * SECOND, 20)),
                    (Cap(SECOND, 10, CALLS, 1),),
                ]
            ),
            "over": small,
            "late": st.builds(Amounts, small, small),
            "jitter": st.sampled_from([0, 0, 0, MILLISECOND]),
            "leaves": st.sampled_from([False, False, False, True]),
            "landed": st.builds(Amounts, small, small),
            "age": st.integers(0, SECOND),
            "memory": st.sampled_from([None, None, Memory((Group(2, 3, SECOND),), Amounts(1), frozenset("ab"))]),
            "again": st.booleans(),
            "facts": st.lists(
                st.builds(
                    Fact, st.sampled_from("xyz") | fact_names, small, st.sampled_from([MILLISECOND, SECOND, 7 * SECOND])
                ),
                max_size=2,
            ).map(tuple),
            "refused": st.sampled_from([(), (0, 0, 0), (3, 2, 1), (1,)]),
            "claims": st.sampled_from([(), (), ("p",), ("p", "q")]),
            "is_lost": st.sampled_from([False, False, False, True]),
            "thaw": st.sampled_from([False, False, False, False, True]),  # somebody opens the budget before
        }
    )
    return draw(st.lists(st.tuples(st.integers(0, 2 * SECOND), names, said), max_size=25))


def converse(steps: Steps, serve: Callable[[Round, int, str], Reply]) -> None:
    """The rounds of these steps; `serve` is asked for the reply to each, at a clock, by a run of the store."""
    clock, run = SECOND, 0
    last: dict[str, Reply] = {}
    asked: dict[str, Round] = {}
    for pause, name, said in steps:
        clock += pause
        run += bool(said.pop("is_lost"))
        if said.pop("thaw"):
            serve(Round("key", "visitor", 1, (), 0, 0, leaves=True, thaw=True), clock, f"run-{run}")
        landed, age, over, late = (said.pop(name) for name in ("landed", "age", "over", "late"))
        if said.pop("again") and name in asked:
            round = asked[name]
        elif name in last:
            before = last[name]
            told = Held(before.number, landed, NOTHING, (Group(landed.calls, landed.cost, age),), over, late)
            held = (told,) if any(before.granted) else ()
            terms = {"epoch": before.epoch, "told": before.now, "floor": before.now, "paused": before.paused}
            round = asked[name]._replace(**{**said, **terms}, number=before.number + 1, held=held)
        else:
            round = Round("key", name, 1, (), LIFE, 0, trust=True)._replace(**said)
        reply = serve(round, clock, f"run-{run}")
        asked[name], last[name] = round, reply
