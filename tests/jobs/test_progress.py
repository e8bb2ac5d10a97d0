"""What is said of a job while it runs: how far it is, when it ends and what it waits for, all as the server says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from grpc import StatusCode

from apiflux_grpc.client import ApifluxError, Overloaded, Unavailable
from apiflux_grpc.client.results import Held
from apiflux_grpc.client.results import Progress as Told
from apiflux_grpc.jobs.progress import STILL, Progress, Reading

SINCE = datetime(2026, 1, 1, tzinfo=UTC)


def told(done: int, total: int, eta: float | None = None, *held_by: Held, **more: Any) -> Told:
    return Told(done, total, more.pop("in_flight", 0), eta, held_by, **more)


def held(cause: str, reason: str, *keys: str, count: int | None = None, wait: float | None = None) -> Held:
    return Held(cause, reason, SINCE, None, keys, len(keys) if count is None else count, wait)


def test_the_time_left_is_the_servers_and_runs_down() -> None:
    """It isn't reckoned from how fast calls ended: a burst of 1000 in a second says nothing of the next minute."""
    progress = Progress(2000, 100.0, to_send=2000)
    progress.heard(1000, told(1000, 2000, 61.0), 101.0)
    assert progress.figures(101.0) == "1,000 of 2,000, 1:01 left"
    assert progress.figures(111.5) == "1,000 of 2,000, 0:51 left"
    assert progress.figures(300.0) == "1,000 of 2,000, 0:01 left"
    progress.heard(2000, told(2000, 2000, 0.0), 301.0)
    assert progress.figures(301.0) == "2,000 of 2,000"


def test_a_time_that_is_not_for_all_calls_is_not_told() -> None:
    """A server that doesn't know of all that is left can't say when they are done: one of an earlier version
    isn't told how many will come."""
    progress = Progress(20_000, 0.0, to_send=20_000)
    progress.heard(1000, told(1000, 3000, 10.0), 1.0)
    assert progress.figures(1.0) == "1,000 of 20,000"
    progress.heard(18_000, told(18_000, 20_000, 10.0), 2.0)
    assert progress.figures(2.0) == "18,000 of 20,000, 0:10 left"


def test_a_time_for_calls_that_the_server_was_told_of_is_told() -> None:
    """From the start, while most of them are still in the file, and in a run that has only a part of them to do."""
    progress = Progress(20_000, 0.0, 5_000, to_send=15_000)
    progress.heard(5_000, told(0, 2_000, 240.0, to_come=13_000, rate=83.3), 1.0)
    assert progress.figures(1.0) == "5,000 of 20,000, 83/s, 4:00 left"
    progress.heard(5_000, told(0, 2_000, 240.0, to_come=12_999), 2.0)
    assert progress.figures(2.0) == "5,000 of 20,000"


def test_neither_time_nor_rate_is_told_while_the_upstream_fails() -> None:
    """The server reckons from the next try on, and nobody knows how that ends."""
    progress = Progress(10, 0.0, to_send=10)
    failing = held("UPSTREAM_FAILING", "upstream failing: connection refused; next try in 8 s")
    progress.heard(3, told(3, 10, 60.0, failing, rate=5.0), 1.0)
    assert progress.figures(1.0) == "3 of 10"


def test_calls_of_earlier_runs_count() -> None:
    """The figures are of the whole job, whatever part of it this run has to do."""
    progress = Progress(20_000, 0.0, 5_000, to_send=15_000)
    assert progress.figures(0.0) == "5,000 of 20,000"
    progress.heard(5_709, told(709, 15_000, 171.0), 1.0)
    assert progress.figures(1.0) == "5,709 of 20,000, 2:51 left"
    assert progress.share == 5_709 / 20_000


def test_calls_that_are_not_sent_have_no_part_in_the_time() -> None:
    """Those that an earlier run left in doubt, and those beyond a limit of this run."""
    progress = Progress(20_000, 0.0, 10_000, to_send=8_000)
    progress.heard(12_000, told(0, 2_000, 114.0, to_come=6_000), 1.0)
    assert progress.figures(1.0) == "12,000 of 20,000, 1:54 left"


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
        ([held("NOTHING_LEFT", "nothing left of y", "a"), held("OTHERS", "z", "b")], "a: nothing left of y | b: z"),
    ],
)
def test_what_holds_calls_back_is_told_with_the_keys(reasons: list[Held], why: str) -> None:
    """One key by its label, several by their number."""
    progress = Progress(10, 0.0, to_send=10)
    progress.heard(0, told(0, 10, None, *reasons), 1.0)
    assert progress.why(1.0) == why.split(" | ")


def test_calls_in_flight_are_what_is_waited_for_if_nothing_else_is() -> None:
    """But only when nothing has come for a while."""
    progress = Progress(10, 0.0, to_send=10)
    progress.heard(3, told(3, 10, 5.0, in_flight=7), 1.0)
    assert progress.why(1.0 + STILL - 0.1) == []
    assert progress.why(1.0 + STILL) == ["waiting for 7 answers"]
    progress.heard(4, told(3, 10, 5.0, in_flight=1), 4.0)
    assert progress.why(4.0) == []
    assert progress.why(4.0 + STILL) == ["waiting for 1 answer"]


