"""The report as a table says what a limit of cost counts."""

import io

from apiflux_grpc.judge.report import KeyReport, LimitReport, Report
from apiflux_grpc.judge.showing import print_report


def test_requests_that_an_api_refuses_are_told() -> None:
    """A job whose calls are all wrong isn't one that went well: they are counted by status."""
    shown = io.StringIO()
    print_report(Report((KeyReport("a", 9, 0, ()),), refused={404: 2, 400: 3}), shown)
    assert "3 with 400, 2 with 404." in shown.getvalue()


def test_a_noun_follows_its_number() -> None:
    """One arrival is no arrivals."""
    shown = io.StringIO()
    print_report(Report((KeyReport("a", 1, 0, (), others=1),)), shown)
    assert "\n1 arrival; " in shown.getvalue()
    assert "Others made 1 call with" in shown.getvalue()


def test_a_label_is_shown_as_it_is() -> None:
    """Nothing in it is taken for an emoji or a colour."""
    shown = io.StringIO()
    print_report(Report((KeyReport("a:100:[red]", 9, 0, ()),)), shown)
    assert "a:100:[red]" in shown.getvalue()


def test_a_limit_of_cost_is_shown_in_its_unit() -> None:
    """Of OpenAI's API it is tokens, of no API in particular cost; calls have no unit."""
    limits = (LimitReport(10, 10**9, 9), LimitReport(100, 10**9, 70, "cost"))
    report = Report((KeyReport("a", 9, 0, limits),))
    for unit in ("cost", "tokens"):
        shown = io.StringIO()
        print_report(report, shown, unit)
        assert "9 of 10 in 1s (90.0%)" in shown.getvalue()
        assert f"70 of 100 {unit} in 1s (70.0%)" in shown.getvalue()
