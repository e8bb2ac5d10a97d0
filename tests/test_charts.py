"""A page is one file that loads nothing, a chart says what it was given, and without the extra nobody waits in vain."""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from apiflux_grpc import charts
from apiflux_grpc.plan.question import ask
from apiflux_grpc.plan.show import run_plan
from apiflux_grpc.stress.options import QUICK
from apiflux_grpc.stress.run import run_stress

CHART = charts.Chart(
    "Calls a second",
    "seconds",
    "calls a second",
    [
        charts.Series("one", [(0, 0), (1, 20), (2, 5)], step=True, area=True),
        charts.Series("two", [(0, 3), (2, 4)]),
    ],
    [charts.Line("limit", 25)],
)


def drawn(chart: charts.Chart) -> list[str]:
    """The pictures of a chart."""
    return re.findall(r"<svg .*?</svg>", charts.svg(chart), re.DOTALL)


# -- the page ------------------------------------------------------------------------------------


def test_a_page_loads_nothing_and_runs_nothing() -> None:
    """No address, no script, no import, no url(): the file is all there is. Light and dark by the reader's choice."""
    page = charts.page("title", [charts.svg(CHART), charts.table(("head",), [("cell",)])])
    for text in ("http:", "https:", "//", "url(", "@import", "<script", "<link", "<img", "<use", "src=", "href="):
        assert text not in page
    assert "prefers-color-scheme: dark" in page
    assert page.count("<svg") == page.count("</svg>") == 2


def test_every_colour_has_a_light_and_a_dark_value() -> None:
    """A chart names colours only by variables, and the style sets each of them twice."""
    page = charts.page("title", [charts.svg(CHART)])
    used = set(re.findall(r"var\((--\w+)\)", page))
    assert {"--s0", "--s1", "--soft", "--grid"} <= used
    for name in used:
        assert charts.STYLE.count(f"{name}:") == 2, name
    assert not re.search(r'(?:fill|stroke)="(?!none|transparent|var\()', charts.svg(CHART))


def test_texts_are_escaped() -> None:
    """A name can't add elements, attributes or expressions of its own."""
    names = ["<b>&\"'", "\\ ${datum} \u2028 é"]
    series = [charts.Series(name, [(0, 0), (1, 2)]) for name in names]
    picture = charts.svg(charts.Chart('a "title" <i>', "<x>", "<y>", series))
    assert not re.search("<[bixy]>", picture)
    assert "&lt;b&gt;&amp;\"'</text>" in picture
    assert "\\ ${datum} \u2028 é</text>" in picture
    assert "&lt;x&gt;</text>" in picture
    assert 'aria-label="a &quot;title&quot; &lt;i&gt;' in picture
    assert "<td>&lt;i&gt;</td>" in charts.table(("head",), [("<i>",)])
    assert "<title>&lt;i&gt;</title>" in charts.page("<i>", [])


# -- charts --------------------------------------------------------------------------------------


def test_a_chart_is_drawn_wide_and_narrow_and_tells_what_it_is() -> None:
    """Each picture has the series, the level, the legend and both axes, and words for those who don't see it."""
    wide, narrow = drawn(CHART)
    assert 'class="wide" viewBox="0 0 720 ' in wide
    assert 'class="narrow" viewBox="0 0 360 ' in narrow
    for picture in (wide, narrow):
        assert 'role="img" aria-label="Calls a second. calls a second by seconds: one, two, limit"' in picture
        texts = re.findall("<text[^>]*>([^<]*)</text>", picture)
        assert {"one", "two", "limit", "seconds", "calls a second", "0", "25"} <= set(texts)


def lines(picture: str) -> list[tuple[str, str, str]]:
    """(path, colour, dashes) of each series and level, in their order."""
    return re.findall(r'"mark-line[^>]*><path d="([^"]*)" stroke="([^"]*)"[^>]* stroke-dasharray="([^"]*)"', picture)


def heights(path: str) -> list[float]:
    return [float(y) for y in re.findall(r",([\d.]+)", path)]


def test_points_lie_where_they_belong() -> None:
    """From zero to a round number above everything; a step holds its y until the next x."""
    one, two, limit = (heights(path) for path, _, _ in lines(drawn(CHART)[0]))
    whole = one[0]  # of zero
    assert [1 - y / whole for y in one] == pytest.approx([0, 0, 20 / 25, 20 / 25, 5 / 25])
    assert [1 - y / whole for y in two] == pytest.approx([3 / 25, 4 / 25])
    assert limit == [0, 0]
    half = drawn(replace(CHART, x_end=4))[0]
    assert float(re.findall(r"L([\d.]+),", lines(half)[0][0])[-1]) == pytest.approx(
        float(re.findall(r"L([\d.]+),", lines(half)[2][0])[-1]) / 2
    )


