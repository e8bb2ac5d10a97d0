"""What is asked is read exactly, and what can't be planned is refused before anything runs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from apiflux_grpc.core.model import Limit, Pool
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.plan.draws import Draws
from apiflux_grpc.plan.figures import figures, key_rows
from apiflux_grpc.plan.load import Load
from apiflux_grpc.plan.page import charts_of
from apiflux_grpc.plan.plan import make_plan
from apiflux_grpc.plan.question import ask
from apiflux_grpc.plan.work import MOST_CALLS, Arrival, parse_batch
from apiflux_grpc.settings import load


def no_calls(_: Pool) -> Load:
    """Of a file that is empty."""
    return Load()


def test_options_make_a_question() -> None:
    """Limits, keys and equal batches, or sizes with their times, which count from the first."""
    asked = ask(limits=["1000/60s", "50/1s"], keys=3, max_in_flight=9, latency="500ms..3s", calls=20, batches=4)
    assert asked.arrivals == (Arrival(20),) * 4
    assert asked.draws.latency == (SECOND // 2, 3 * SECOND)
    assert [key.label for key in asked.pool.keys] == ["key-1", "key-2", "key-3"]
    assert asked.pool.keys[2].limits == (Limit(1000, 60 * SECOND), Limit(50, SECOND))
    assert (asked.pool.keys[0].max_in_flight, asked.pool.max_connections) == (9, 1000)
    asked = ask(limits=["1/1s"], batch=["10@5s", "2000@1500ms", "3@1.5s"])
    assert asked.arrivals == (Arrival(2000), Arrival(3), Arrival(10, 3500 * MILLISECOND))
    assert asked.draws.latency == (200 * MILLISECOND, 200 * MILLISECOND)
    asked = ask(limits=["1/1s"], keys=2, calls=1, fail=0.1, limited=0.2, reject=["key-2"], seed=5)
    assert asked.draws == Draws((200 * MILLISECOND, 200 * MILLISECOND), 0.1, 0.2, frozenset({"key-2"}), 5)
    assert (parse_batch("7"), parse_batch("7@0")) == (Arrival(7), Arrival(7))


def test_a_configuration_makes_a_question(tmp_path: Path) -> None:
    """Keys, limits, margin; the simulator's latency and error rate unless given; what isn't planned is noted."""
    file = tmp_path / "apiflux.toml"
    file.write_text(
        """
        [pools.one]
        limits = [{ max = 20, per = "1s" }, { max = 500, per = "60s", counts = "cost" }]
        arrival_jitter = "40ms"
        max_in_flight = 3
        simulator = { latency = ["10ms", "30ms"], error_rate = 0.05 }
        [[pools.one.keys]]
        label = "team-a"
        secret = "sk-0123456789abcdef"
        [pools.two]
        base_url = "http://127.0.0.1:9"
        success = ["201", "203"]
        limits = [{ max = 5, per = "1s" }]
        [[pools.two.keys]]
        label = "team-b"
        secret = "sk-fedcba9876543210"
        """,
        encoding="utf-8",
    )
    pools = load(file, environ={}).pools
    asked = ask(pools, pool="one", calls=10)
    assert (asked.pool.arrival_jitter, asked.draws.latency) == (40 * MILLISECOND, (10 * MILLISECOND, 30 * MILLISECOND))
    assert asked.notes == ("every call of a plan costs 1; --cost and --calls-from say otherwise",)
    assert asked.draws.fail == 0.05
    assert ask(pools, pool="one", calls=10, fail=0.0).draws.fail == 0.0
    assert ask(pools, pool="two", calls=10, reject=["team-b"]).draws.rejected == {"team-b"}
    assert ask(pools, pool="two", calls=10).draws.latency == (200 * MILLISECOND, 200 * MILLISECOND)
    assert ask(pools, pool="two", calls=10, latency="1s").draws.latency == (SECOND, SECOND)
    assert (asked.draws.success, ask(pools, pool="two", calls=10).draws.success) == (200, 201)
    with pytest.raises(ValueError, match=r"--pool: .* several pools, and none was named; use one of one, two"):
        ask(pools, calls=10)
    assert ask(pools[:1], calls=10).pool.name == "one"
    with pytest.raises(ValueError, match=r"--pool: no pool 'three' in --config; use one of one, two"):
        ask(pools, pool="three", calls=10)
    with pytest.raises(ValueError, match="--keys conflicts with --config"):
        ask(pools, pool="one", calls=10, keys=2)
    with pytest.raises(ValueError, match=r"latency of 31s is above the pool's timeout of 30s"):
        ask(pools, pool="one", calls=10, latency="1s..31s")
    plan = make_plan(asked)
    shown = str([plan, *figures(plan), *key_rows(plan.keys), *charts_of(plan), plan.to_json()])
    assert "team-a" in shown
    assert "sk-0123456789abcdef" not in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limits": [], "calls": 1}, "set --limit MAX/DURATION"),
        ({"limits": ["1000"], "calls": 1}, "'1000' must be MAX/DURATION"),
        ({"limits": ["0/1s"], "calls": 1}, "'0/1s' must be at least 1"),
        ({"limits": ["1/400000h"], "calls": 1}, "longer than 366 days"),
        ({"limits": ["1/1s"]}, "set --calls N"),
        ({"limits": ["1/1s"], "batches": 2}, "set --calls N"),
        ({"limits": ["1/1s"], "calls": 0}, "must be at least 1"),
        ({"limits": ["1/1s"], "calls": 5, "batches": 0}, "must be at least 1"),
        ({"limits": ["1/1s"], "calls": 5, "batch": ["5"]}, "--batch conflicts with --calls"),
        ({"limits": ["1/1s"], "batch": ["0@1s"]}, "'0@1s': a batch needs at least one call"),
        ({"limits": ["1/1s"], "batch": ["5@soon"]}, "'5@soon' must be SIZE@WHEN"),
        ({"limits": ["1/1s"], "batch": ["5@"]}, "'5@' must be SIZE@WHEN"),
        ({"limits": ["1/1s"], "batch": ["5@400000h"]}, "longer than 366 days"),
        ({"limits": ["1/1s"], "calls": 5, "keys": 0}, "--keys must be 1 to 10000"),
        ({"limits": ["1/1s"], "calls": 5, "max_in_flight": 0}, "--max-in-flight must be at least 1"),
        ({"limits": ["1/1s"], "calls": 5, "max_connections": 0}, "--max-connections must be at least 1"),
        ({"limits": ["1/1s"], "calls": 5, "latency": "fast"}, "'fast' must be 0"),
        ({"limits": ["1/1s"], "calls": 5, "latency": "3s..1s"}, "'3s..1s' must be 0"),
        ({"limits": ["1/1s:fixed"], "calls": 5}, "'1/1s:fixed': a plan takes sliding windows"),
        ({"limits": ["1/1s"], "calls": 5, "calls_from": no_calls}, "--calls-from conflicts with --calls, --batches"),
        ({"limits": ["1/1s"], "batch": ["5"], "calls_from": no_calls}, "--calls-from conflicts with --calls"),
        ({"limits": ["1/1s"], "cost": 5, "calls_from": no_calls}, "--cost conflicts with --calls-from"),
        ({"limits": ["1/1s"], "calls_from": no_calls}, "a plan needs at least one batch of at least one call"),
        ({"limits": ["1/1s"], "calls": 5, "fail": 1.5}, "--fail must be a share from 0 to 1"),
        ({"limits": ["1/1s"], "calls": 5, "limited": -0.1}, "--limited must be a share from 0 to 1"),
        ({"limits": ["1/1s"], "calls": 5, "fail": math.nan}, "--fail must be a share from 0 to 1"),
        ({"limits": ["1/1s"], "calls": 5, "fail": 0.6, "limited": 0.5}, "must be at most 1 together"),
        ({"limits": ["1/1s"], "calls": 5, "reject": ["key-2"]}, "--reject: no key 'key-2'; use one of key-1"),
        ({"limits": ["1/1s"], "calls": 5, "pool": "one"}, "--pool needs --config FILE"),
        ({"limits": ["1/1s"], "calls": 10**9, "batches": 10**9}, "are too many for a plan"),
        ({"limits": ["1/1s"], "batch": [str(MOST_CALLS), "1"]}, "10000001 calls are too many for a plan"),
    ],
)
def test_bad_input_says_what_is_wrong(options: dict[str, object], message: str) -> None:
    """Each is refused before anything runs, by a message that names it."""
    with pytest.raises(ValueError, match=message):
        ask(**options)  # type: ignore[arg-type]


def test_limits_with_paths_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    """The calls of a plan have no path: only limits that count all of them hold."""
    file = tmp_path / "c.toml"
    limits = 'limits = [{ max = 5, per = "1s" }, { max = 1, per = "60s", paths = ["/search/"] }]'
    text = f"[pools.default]\n{limits}\n"
    text += '[[pools.default.keys]]\nlabel = "a"\nsecret = "sk-0123456789abcdef"\n'
    text += f'[[pools.default.groups]]\nkeys = ["a"]\n{limits}\n'
    file.write_text(text, encoding="utf-8")
    asked = ask(load(file, environ={}).pools, calls=10)
    assert asked.pool.keys[0].limits == asked.pool.groups[0].limits == (Limit(5, SECOND),)
    assert asked.notes == (
        "limits with paths are left out: the calls of a plan have none, but for those of --calls-from",
    )
