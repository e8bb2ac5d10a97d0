"""A plan is right where the answer is known in closed form, agrees with the engine, and tells it in every form."""

from __future__ import annotations

import asyncio
import io
import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from rich.console import Console

from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import MILLISECOND, SECOND, Group, Key, Kind, Limit, Pool, RetryPolicy
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.engine.ticket import Ticket
from apiflux_grpc.plan.figures import spoken
from apiflux_grpc.plan.page import charts_of, to_html
from apiflux_grpc.plan.plan import Plan, make_plan
from apiflux_grpc.plan.question import MOST_CALLS, Arrival, Question, ask, parse_batch
from apiflux_grpc.plan.show import run_plan, show
from apiflux_grpc.plan.simulation import simulate
from apiflux_grpc.settings import load
from apiflux_grpc.testing import FakePacer, SilentObserver

TEN_A_SECOND: Final = Limit(10, SECOND)
KEPT: Final = 1.0001  # seconds that a slot of a one-second window is kept


def question(
    *limits: Limit,
    keys: int = 1,
    sizes: tuple[Arrival, ...] = (Arrival(100),),
    latency: tuple[int, int] = (0, 0),
    most: int | None = None,
    max_connections: int = 1 << 40,
) -> Question:
    each = tuple(Key(f"key-{place}", "", limits, most) for place in range(keys))
    return Question(Pool("default", each, max_connections=max_connections), sizes, latency)


def shares(plan: Plan) -> dict[str, float]:
    return {name: round(share, 2) for name, share in plan.held}


# -- closed forms --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latency", "charged"),
    [(0, 0), (100 * MILLISECOND, 100 * MILLISECOND), (500 * MILLISECOND, 250 * MILLISECOND)],
    ids=["at once", "below the margin", "above the margin"],
)
def test_makespan_of_one_window(latency: int, charged: int) -> None:
    """100 calls at 10/s take nine windows of T + min(latency, J), and the last call's latency."""
    plan = make_plan(question(TEN_A_SECOND, latency=(latency, latency)))
    expected = 9 * (KEPT * SECOND + charged) + latency
    assert expected <= plan.makespan <= expected + 10 * MILLISECOND  # timers are of whole milliseconds
    assert plan.capacity == pytest.approx(10 / (1 + charged / SECOND))
    assert plan.binding == "10 per 1s"
    assert sum(share for _, share in plan.held) == pytest.approx(1 - latency / plan.makespan)


def test_two_limits_bind_in_turn() -> None:
    """60 calls at 10/s and 30/10s: three seconds of the first, a wait for the second, and again."""
    plan = make_plan(question(TEN_A_SECOND, Limit(30, 10 * SECOND), sizes=(Arrival(60),)))
    assert plan.makespan == pytest.approx(12 * SECOND, rel=0.002)
    assert shares(plan) == {"30 per 10s": 0.67, "10 per 1s": 0.33}
    assert plan.keys[0].binding == "30 per 10s"
    assert [(each.most, each.max) for each in plan.keys[0].limits] == [(10, 10), (30, 30)]


def test_max_in_flight_binds() -> None:
    """50 calls of a second, five at a time, take ten seconds, whatever the window would allow."""
    plan = make_plan(question(Limit(1000, 60 * SECOND), most=5, sizes=(Arrival(50),), latency=(SECOND, SECOND)))
    assert plan.makespan == 10 * SECOND
    assert shares(plan) == {"5 in flight": 0.9}


def test_of_two_full_limits_the_one_that_opens_last_binds() -> None:
    """Both are full at once, but the window has room again long before a call ends."""
    plan = make_plan(question(TEN_A_SECOND, most=10, latency=(5 * SECOND, 5 * SECOND)))
    assert plan.makespan == 50 * SECOND
    assert shares(plan) == {"10 in flight": 0.9}


def test_connections_bind_all_keys() -> None:
    """The pool's connections hold back keys that have room, and one more key brings nothing."""
    plan = make_plan(
        question(Limit(1000, SECOND), keys=3, max_connections=10, latency=(100 * MILLISECOND, 100 * MILLISECOND))
    )
    assert plan.makespan == plan.more.ended == SECOND
    assert shares(plan) == {"10 connections": 0.9}