def test_series_differ_by_colour_and_by_dash() -> None:
    """Up to DISTINCT of them no two share either, and levels look like none of them."""
    series = [charts.Series("same name", [(0, place), (1, place)]) for place in range(charts.DISTINCT)]
    looks = lines(drawn(replace(CHART, series=series))[0])
    assert len(looks) == charts.DISTINCT + 1
    assert len({colour for _, colour, _ in looks}) == charts.DISTINCT + 1
    assert len({dashes for _, _, dashes in looks[:-1]}) == charts.DISTINCT


@pytest.mark.parametrize("series", [[charts.Series("none", [])], [charts.Series("zero", [(0, 0)])]])
def test_a_chart_of_nothing_is_drawn(series: list[charts.Series]) -> None:
    """Axes without a series."""
    wide, narrow = drawn(charts.Chart("nothing", "x", "y", series))
    assert ">x</text>" in wide
    assert ">x</text>" in narrow


# -- points --------------------------------------------------------------------------------------


def test_the_spread_of_values() -> None:
    """From 0 % at the least to 100 % at the greatest; as many points as are drawn, however many the values."""
    assert charts.spread([]) == []
    assert charts.spread([3, 1, 2, 2]) == [(1, 0), (1, 25), (2, 50), (2, 75), (3, 100)]
    many = charts.spread(range(100_000))
    assert len(many) == charts.SAMPLES + 1
    assert many[-1] == pytest.approx((99_999, 100))
    assert all(percent == pytest.approx((value + 1) / 1000) for value, percent in many[1:])


def test_quantiles() -> None:
    """The value with so many below it; of nothing there is none."""
    assert [charts.quantile([3, 1, 2], part) for part in (0, 0.5, 0.99, 1)] == [1, 2, 3, 3]
    with pytest.raises(IndexError):
        charts.quantile(list[float](), 0.5)


def test_counting_in_a_window() -> None:
    """A window is open at its beginning: what came exactly `per` ago is out of it."""
    end = charts.SAMPLES
    counts = dict(charts.counted([0, 10, 10, 20], end, 10))
    assert [counts[at] for at in (0, 9, 10, 19, 20, 29, 30, end)] == [1, 1, 2, 2, 1, 1, 0, 0]
    assert charts.counted([0, 10, 10, 20], end)[20:] == [(at, 4) for at in range(20, end + 1)]


@pytest.mark.parametrize(
    ("span", "unit"), [(0, (1, "seconds")), (180, (1, "seconds")), (181, (60, "minutes")), (1e6, (86400, "days"))]
)
def test_units_of_an_axis(span: float, unit: tuple[int, str]) -> None:
    """More than three of a unit make it the unit."""
    assert charts.time_unit(span) == unit


# -- without the extra, or a place to write to ---------------------------------------------------


def test_without_the_extra_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who asks for a page is told at once what to install, with exit code 2; who doesn't needs nothing of it."""
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    question = ask(limits=["10/1s"], calls=10)
    file = tmp_path / "page.html"
    assert run_plan(question, html=file) == 2
    assert asyncio.run(run_stress(QUICK, "127.0.0.1:1", 1, None, file)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("pip install '.[report]'") == 2
    assert not file.exists()
    assert run_plan(question) == 0
    capsys.readouterr()


def test_a_place_that_cannot_be_written_to_is_named_at_once(tmp_path: Path) -> None:
    """A folder, or a file in no folder; a new file and an old one are fine, and stay as they are."""
    for place in (tmp_path, tmp_path / "none" / "page.html"):
        with pytest.raises(charts.CannotReport, match=f"{re.escape(str(place))} can't be written"):
            charts.ready(place)
        with pytest.raises(charts.CannotReport, match=f"{re.escape(str(place))} can't be written: "):
            charts.write(place, "text")
    file = tmp_path / "page.html"
    charts.ready(file)
    assert not file.exists()
    charts.write(file, "text")
    charts.ready(file)
    assert file.read_text(encoding="utf-8") == "text"


# -- text ----------------------------------------------------------------------------------------


def test_columns_of_text() -> None:
    """Each value is a column; the line shows between them; anything above zero is seen."""
    assert charts.columns([4, 2, 0, 0.01], 3, 4) == ["█───", "█   ", "██  ", "██ ▁"]
    assert charts.columns([4, 2, 0, 0.01], 3, 4, plain=True) == ["#---", "#   ", "##  ", "## ."]
    assert charts.columns([0, 0], None, 2) == ["  ", "  "]
