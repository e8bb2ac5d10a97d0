"""How a batch stands over several servers: what each says of its part, put together."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from apiflux_grpc.client import ApifluxError
from apiflux_grpc.client.books import Books
from apiflux_grpc.client.info import together
from apiflux_grpc.client.same_pool import OtherPool, SamePool, difference, part_of
from apiflux_grpc.client.standing import combined, pace
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.client.test_accounts import call


def told(done: int, total: int, eta: float | None, **fields: Any) -> pb.Progress:
    progress = pb.Progress(done=done, total=total, **fields)
    if eta is not None:
        progress.eta.FromNanoseconds(round(eta * SECOND))
    return progress


def whole(*parts: pb.Progress, taken: int = 100, to_come: int = 0) -> pb.Progress:
    books = Books()
    books.take(call(number) for number in range(taken))
    return combined(parts, books, to_come, [*map(pace, parts)])


def eta_of(progress: pb.Progress) -> float | None:
    return progress.eta.ToNanoseconds() / SECOND if progress.HasField("eta") else None


def test_counts_are_added_up() -> None:
    """Those of all servers; calls that none of them has are in the total, and others are to come."""
    progress = whole(told(3, 10, None, in_flight=2), told(1, 8, None, in_flight=4), to_come=20)
    assert (progress.done, progress.total, progress.in_flight, progress.to_come) == (0, 100, 6, 20)


def test_all_servers_do_what_is_left() -> None:
    """Each at the rate that its time tells: 1/s and 9/s are done with 100 calls in 10 s."""
    slow, fast = told(0, 20, 20.0), told(0, 80, 80 / 9)
    assert eta_of(whole(slow, fast)) == pytest.approx(10.0)
    assert eta_of(whole(slow, fast, to_come=100)) == pytest.approx(20.0)
    assert eta_of(whole(slow)) == pytest.approx(100.0)
    assert whole(told(0, 1, 1.0, rate=1.0), told(0, 1, 1.0, rate=9.0)).rate == 10.0


def test_a_server_that_does_not_know_does_nothing() -> None:
    """If none knows, nothing is told; of the rate it takes all of them."""
    known, unknown = told(0, 50, 10.0, rate=5.0), told(0, 50, None)
    assert eta_of(whole(known, unknown)) == 20.0
    assert not whole(known, unknown).HasField("rate")
    assert eta_of(whole(unknown)) is None
    assert eta_of(whole(told(0, 0, 0.0), taken=0)) == 0.0


def test_until_all_have_reckoned_no_time_is_told() -> None:
    """One of two alone would take twice as long; one that was connected anew goes on as before."""
    one = told(0, 50, 10.0, rate=5.0)
    books = Books()
    books.take(call(number) for number in range(100))
    early, again = (combined([one], books, 0, silent) for silent in ([5.0, None], [5.0, 5.0]))
    assert eta_of(early) is None
    assert eta_of(again) == 10.0
    assert not early.HasField("rate")
    assert eta_of(combined([one], Books(), 0, [5.0, None])) == 0.0


def test_each_cause_is_told_once_and_the_limit_that_is_over_first() -> None:
    """With most keys first; a limit whose end isn't known comes after all others."""

    def held(cause: Any, keys: int, wait: int | None = None) -> pb.Held:
        one = pb.Held(cause=cause, key_count=keys)
        if wait is not None:
            one.wait.FromSeconds(wait)
        return one

    one = told(0, 1, None, held_by=[held(pb.HELD_CAUSE_LIMITED, 1)], waits_for=held(pb.HELD_CAUSE_SPENT, 2, 9))
    other = told(
        0,
        1,
        None,
        held_by=[held(pb.HELD_CAUSE_LIMITED, 3), held(pb.HELD_CAUSE_KEY_REJECTED, 1)],
        waits_for=held(pb.HELD_CAUSE_SPENT, 2, 4),
    )
    third = told(0, 1, None, waits_for=held(pb.HELD_CAUSE_SPENT, 1))
    progress = whole(one, other, third)
    assert [(one.cause, one.key_count) for one in progress.held_by] == [
        (pb.HELD_CAUSE_LIMITED, 3),
        (pb.HELD_CAUSE_KEY_REJECTED, 1),
    ]
    assert progress.waits_for.wait.ToSeconds() == 4


