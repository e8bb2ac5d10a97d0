"""What a run says of itself: failures with their place, how far it got, how to continue; and its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apiflux_grpc.client.accounts import unknown_result
from apiflux_grpc.jobs.again import Again
from apiflux_grpc.jobs.console import Console
from apiflux_grpc.jobs.ending import Ending
from apiflux_grpc.jobs.job import Job
from apiflux_grpc.jobs.report import FAILURES_SHOWN, Report
from apiflux_grpc.jobs.selection import Selected
from apiflux_grpc.v1 import apiflux_pb2 as pb


def report(**options: Any) -> Report:
    job = Job(Path("calls"), "127.0.0.1:1", **options)
    return Report(job, "calls", Console(), Again(job))


def call(index: int) -> Selected:
    return Selected(index, index + 1, "", index << 1, idempotent=False, digest=0)


def answered(status: int, failure: pb.Reason.ValueType) -> pb.CallResult:
    return pb.CallResult(failure=failure, response=pb.HttpResponse(status_code=status), key_label="a", attempts=2)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (answered(503, pb.REASON_HTTP_5XX), "calls:1: HTTP 503"),
        (answered(401, pb.REASON_KEY_REJECTED), "calls:1: HTTP 401"),
        (answered(200, pb.REASON_KEY_REJECTED), "calls:1: KEY_REJECTED: HTTP 200"),
        (answered(403, pb.REASON_LIMITED), "calls:1: LIMITED: HTTP 403"),
        (answered(200, pb.REASON_HTTP_2XX), "calls:1: HTTP_2XX: HTTP 200"),
        (answered(200, pb.REASON_BODY_CUT), "calls:1: BODY_CUT"),
        (unknown_result(0, "", "why it is not known"), "calls:1: UNKNOWN: why it is not known"),
        (unknown_result(0, "", "x" * 500), f"calls:1: UNKNOWN: {'x' * 291}"),
    ],
)
def test_a_failure_is_told_with_its_line(capsys: pytest.CaptureFixture[str], result: pb.CallResult, told: str) -> None:
    """The status if it says it all, else the reason and what the error says, of which 300 characters are shown."""
    one = report()
    one.add(result, call(0))
    one.figures(None, 0, 0)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(told)
    assert len(last) <= len("calls:1: ") + 300


def test_only_the_first_failures_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Those with the same words once, with the line of the first; and how many more there are; successes are counted,
    retries and keys too."""
    one = report()
    for index in range(FAILURES_SHOWN + 3):
        one.add(answered(500 + index % (FAILURES_SHOWN + 1), pb.REASON_HTTP_5XX), call(index))
    one.add(answered(200, pb.REASON_UNSPECIFIED), call(99))
    one.figures(None, 0, 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "... and 1 more that failed"
    assert lines[-FAILURES_SHOWN - 1 : -FAILURES_SHOWN + 2] == [
        "calls:1: HTTP 500 (and 1 more alike)",
        "calls:2: HTTP 501 (and 1 more alike)",
        "calls:3: HTTP 502",
    ]
    rows = dict(line.split(maxsplit=1) for line in lines[:6] if not line.startswith("bad"))
    assert rows["failed"] == "13: HTTP_5XX 13"
    assert rows["retries"] == "14"
    assert lines[5].split() == ["bad", "lines", "2"]


def test_waiting_is_told_as_what_one_call_waited(capsys: pytest.CaptureFixture[str]) -> None:
    """A sum over all calls is hours long after a minute, and nobody reads 60018.7 s."""
    one = report()
    for seconds in (1, 120_036):
        result = answered(200, pb.REASON_UNSPECIFIED)
        result.queue_time.seconds, result.latency.nanos = seconds, 45_000_000
        one.add(result, call(seconds))
    one.figures(None, 0, 0)
    assert "on average a call waited 16 h 40 min for its turn and took 45 ms\n" in capsys.readouterr().err


@pytest.mark.parametrize(("by_key", "told"), [({"a": 5, "b": 3}, "a 5, b 3"), (None, "a 8"), ({}, "a 8")])
def test_attempts_are_told_for_the_key_that_made_them(
    capsys: pytest.CaptureFixture[str], by_key: dict[str, int] | None, told: str
) -> None:
    """As the server counts them: a result names the key of its last attempt alone, which is told if nothing else is."""
    one = report()
    for index in range(4):
        one.add(answered(200, pb.REASON_UNSPECIFIED), call(index))
    one.figures(None, 0, 0, by_key)
    (row,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("by key")]
    assert row.split(maxsplit=2)[2] == told


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        (Ending.INTERRUPTED, "interrupted: 0 of 7 results were written"),
        (Ending.TIMED_OUT, "--timeout has passed: 0 of 7 results were written"),
        (Ending.COST_REACHED, "--max-cost is reached: 0 of 7 results were written"),
        (Ending.LIMIT_REACHED, "--limit is reached: 0 of 7 results were written"),
        (Ending.SERVER_LOST, "0 of 7 results were written"),
        (Ending.UNWRITABLE, "the last line may be incomplete"),
    ],
)
def test_a_run_that_was_cut_short_says_how_far_it_got(
    capsys: pytest.CaptureFixture[str], ending: Ending, told: str
) -> None:
    """And why; without an output nothing can be continued, so it says what would help next time."""
    one = report()
    one.how_far(ending, None, 0, 7, is_known=True, stopped_by_line=False)
    assert capsys.readouterr().err == f"{told}\n"
    one.how_to_continue(ending, None)
    hint = capsys.readouterr().err
    assert hint.startswith("with --output, ") == (ending is not Ending.SERVER_LOST)


def test_every_ending_has_its_exit_code() -> None:
    """The codes that the command line promises, each ending one of them."""
    assert {ending.name: ending.code for ending in Ending} == {
        "COMPLETE": 0,
        "REHEARSED": 0,
        "LIMIT_REACHED": 0,
        "FAULT": 1,
        "REFUSED": 2,
        "BAD_CALLS": 2,
        "OTHER_CALLS": 2,
        "CALLS_FAILED": 3,
        "FAILING": 3,
        "INTERRUPTED": 4,
        "TIMED_OUT": 4,
        "COST_REACHED": 4,
        "SERVER_LOST": 4,
        "UNWRITABLE": 4,
        "READER_LEFT": 4,
    }