def test_a_job_that_is_told_to_end_waits_for_what_is_in_flight() -> None:
    """What the others would have waited for, and when they would have been done, doesn't matter any more."""
    ended: list[int] = []
    progress = Progress(10, 0.0, to_send=10, is_ending=lambda: bool(ended))
    waits_for = held("SPENT", "10/60s of a", wait=12.0)
    progress.heard(3, told(3, 10, 60.0, in_flight=2, rate=5.0, waits_for=waits_for), 1.0)
    assert progress.figures(1.0) == "3 of 10, 5/s, 1:00 left"
    ended.append(1)
    assert progress.figures(1.0) == "3 of 10"
    assert progress.why(1.0) == ["waiting for 2 answers"]


def test_a_pipe_without_calls_is_told() -> None:
    """As long as the server has nothing to do; a file has all its calls."""
    progress, file = Progress(None, 0.0), Progress(9, 0.0, to_send=9)
    for one in (progress, file):
        one.heard(3, told(3, 3), 1.0)
    assert progress.why(1.0) == []
    assert progress.why(1.0 + STILL) == ["waiting for the input"]
    assert file.why(1.0 + STILL) == []
    progress.heard(3, told(3, 4), 4.0)
    assert progress.why(4.0) == []


def test_a_limit_that_is_waited_for_is_told_with_its_time() -> None:
    """If it takes a second or more, or nothing has come for a while: else calls go on, and the pace tells it."""
    progress = Progress(10, 0.0, to_send=10)
    progress.heard(3, told(3, 10, 60.0, waits_for=held("SPENT", "1000/60s of 5 keys", wait=12.0)), 1.0)
    assert progress.why(1.0) == ["waiting for 1000/60s of 5 keys, 12 s"]
    assert progress.why(4.5) == ["waiting for 1000/60s of 5 keys, 9 s"]
    assert progress.why(20.0) == ["waiting for 1000/60s of 5 keys"]
    progress.heard(4, told(4, 10, 60.0, waits_for=held("SPENT", "10/1s of a", wait=0.3)), 21.0)
    assert progress.why(21.0) == []
    progress.heard(4, told(4, 10, 60.0, waits_for=held("BACKOFF", "the next attempt of a call", wait=0.3)), 23.0)
    assert progress.why(23.0) == ["waiting for the next attempt of a call, 1 s"]


def test_what_holds_keys_back_is_told_with_its_time() -> None:
    """By our clock, since when it was told; what only slows a key down has none. What the others wait for follows."""
    reasons = [
        held("KEY_REJECTED", "rejected with 401", "key-c", wait=8.0),
        held("LIMITED", "429 with Retry-After: 30 s", "a", "b", wait=29.2),
        held("LOWER_LIMIT", "refused", "d", wait=60.0),
    ]
    progress = Progress(10, 0.0, to_send=10)
    progress.heard(3, told(3, 10, 60.0, *reasons, waits_for=held("SPENT", "9/1s of e", wait=2.0)), 1.0)
    assert progress.why(2.0) == [
        "key-c rejected with 401; next try in 7 s",
        "2 keys: 429 with Retry-After: 30 s; next try in 29 s",
        "d: refused",
        "waiting for 9/1s of e, 1 s",
    ]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Unavailable("x", code=StatusCode.UNAVAILABLE), "the server is gone; waiting for it to come back"),
        (
            Unavailable("x", code=StatusCode.UNAVAILABLE, reason="DRAINING"),
            "the server is shutting down; waiting for it to come back",
        ),
        (
            Overloaded("full", code=StatusCode.RESOURCE_EXHAUSTED, reason="TOO_MANY_CALLS"),
            "the server takes no more for now (TOO_MANY_CALLS: full); trying again",
        ),
    ],
)
def test_a_server_that_is_lost_is_told_and_so_is_its_return(error: ApifluxError, words: str) -> None:
    """Meanwhile that alone is waited for, and what it said before of time and pace doesn't hold any more."""
    progress = Progress(10, 0.0, to_send=10)
    progress.heard(3, told(3, 10, 60.0, held("LIMITED", "429", "a"), rate=3.0), 1.0)
    assert progress.connection(error, 2.0) == words
    assert progress.why(6.5) == ["waiting for the server, 5 s so far"]
    assert progress.figures(6.5) == "3 of 10"
    assert progress.connection(None, 14.0) == "the server is back after 12 s"
    assert progress.figures(14.0) == "3 of 10, 3/s, 0:47 left"


def test_a_file_that_is_read_is_told_with_its_share() -> None:
    """If that is known."""
    assert Reading("checking calls.jsonl", lambda: 0.456).figures(0.0) == "checking calls.jsonl ... 46%"
    assert Reading("reading out.jsonl").figures(0.0) == "reading out.jsonl ..."
