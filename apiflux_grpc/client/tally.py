"""Counting results: the summary of a batch whose server could not give one.

Rule: it knows only what results say. What is a failure the server says, by what the pool counts as success. All
attempts of a call are counted for the key of the last; `time_in_calls` has the last attempt of each call alone.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Final

from google.rpc import error_details_pb2

from apiflux_grpc.client.words import word_of
from apiflux_grpc.v1 import apiflux_pb2 as pb

_REASON: Final = pb.Reason.DESCRIPTOR


def failure_of(result: pb.CallResult) -> str:
    """Why a call failed, in the words of Summary.failed_by_reason; "": it didn't."""
    if result.failure or not result.HasField("error"):
        return word_of(_REASON, result.failure)
    return error_info(result).reason or "UNKNOWN"


def error_info(result: pb.CallResult) -> error_details_pb2.ErrorInfo:
    """What the error of a result says for machines."""
    info = error_details_pb2.ErrorInfo()
    for detail in result.error.details:
        if detail.Unpack(info):
            break
    return info


def may_have_run(result: pb.CallResult) -> bool:
    """Whether the upstream may have executed a call that has an error instead of a response."""
    return error_info(result).metadata["may_have_run"] != "false"


class Tally:
    """What came of the calls so far; times are nanoseconds."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.total = 0
        self.failed: Counter[str] = Counter()
        self.retries = 0
        self.by_key: Counter[str] = Counter()
        self.waiting = 0
        self.in_calls = 0

    def add(self, result: pb.CallResult) -> str:
        """Count a result; returns why it failed ("": it didn't)."""
        self.total += 1
        failure = failure_of(result)
        if failure:
            self.failed[failure] += 1
        if result.attempts:
            self.retries += result.attempts - 1
            self.by_key[result.key_label] += result.attempts
        wait, latency = result.queue_time, result.latency
        self.waiting += wait.seconds * 1_000_000_000 + wait.nanos
        self.in_calls += latency.seconds * 1_000_000_000 + latency.nanos
        return failure

    @property
    def elapsed(self) -> float:
        """Seconds since the tally was begun."""
        return time.monotonic() - self.started

    def summary(self, correlation_id: str) -> pb.Summary:
        """The same as the contract's Summary."""
        failed = self.failed.total()
        summary = pb.Summary(
            total=self.total,
            succeeded=self.total - failed,
            failed=failed,
            failed_by_reason=self.failed,
            retries=self.retries,
            calls_by_key=self.by_key,
            correlation_id=correlation_id,
        )
        summary.elapsed.FromNanoseconds(round(self.elapsed * 1e9))
        summary.time_waiting.FromNanoseconds(self.waiting)
        summary.time_in_calls.FromNanoseconds(self.in_calls)
        return summary