def pool(**fields: Any) -> pb.PoolInfo:
    keys = fields.pop("keys", [pb.KeyInfo(label="a", limits=[pb.Limit(max=5)]), pb.KeyInfo(label="b")])
    return pb.PoolInfo(name="p", keys=keys, **fields)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (pool(), ""),
        (pool(waiting=5, in_flight=3, upstream_failing=True, advice="more"), ""),
        (pool(keys=[pb.KeyInfo(label="b", headroom=0.5), pb.KeyInfo(label="a", limits=[pb.Limit(max=5)])]), ""),
        (pool(base_url="http://b"), "base_url"),
        (pool(upstream=pb.UPSTREAM_KIND_HTTP), "upstream"),
        (pool(max_attempts=4), "retry.max_attempts"),
        (pool(allow_paths=["/v1/"]), "allow_paths"),
        (pool(key_header="x"), "key_in"),
        (pool(idempotent=[pb.CallRule(methods=["POST"])]), "idempotent"),
        (pool(cost=pb.CostRule(at_least=1)), "cost"),
        (pool(cost_json=["usage"]), "cost_from"),
        (pool(groups=[pb.GroupInfo(keys=["a"])]), "groups"),
        (pool(budget_store=pb.BudgetStore()), "having a store of budgets"),
        (pool(keys=[pb.KeyInfo(label="a", limits=[pb.Limit(max=5)])]), "the key b, which only one of them has"),
        (pool(keys=[pb.KeyInfo(label="a", limits=[pb.Limit(max=6)]), pb.KeyInfo(label="b")]), "limits of the key a"),
        (
            pool(keys=[pb.KeyInfo(label="a", limits=[pb.Limit(max=5)]), pb.KeyInfo(label="b", max_in_flight=2)]),
            "max_in_flight of the key b",
        ),
    ],
)
def test_what_differs_between_two_pools_is_named(other: pb.PoolInfo, words: str) -> None:
    """All that a call can meet; how busy a server is doesn't count, nor does the order of keys."""
    assert difference(pool(), other) == difference(other, pool()) == words


def test_stores_that_are_well_or_not_are_no_difference() -> None:
    """How a store is, is another at every moment."""
    assert difference(pool(budget_store=pb.BudgetStore()), pool(budget_store=pb.BudgetStore(error="gone"))) == ""


def test_the_first_server_says_what_the_pool_is() -> None:
    """Of the name that was asked for, else the default; one that has none says so itself, when it is asked."""
    same = SamePool("")
    same.check("a:1", pb.GetInfoResponse(pools=[pool()], default_pool="p"))
    same.check("b:1", pb.GetInfoResponse(pools=[pool()], default_pool="p"))
    same.check("c:1", pb.GetInfoResponse(pools=[pool()], default_pool=""))
    with pytest.raises(OtherPool, match="a:1 and d:1 don't have the same pool p: they differ in base_url"):
        same.check("d:1", pb.GetInfoResponse(pools=[pool(base_url="x")], default_pool="p"))
    other = pb.PoolInfo(name="q")
    with pytest.raises(OtherPool, match="a:1 has the default pool p, and e:1 q"):
        same.check("e:1", pb.GetInfoResponse(pools=[other], default_pool="q"))


def test_a_server_is_asked_for_its_part_of_the_calls() -> None:
    """An equal part of those that answer; for all calls, if they share limits through a store."""
    plain = pb.GetInfoResponse(pools=[pool()], default_pool="p")
    shared = pb.GetInfoResponse(pools=[pool(budget_store=pb.BudgetStore())], default_pool="p")
    absent = ApifluxError("gone", code=None)  # type: ignore[arg-type]
    assert part_of(10, "", [plain, plain, absent, plain]) == (4, False)
    assert part_of(10, "p", [shared, shared]) == (10, True)
    assert part_of(10, "", [absent]) == (10, False)


def test_of_parts_the_slowest_tells_and_of_the_whole_the_fastest() -> None:
    """A server whose share was small while others were busy doesn't tell how long all of them take together."""
    gone = ApifluxError("gone", code=grpc.StatusCode.UNAVAILABLE)
    never, short, long = (pb.EstimateResponse() for _ in range(3))
    short.makespan.FromSeconds(12)
    long.makespan.FromSeconds(250)
    for shared, makespan in ((False, 250), (True, 12)):
        assert together([long, gone, short], shared=shared).makespan == makespan
    assert together([never, short], shared=True).makespan == 12
    assert together([never, short], shared=False).makespan is None
    assert together([never, never], shared=True).makespan is None
    with pytest.raises(ApifluxError, match="gone"):
        together([gone, gone], shared=True)
