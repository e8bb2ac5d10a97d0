"""When a job ends by itself because its calls fail."""

from __future__ import annotations

import pytest

from apiflux_grpc.client.accounts import unknown_result
from apiflux_grpc.jobs.guard import NO_END, SAMPLE, Guard
from apiflux_grpc.v1 import apiflux_pb2 as pb

GOOD = pb.CallResult(response=pb.HttpResponse(status_code=200))
WAITED = pb.CallResult(failure=pb.REASON_LIMITED, response=pb.HttpResponse(status_code=429))
NO_ANSWER = unknown_result(0, "", "why it is not known")

NO_KEY = pb.CallResult(failure=pb.REASON_NO_USABLE_KEY)


def failed(status: int) -> pb.CallResult:
    reason = pb.REASON_HTTP_5XX if status >= 500 else pb.REASON_HTTP_4XX
    return pb.CallResult(failure=reason, response=pb.HttpResponse(status_code=status))


def told(guard: Guard, *results: pb.CallResult) -> str:
    for result in results:
        if guard.is_watching:
            guard.add(result)
    return guard.why


@pytest.mark.parametrize(("result", "how"), [(failed(404), "HTTP_4XX: HTTP 404"), (NO_ANSWER, "UNKNOWN")])
def test_a_sample_that_failed_alike_ends_it(result: pb.CallResult, how: str) -> None:
    """At its last result and not before, with what all of them failed of."""
    guard = Guard()
    assert told(guard, *[result] * (SAMPLE - 1)) == ""
    assert told(guard, result) == f"the first 50 results all failed alike ({how})"
    assert not guard.is_watching


@pytest.mark.parametrize("other", [GOOD, failed(400), failed(500), NO_ANSWER])
@pytest.mark.parametrize("place", [0, 1, SAMPLE - 1])
def test_one_result_that_is_not_like_the_others_clears_the_rest(other: pb.CallResult, place: int) -> None:
    """Wherever in the sample it comes; another status of the same reason is another failure."""
    guard = Guard()
    results = [failed(404)] * (SAMPLE - 1)
    assert told(guard, *results[:place], other, *results[place:], *results) == ""
    assert not guard.is_watching


@pytest.mark.parametrize("tried", [0, 1, SAMPLE - 2])
def test_calls_without_a_usable_key_failed_as_those_before_them(tried: int) -> None:
    """Few calls find out that every key is wrong, and all others end without being sent."""
    guard = Guard()
    rejected = pb.CallResult(failure=pb.REASON_KEY_REJECTED, response=pb.HttpResponse(status_code=401))
    assert told(guard, NO_KEY, *[rejected] * tried, *[NO_KEY] * (SAMPLE - 2 - tried)) == ""
    how = "KEY_REJECTED: HTTP 401" if tried else "NO_USABLE_KEY"
    assert told(guard, NO_KEY) == f"the first 50 results all failed alike ({how})"
    guard = Guard()
    assert told(guard, *[rejected, NO_KEY] * 10, failed(404), *[NO_KEY] * SAMPLE) == ""
    guard = Guard()
    assert told(guard, *[NO_KEY] * 10, GOOD, *[NO_KEY] * SAMPLE) == ""


def test_limits_and_waits_are_no_part_of_the_sample() -> None:
    """A thousand of them end nothing, nor do they keep what follows from being seen."""
    guard = Guard()
    assert told(guard, *[WAITED] * 1_000) == ""
    assert told(guard, *[failed(404), WAITED] * (SAMPLE - 1)) == ""
    assert told(guard, failed(404))


def test_with_a_bound_every_failure_counts_and_likeness_does_not() -> None:
    """It ends with the first failure above it, however many succeeded before; one bound is not the other."""
    guard = Guard(3)
    assert told(guard, failed(404), GOOD, failed(500), WAITED, *[GOOD] * 100) == ""
    assert told(guard, NO_ANSWER) == "more than 3 calls failed (--max-failures)"
    assert told(Guard(0), *[GOOD] * 100) == ""
    assert told(Guard(0), failed(404)) == "more than 0 calls failed (--max-failures)"
    assert told(Guard(1_000), *[failed(404)] * 1_000) == ""


def test_without_an_end_nothing_is_watched() -> None:
    """Whatever comes."""
    guard = Guard(NO_END)
    assert not guard.is_watching
    assert told(guard, *[failed(404)] * 1_000) == ""
