"""A plan is told in every form: for machines, for people, on a terminal without UTF-8, as a page."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from apiflux_grpc.core.units import MILLISECOND, SECOND, spoken
from apiflux_grpc.plan.page import charts_of
from apiflux_grpc.plan.plan import make_plan
from apiflux_grpc.plan.question import ask
from apiflux_grpc.plan.show import run_plan, show
from tests.plan.asked import TEN_A_SECOND, question


def test_a_plan_of_centuries_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """One call in 366 days: not a plan; the exit code is that of bad input."""
    assert run_plan(ask(limits=["1/8784h"], calls=200)) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "this plan would take more than a hundred years; plan fewer calls or more keys\n")


def test_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is one JSON object, in seconds and shares."""
    assert run_plan(ask(limits=["10/1s"], keys=2, calls=100, latency="100ms"), as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {
        "pool",
        "calls",
        "cost",
        "batches",
        "latency_seconds",
        "arrival_jitter_seconds",
        "attempts",
        "failed",
        "limit_cuts",
        "fail_share",
        "limited_share",
        "rejected_keys",
        "seed",
        "makespan_seconds",
        "calls_per_second",
        "capacity_per_second",
        "use",
        "first_result_seconds",
        "last_result_seconds",
        "binding",
        "keys",
        "limits",
        "one_more_key",
        "notes",
    }
    assert told["makespan_seconds"] == pytest.approx(4.5, rel=0.01)
    assert told["capacity_per_second"] == pytest.approx(20 / 1.1)
    assert told["first_result_seconds"] == {"p50": 0.1, "p99": 0.1}
    assert told["binding"][0]["name"] == "10 calls per 1s"
    assert told["one_more_key"]["saved_seconds"] == pytest.approx(1.1, rel=0.01)
    assert told["keys"][0] == {
        "label": "key-1",
        "calls": 50,
        "use": pytest.approx(told["use"]),
        "limits": [{"max": 10, "per_seconds": 1.0, "most": 10, "ratio": 1.0}],
        "binding": "10 calls per 1s",
    }


def test_failures_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Attempts and the reasons of failed calls are figures, for machines and, if there are any, for people."""
    asked = ask(limits=["10/1s"], keys=3, calls=100, latency="20ms", fail=0.9, reject=["key-2"], seed=3)
    assert run_plan(asked, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["fail_share"], told["rejected_keys"], told["seed"]) == (0.9, ["key-2"], 3)
    failed = sum(told["failed"].values())
    assert set(told["failed"]) <= {"HTTP_5XX", "KEY_REJECTED", "NO_USABLE_KEY"}
    assert 0 < failed <= 100 < told["attempts"]
    assert run_plan(asked) == 0
    out = capsys.readouterr().out
    assert re.search(rf"succeeded +. {100 - failed} of 100 calls", out)
    assert re.search(rf"attempts +. {told['attempts']:,} ", out)
    assert f"{told['failed']['HTTP_5XX']} HTTP_5XX" in out
    assert run_plan(ask(limits=["10/1s"], calls=10)) == 0
    assert "attempts" not in capsys.readouterr().out


def test_tables_and_a_chart_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """The figures, the keys and the chart are on standard output."""
    assert run_plan(ask(limits=["10/1s"], keys=25, calls=1000, latency="20ms")) == 0
    out = capsys.readouterr().out
    for text in (
        "1,000 calls in 1 batch over 25 keys",
        "makespan",
        "10 calls per 1s",
        "one more key",
        "and 5 more keys",
    ):
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
