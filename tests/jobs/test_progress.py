"""What is said of a job while it runs: how far it is, when it ends and what it waits for, all as the server says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from apiflux_grpc.client.results import Held
from apiflux_grpc.client.results import Progress as Told
from apiflux_grpc.jobs.progress import STILL, Progress, Reading

SINCE = datetime(2026, 1, 1, tzinfo=UTC)


def told(done: int, total: int, eta: float | None = None, in_flight: int = 0, *held_by: Held) -> Told:
    return Told(done, total, in_flight, eta, held_by)


def held(cause: str, reason: str, *keys: str, count: int | None = None) -> Held:
    return Held(cause, reason, SINCE, None, keys, len(keys) if count is None else count)


def test_the_time_left_is_the_servers_and_runs_down() -> None:
    """It isn't reckoned from how fast calls ended: a burst of 1000 in a second says nothing of the next minute."""
    progress = Progress(2000, 100.0)
    progress.heard(1000, told(1000, 2000, 61.0), 101.0)
    assert progress.figures(101.0) == "1,000 of 2,000, 1:01 left"
    assert progress.figures(111.5) == "1,000 of 2,000, 0:51 left"
    assert progress.figures(300.0) == "1,000 of 2,000, 0:01 left"
    progress.heard(2000, told(2000, 2000, 0.0), 301.0)
    assert progress.figures(301.0) == "2,000 of 2,000"


def test_a_time_that_is_not_for_all_calls_is_not_told() -> None:
    """As long as the server doesn't know of all that is left, it can't say when they are done."""
    progress = Progress(20_000, 0.0)
    progress.heard(1000, told(1000, 3000, 10.0), 1.0)
    assert progress.figures(1.0) == "1,000 of 20,000"
    progress.heard(18_000, told(18_000, 20_000, 10.0), 2.0)
    assert progress.figures(2.0) == "18,000 of 20,000, 0:10 left"


def test_calls_of_earlier_runs_count() -> None:
    """The figures are of the whole job, whatever part of it this run has to do."""
    progress = Progress(20_000, 0.0, 5_000)
    assert progress.figures(0.0) == "5,000 of 20,000"
    progress.heard(5_709, told(709, 15_000, 171.0), 1.0)
    assert progress.figures(1.0) == "5,709 of 20,000, 2:51 left"
    assert progress.share == 5_709 / 20_000


def test_without_a_known_end_there_is_a_count_alone() -> None:
    """Of a pipe nobody knows how many calls will come."""
    progress = Progress(None, 0.0)
    progress.heard(1234, told(1234, 2000, 3.0), 1.0)
    assert progress.figures(1.0) == "1,234 done"
    assert progress.share is None


@pytest.mark.parametrize(
    ("reasons", "why"),
    [
        ([held("KEY_REJECTED", "rejected with 401", "key-c")], "key-c rejected with 401"),
        ([held("KEY_REJECTED", "rejected with 401", "a", "b", "c", count=7)], "7 keys rejected with 401"),
        ([held("LIMITED", "429 with Retry-After: 12 s", "a")], "a: 429 with Retry-After: 12 s"),
        ([held("UPSTREAM_FAILING", "upstream failing: x; next try in 8 s")], "upstream failing: x; next try in 8 s"),
        ([held("NOTHING_LEFT", "nothing left of y", "a"), held("OTHERS", "z", "b")], "a: nothing left of y; z"),
    ],
)
def test_what_holds_calls_back_is_told_with_the_keys(reasons: list[Held], why: str) -> None:
    """One key by its label, several by their number."""
    progress = Progress(10, 0.0)
    progress.heard(0, told(0, 10, None, 0, *reasons), 1.0)
    assert progress.why(1.0) == why


def test_calls_in_flight_are_what_is_waited_for_if_nothing_else_is() -> None:
    """But only when nothing has come for a while."""
    progress = Progress(10, 0.0)
    progress.heard(3, told(3, 10, 5.0, 7), 1.0)
    assert progress.why(1.0 + STILL - 0.1) == ""
    assert progress.why(1.0 + STILL) == "waiting for 7 answers"
    progress.heard(4, told(3, 10, 5.0, 1), 4.0)
    assert progress.why(4.0) == ""
    assert progress.why(4.0 + STILL) == "waiting for 1 answer"


def test_a_file_that_is_read_is_told_with_its_share() -> None:
    """If that is known."""
    assert Reading("checking calls.jsonl", lambda: 0.456).figures(0.0) == "checking calls.jsonl ... 46%"
    assert Reading("reading out.jsonl").figures(0.0) == "reading out.jsonl ..."