def test_bursts_bind() -> None:
    """A limit that lets one call pass at a time spaces calls although its window has room."""
    plan = make_plan(question(Limit(10, SECOND, burst=1), sizes=(Arrival(8),)))
    assert plan.makespan == pytest.approx(700 * MILLISECOND, rel=0.02)
    assert plan.binding == "bursts of 1 at 10 per 1s"


def test_a_bucket_binds() -> None:
    """A bucket beside a window: its depth less what flows in during the margin, then its rate."""
    bucket = Limit(10, SECOND, kind=Kind.BUCKET, burst=5)
    plan = make_plan(question(Limit(1000, 60 * SECOND), bucket, sizes=(Arrival(50),)))
    assert plan.makespan == pytest.approx(4.75 * SECOND, rel=0.02)
    assert plan.capacity == pytest.approx(10)
    assert plan.binding == "bursts of 5 at 10 per 1s"
    assert [each.max for each in plan.keys[0].limits] == [1000]


def test_a_limit_of_a_group_binds() -> None:
    """Two keys of 10/s share 10/s, a third is alone: 20/s in all, and the group's own limit is what holds its keys."""
    asked = question(TEN_A_SECOND, keys=3)
    pool = replace(asked.pool, groups=(Group(("key-0", "key-1"), (TEN_A_SECOND,)),))
    plan = make_plan(replace(asked, pool=pool))
    assert plan.makespan == pytest.approx(4 * SECOND, rel=0.002)
    assert plan.capacity == pytest.approx(20)
    assert [key.binding for key in plan.keys] == ["10 per 1s of a group"] * 2 + ["10 per 1s"]


def test_a_small_batch_behind_a_large_one_gets_its_share() -> None:
    """10 calls that arrive behind 2,000 are done with the next window, of which half is theirs."""
    arrivals = (Arrival(2000), Arrival(10, 5 * SECOND))
    run = simulate(question(Limit(100, SECOND), sizes=arrivals, latency=(50 * MILLISECOND, 50 * MILLISECOND)))
    large, small = run.batches
    assert small.last - small.at <= 1.2 * SECOND
    assert large.last == run.ended > 20 * SECOND


def test_what_one_more_key_brings() -> None:
    """The same work with one more key like the last: ten windows become five."""
    plan = make_plan(question(TEN_A_SECOND))
    assert plan.makespan == pytest.approx(9 * SECOND, rel=0.002)
    assert plan.more.ended == pytest.approx(4 * SECOND, rel=0.002)


def test_work_below_the_limits_waits_for_nothing() -> None:
    """Calls that find room at once are held back by nothing; without any time there is no rate."""
    plan = make_plan(question(Limit(1000, SECOND), latency=(30 * MILLISECOND, 30 * MILLISECOND)))
    assert (plan.makespan, plan.held, plan.keys[0].binding) == (30 * MILLISECOND, (), "")
    plan = make_plan(question(Limit(1000, SECOND)))
    assert (plan.makespan, plan.rate, plan.use) == (0, None, None)
    assert to_html(plan)


def test_keys_without_limits() -> None:
    """They have no capacity to compare with."""
    plan = make_plan(question(latency=(SECOND, SECOND)))
    assert (plan.makespan, plan.capacity, plan.use, plan.keys[0].use) == (SECOND, None, None, None)


