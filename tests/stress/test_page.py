"""A page shows what the results were, also of a run that was cut short, and what the judge says."""

from __future__ import annotations

import re

import pytest

from apiflux_grpc import charts
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.report import KeyReport, LimitReport, Repeat, Report
from apiflux_grpc.stress.figures import Measured, Request, counts, verdict
from apiflux_grpc.stress.page import charts_of, to_html
from tests.stress.results import MINUTE, START, two_requests


def chart(measured: Measured, title: str) -> charts.Chart:
    return next(each for each in charts_of(measured) if each.title.startswith(title))


def last_of(series: charts.Series) -> float:
    return series.points[-1][1]


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        ({"a": [(6, MINUTE)]}, 0),
        ({"a": [(5, MINUTE)]}, 60),
        ({"a": [(2, MINUTE)]}, 120),
        ({"a": [(2, MINUTE), (1, SECOND)]}, 120),
        ({"a": [(5, MINUTE), (1, 7 * SECOND)]}, 60),
        ({"a": [(2, MINUTE)], "b": [(1, 70 * SECOND)]}, 70),
        ({"a": [(2, MINUTE)], "b": []}, None),
        ({}, None),
    ],
)
def test_the_least_time_is_when_enough_windows_have_begun(
    limits: dict[str, list[tuple[int, int]]], seconds: float | None
) -> None:
    """Six results, as early as the limits of all keys together allow, each by its tightest; then the share is told."""
    measured = two_requests(**limits)
    assert measured.least_time == seconds
    measured.elapsed = 90.0
    told = dict(counts(measured)).get("possible at best")
    assert told == (f"{seconds:.2f} s by the keys' limits ({min(1, seconds / 90):.0%} used)" if seconds else None)


# -- what is drawn -------------------------------------------------------------------------------


def test_calls_a_second_are_over_the_longest_window_against_all_limits() -> None:
    """Windows end at the instant shown; the level is the sum of what the tightest limit of each key allows."""
    measured = two_requests(a=[(2, SECOND), (90, MINUTE)], b=[(60, MINUTE)])
    drawn = chart(measured, "Calls a second, over the last 60s")
    assert [at - START for at in measured.sent["b"]] == [SECOND // 2, SECOND]
    (calls,) = drawn.series
    assert calls.points[0] == pytest.approx((0, 1 / 60))
    assert calls.points[-1] == pytest.approx((3, 6 / 60))
    assert [line.y for line in drawn.lines] == pytest.approx([1.5 + 1])
    assert chart(two_requests(a=[(2, SECOND)], b=[]), "Calls a second, over the last 1s").lines == []


def test_the_use_of_a_key_is_a_share_of_its_own_limit() -> None:
    """In percent of its longest window; a key without a limit isn't drawn, nor more keys than can be told apart."""
    drawn = chart(
        two_requests(a=[(100, SECOND), (8, MINUTE)], b=[(1, SECOND)]), "Use of the longest window of each key"
    )
    assert [(series.name, last_of(series)) for series in drawn.series] == [("a", 50), ("b", 0)]
    assert max(percent for _, percent in drawn.series[1].points) == 200  # at 0.5 and 1 s
    some = chart(two_requests(a=[(8, MINUTE)], b=[]), "Use of the longest window of the first 1 keys")
    assert [series.name for series in some.series] == ["a"]
    assert [each.title for each in charts_of(two_requests(a=[], b=[])) if "Use" in each.title] == []


def test_latencies_are_those_of_the_calls() -> None:
    """In milliseconds, with the percentiles named."""
    drawn = chart(two_requests(), "Latency")
    assert drawn.series[0].points[-1] == pytest.approx((200, 100))
    assert [(line.name, line.y) for line in drawn.lines] == [
        ("p50: 100 ms", 50),
        ("p90: 200 ms", 90),
        ("p99: 200 ms", 99),
    ]


def test_fairness_is_how_far_apart_the_batches_are() -> None:
    """At each instant the furthest, the middle and the last, in percent of a batch's calls; when requests ended."""
    furthest, _, last = chart(two_requests(), "Fairness").series
    assert (last_of(furthest), last_of(last)) == (100, 50)
    assert furthest.points[0][1] == last.points[0][1] == 0
    first = chart(two_requests(), "Time to first result").series[0]
    assert [at for at, _ in first.points] == pytest.approx([0.1, 0.1, 0.7])
    assert chart(two_requests(), "When the requests ended").series[0].points == [(3.2, 0), (3.2, 100)]


# -- the page ------------------------------------------------------------------------------------


def test_a_page_of_a_run_that_was_cut_short() -> None:
    """It says how much is missing, shows the rest, and that no judge was asked."""
    page = to_html(two_requests(a=[(8, MINUTE)], b=[(8, MINUTE)]), None)
    assert "2 of 8 calls have no result" in page
    assert "no judge was asked" in page
    assert page.count("<figcaption>") == 6
    assert '<th scope="row">429s drawn</th>\n<td>1</td>' in page.replace("</th><td>", "</th>\n<td>")
    nothing = to_html(Measured([Request()], 4), None)
    assert "4 of 4 calls have no result" in nothing
    assert "<svg" not in nothing


def test_the_verdict_is_the_judges() -> None:
    """Every violation is a sentence of the page; without one it says how close it was."""
    good = Report((KeyReport("a", 8, 0, (LimitReport(8, MINUTE, 8),)),))
    assert verdict(good) == ["the judge: no violation; 8 calls, worst window at 1.000 of its limit, 0 rejected"]
    bad = Report((KeyReport("<a>", 9, 1, (LimitReport(8, MINUTE, 9),)),), resent=1, repeats=(Repeat("/x", (1, 1)),))
    page = to_html(Measured([Request()], 4), bad)
    assert page.count('<p class="verdict bad">violation: ') == 2
    whole = two_requests()
    whole.requests.pop()
    whole.results = whole.total
    assert re.findall('class="(verdict.*)">', to_html(whole, good)) == ["verdict good"]
    assert re.findall('class="(verdict.*)">', to_html(whole, None)) == ["verdict"]
    assert re.findall('class="(verdict.*)">', to_html(two_requests(), good)) == ["verdict good", "verdict bad"]
    assert "<td>&lt;a&gt;</td><td>10</td><td>9</td><td>1</td><td>9 of 8 in 60s (112.5%)</td>" in page