def test_every_call_counts_and_no_window_is_exceeded() -> None:
    """Random latencies around the margin: every call is made once, and no key is above a limit."""
    arrivals = tuple(Arrival(37, place * SECOND // 3) for place in range(20))
    asked = question(TEN_A_SECOND, Limit(40, 7 * SECOND), keys=3, sizes=arrivals, latency=(0, 400 * MILLISECOND))
    plan = make_plan(asked)
    assert sum(key.calls for key in plan.keys) == plan.calls == 740
    assert all(batch.done == batch.size and batch.at <= batch.first <= batch.last for batch in plan.run.batches)
    assert all(each.most <= each.max for key in plan.keys for each in key.limits)
    assert 0.97 < sum(share for _, share in plan.held) <= 1
    assert make_plan(asked).to_json() == plan.to_json()


# -- against the engine --------------------------------------------------------------------------


class _Silent(SilentObserver):
    def key_blocked(self, pool: str, key: str, seconds: float, status: int) -> None:
        raise AssertionError("the simulator refuses nothing")

    def crashed(self, error: BaseException, error_id: str) -> None:
        raise error


async def _served(asked: Question) -> int:
    """How long (ns) the engine takes for it on the simulator."""
    loop = asyncio.get_running_loop()

    def clock() -> int:
        return int(loop.time() * 1e9)

    def upstream() -> SimulatedUpstream:
        return SimulatedUpstream(asked.latency, clock=clock, random=random.Random(7))

    async def read(ticket: Ticket) -> None:
        while (message := await ticket.next(100)).over is None:
            ticket.credit(len(message.items), message.size)

    async def send(arrival: Arrival) -> None:
        await asyncio.sleep(arrival.at / 1e9)
        calls = [Call()] * arrival.size
        await read(engine.submit(BatchSpec(asked.pool.name, "caller", calls, RetryPolicy(), size=arrival.size)))

    engine = Engine([PoolParts(asked.pool, upstream, FakePacer)], _Silent(), clock=clock)
    await engine.start(own_thread=False)
    start = clock()
    await asyncio.gather(*map(send, asked.arrivals))
    took = clock() - start
    await engine.stop()
    return took


@pytest.mark.looptime
@pytest.mark.parametrize(
    "asked",
    [
        question(Limit(100, 5 * SECOND), keys=3, sizes=(Arrival(200),) * 10, latency=(10_000_000, 50_000_000)),
        question(Limit(100, 5 * SECOND), keys=2, sizes=(Arrival(100),) * 8, latency=(500_000_000, 3_000_000_000)),
        question(TEN_A_SECOND, Limit(60, 20 * SECOND), sizes=(Arrival(200), Arrival(9, 4 * SECOND))),
        question(Limit(50, SECOND), most=4, sizes=(Arrival(1000),), latency=(200_000_000, 400_000_000)),
        question(Limit(500, SECOND), keys=2, max_connections=20, sizes=(Arrival(3000),), latency=(0, 200_000_000)),
        question(Limit(20, 2 * SECOND, burst=3), sizes=(Arrival(100),), latency=(20_000_000, 20_000_000)),
    ],
    ids=["fast answers", "slow answers", "two limits", "in flight", "connections", "bursts"],
)
async def test_a_plan_agrees_with_the_engine(asked: Question) -> None:
    """The engine over a simulated upstream takes as long as planned, within 5 %."""
    assert await _served(asked) == pytest.approx(simulate(asked).ended, rel=0.05)


# -- what is asked -------------------------------------------------------------------------------


def test_options_make_a_question() -> None:
    """Limits, keys and equal batches, or sizes with their times, which count from the first."""
    asked = ask(limits=["1000/60s", "50/1s"], keys=3, max_in_flight=9, latency="500ms..3s", calls=20, batches=4)
    assert asked.arrivals == (Arrival(20),) * 4
    assert asked.latency == (SECOND // 2, 3 * SECOND)
    assert [key.label for key in asked.pool.keys] == ["key-1", "key-2", "key-3"]
    assert asked.pool.keys[2].limits == (Limit(1000, 60 * SECOND), Limit(50, SECOND))
    assert (asked.pool.keys[0].max_in_flight, asked.pool.max_connections) == (9, 1000)
    asked = ask(limits=["1/1s"], batch=["10@5s", "2000@1500ms", "3@1.5s"])
    assert asked.arrivals == (Arrival(2000), Arrival(3), Arrival(10, 3500 * MILLISECOND))
    assert asked.latency == (200 * MILLISECOND, 200 * MILLISECOND)
    assert (parse_batch("7"), parse_batch("7@0")) == (Arrival(7), Arrival(7))


def test_a_configuration_makes_a_question(tmp_path: Path) -> None:
    """Its keys, limits and margin, and the simulator's latency unless another is given; what isn't planned is noted."""
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
        limits = [{ max = 5, per = "1s" }]
        [[pools.two.keys]]
        label = "team-b"
        secret = "sk-fedcba9876543210"
        """,
        encoding="utf-8",
    )
    pools = load(file, environ={}).pools
    asked = ask(pools, pool="one", calls=10)
    assert (asked.pool.arrival_jitter, asked.latency) == (40 * MILLISECOND, (10 * MILLISECOND, 30 * MILLISECOND))
    assert asked.notes == (
        "the simulator fails 5.0% of its calls; in a plan none fails",
        "every call of a plan costs 1",
    )
    assert ask(pools, pool="two", calls=10).latency == (200 * MILLISECOND, 200 * MILLISECOND)
    assert ask(pools, pool="two", calls=10, latency="1s").latency == (SECOND, SECOND)
    assert ask(pools, calls=10).pool.name == "default"
    with pytest.raises(ValueError, match=r"--pool: there is no pool 'three'; pools here: default, one, two"):
        ask(pools, pool="three", calls=10)
    with pytest.raises(ValueError, match="--keys stands beside --config"):
        ask(pools, pool="one", calls=10, keys=2)
    with pytest.raises(ValueError, match=r"latency of 31s is above the pool's timeout of 30s"):
        ask(pools, pool="one", calls=10, latency="1s..31s")
    page = to_html(make_plan(asked))
    assert "team-a" in page
    assert "sk-0123456789abcdef" not in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limits": [], "calls": 1}, "--limit MAX/DURATION is missing"),
        ({"limits": ["1000"], "calls": 1}, "'1000' must be MAX/DURATION"),
        ({"limits": ["0/1s"], "calls": 1}, "'0/1s' must be at least 1"),
        ({"limits": ["1/400000h"], "calls": 1}, "longer than 366 days"),
        ({"limits": ["1/1s"]}, "--calls N is missing"),
        ({"limits": ["1/1s"], "batches": 2}, "--calls N is missing"),
        ({"limits": ["1/1s"], "calls": 0}, "must be at least 1"),
        ({"limits": ["1/1s"], "calls": 5, "batches": 0}, "must be at least 1"),
        ({"limits": ["1/1s"], "calls": 5, "batch": ["5"]}, "either --batch, or --calls"),
        ({"limits": ["1/1s"], "batch": ["0@1s"]}, "'0@1s' is no batch"),
        ({"limits": ["1/1s"], "batch": ["5@soon"]}, "'5@soon' is no batch"),
        ({"limits": ["1/1s"], "batch": ["5@"]}, "'5@' is no batch"),
        ({"limits": ["1/1s"], "batch": ["5@400000h"]}, "longer than 366 days"),
        ({"limits": ["1/1s"], "calls": 5, "keys": 0}, "--keys must be 1 to 10000"),
        ({"limits": ["1/1s"], "calls": 5, "max_in_flight": 0}, "--max-in-flight must be at least 1"),
        ({"limits": ["1/1s"], "calls": 5, "max_connections": 0}, "--max-connections must be at least 1"),
        ({"limits": ["1/1s"], "calls": 5, "latency": "fast"}, "'fast' is no latency"),
        ({"limits": ["1/1s"], "calls": 5, "latency": "3s..1s"}, "'3s..1s' is no latency"),
        ({"limits": ["1/1s"], "calls": 5, "pool": "one"}, "--config FILE, which is missing"),
        ({"limits": ["1/1s"], "calls": 10**9, "batches": 10**9}, "are too many for a plan"),
        ({"limits": ["1/1s"], "batch": [str(MOST_CALLS), "1"]}, "200001 calls are too many for a plan"),
    ],
)
def test_bad_input_says_what_is_wrong(options: dict[str, object], message: str) -> None:
    """Each is refused before anything runs, by a message that names it."""
    with pytest.raises(ValueError, match=message):
        ask(**options)  # type: ignore[arg-type]


def test_a_plan_of_centuries_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """One call in 366 days: not a plan; the exit code is that of bad input."""
    assert run_plan(ask(limits=["1/8784h"], calls=200)) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "this plan would take more than a hundred years\n")


# -- how it is told ------------------------------------------------------------------------------


def test_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is one JSON object, in seconds and shares."""
    assert run_plan(ask(limits=["10/1s"], keys=2, calls=100, latency="100ms"), as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {
        "pool",
        "calls",
        "batches",
        "latency_seconds",
        "arrival_jitter_seconds",
        "makespan_seconds",
        "calls_per_second",
        "capacity_per_second",
        "use",
        "first_result_seconds",
        "last_result_seconds",
        "binding",
        "keys",
        "one_more_key",
        "notes",
    }
    assert told["makespan_seconds"] == pytest.approx(4.5, rel=0.01)
    assert told["capacity_per_second"] == pytest.approx(20 / 1.1)
    assert told["first_result_seconds"] == {"p50": 0.1, "p99": 0.1}
    assert told["binding"][0]["name"] == "10 per 1s"
    assert told["one_more_key"]["saved_seconds"] == pytest.approx(1.1, rel=0.01)
    assert told["keys"][0] == {
        "label": "key-1",
        "calls": 50,
        "use": pytest.approx(told["use"]),
        "limits": [{"max": 10, "per_seconds": 1.0, "most": 10, "ratio": 1.0}],
        "binding": "10 per 1s",
    }


def test_tables_and_a_chart_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """The figures, the keys and the chart are on standard output."""
    assert run_plan(ask(limits=["10/1s"], keys=25, calls=1000, latency="20ms")) == 0
    out = capsys.readouterr().out
    for text in ("1,000 calls in 1 batch over 25 keys", "makespan", "10 per 1s", "one more key", "and 5 more keys"):
        assert text in out
    assert "█" in out


@pytest.mark.parametrize("width", [40, 80, 300])
def test_a_terminal_without_utf8_gets_ascii(width: int) -> None:
    """Nothing but ASCII is written, and no line is longer than the terminal is wide."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii")
    plan = make_plan(question(TEN_A_SECOND, latency=(20 * MILLISECOND, 20 * MILLISECOND)))
    show(plan, Console(file=stream, width=width))
    stream.flush()
    lines = written.getvalue().decode("ascii").splitlines()
    assert any("#" in line for line in lines)
    assert max(map(len, lines)) <= width


def test_a_page_has_the_charts_of_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Calls a second, each key's window, the results; and, of several batches, how long they took."""
    file = tmp_path / "plan.html"
    assert run_plan(ask(limits=["10/1s"], keys=2, calls=100), html=file) == 0
    page = file.read_text(encoding="utf-8")
    assert "makespan" in page
    titles = ["Calls a second", "Sent within the longest window of each key", "Results"]
    assert re.findall("<figcaption>(.*)</figcaption>", page) == titles
    several = make_plan(ask(limits=["10/1s"], calls=30, batches=3))
    first, last = next(chart for chart in charts_of(several) if chart.title == "How long the batches took").series
    assert [y for _, y in first.points] == pytest.approx([0, 100 / 3, 200 / 3, 100])
    assert first.points[-1][0] < 1 < last.points[-1][0] == several.makespan / SECOND
    capsys.readouterr()


def test_a_page_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 2, and standard output stays empty."""
    assert run_plan(ask(limits=["10/1s"], calls=10), html=tmp_path / "none" / "plan.html") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "can't be written" in err


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0.0 ms"),
        (1_500_000, "1.5 ms"),
        (250 * MILLISECOND, "250 ms"),
        (12_340 * MILLISECOND, "12.3 s"),
        (110 * SECOND, "110 s"),
        (200 * SECOND, "3 min 20 s"),
        (3600 * SECOND, "1 h 0 min"),
        (90_000 * SECOND, "1 d 1 h"),
        (900_000 * SECOND, "10 d 10 h"),
    ],
)
def test_lengths_of_time(ns: int, text: str) -> None:
    """Lengths are told as people say them."""
    assert spoken(ns) == text
