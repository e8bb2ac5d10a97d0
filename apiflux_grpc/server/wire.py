"""Between protobuf and the core: requests on their way in, responses on their way out.

Rule: this translates and decides nothing. The request message is kept, and a call is unpacked when its turn comes: a
queued call costs what its bytes cost. Responses are filled in place, which takes half of what building messages and
appending them takes. Durations become integer nanoseconds here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from apiflux_grpc.core.call import IDEMPOTENT_METHODS, Call, may_run_twice
from apiflux_grpc.core.checks import MOST_REASONS, Fault
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.server.calls import nanoseconds, pairs
from apiflux_grpc.server.status import result_error
from apiflux_grpc.server.words import CAUSES, REASONS, words_of
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from apiflux_grpc.core.checks import Checks
    from apiflux_grpc.core.held import Held
    from apiflux_grpc.core.model import RetryPolicy
    from apiflux_grpc.core.outcome import Result
    from apiflux_grpc.core.rules import CallRule
    from apiflux_grpc.engine.messages import Over, Standing
    from apiflux_grpc.engine.ports import Clock

# -- in ----------------------------------------------------------------------------------------


class Calls(Sequence[Call]):
    """The calls of a request message, each unpacked when it is asked for; `may_repeat` are the pool's rules."""

    __slots__ = ("_may_repeat", "_message")

    def __init__(self, message: pb.ProcessRequest, may_repeat: Iterable[CallRule] = ()) -> None:
        self._message = message
        self._may_repeat = may_repeat

    def __len__(self) -> int:
        return len(self._message.calls)

    @overload
    def __getitem__(self, index: int) -> Call: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Call]: ...
    def __getitem__(self, index: int | slice) -> Call | Sequence[Call]:
        if isinstance(index, slice):
            return [call_of(call, self._may_repeat) for call in self._message.calls[index]]
        return call_of(self._message.calls[index], self._may_repeat)


def call_of(message: pb.Call, may_repeat: Iterable[CallRule] = ()) -> Call:
    """The call; by `may_repeat` it may run twice if it doesn't say itself whether it may."""
    method = message.method or "GET"
    told = message.HasField("idempotent")
    return Call(
        method=method,
        path=message.path or "/",
        query=pairs(message.query) if message.query else (),
        headers=pairs(message.headers) if message.headers else (),
        body=message.body,
        timeout=nanoseconds(message.timeout) if message.HasField("timeout") else None,
        idempotent=message.idempotent
        if told
        else method in IDEMPOTENT_METHODS or may_run_twice(method, message.path, may_repeat),
        id=message.id,
    )


def check_options(checks: Checks, request: pb.ProcessRequest | pb.ProcessStreamOpen) -> tuple[RetryPolicy, list[Fault]]:
    """The retry policy of a batch, and what is wrong with it and with the other options."""
    asked = request.retry
    if len(asked.reasons) > MOST_REASONS:  # before anything walks them: a request has room for millions
        policy, _ = checks.retry(0, None, None, ())
        return policy, [Fault("retry.reasons", f"has {len(asked.reasons)}; use at most {MOST_REASONS}")]
    policy, faults = checks.retry(
        asked.max_attempts,
        nanoseconds(asked.initial_backoff) if asked.HasField("initial_backoff") else None,
        nanoseconds(asked.max_backoff) if asked.HasField("max_backoff") else None,
        words_of(asked.reasons),
    )
    expected = checks.expected(request.expected_calls) if isinstance(request, pb.ProcessStreamOpen) else []
    return policy, checks.batch(request.priority, request.correlation_id) + expected + faults


# -- out ---------------------------------------------------------------------------------------


def wall_offset(clock: Clock) -> int:
    """What to add (ns) to the engine's clock, which is handed in, to get the time of day."""
    return time.time_ns() - clock()


def encode(results: Sequence[Result], name: Callable[[int], str], offset: int) -> pb.ProcessResponse:
    """A response message with these results; `name` gives the id of a call. `offset` is wall_offset()."""
    response = pb.ProcessResponse()
    add = response.results.add
    for result in results:
        # Taken apart at once: a field of a named tuple costs ten times as much as a local name.
        index, outcome, failure, key, attempts, queued, latency, ended_at, _, _ = result
        message = add()
        message.index = index
        if id := name(index):
            message.id = id
        if isinstance(outcome, Answer) and outcome.fault is None:
            status, headers, body, _, truncated, _ = outcome
            answer = message.response
            answer.status_code = status
            answer.body = body
            if headers.names:
                add_header = answer.headers.add
                for pair in headers.pairs:
                    header = add_header()  # then filled: as arguments of `add` the same takes half as long again
                    header.name, header.value = pair
            if truncated:
                answer.truncated = True
        else:
            message.error.CopyFrom(result_error(result))
        if failure is not None:
            message.failure = REASONS[failure]
        if attempts:
            message.key_label = key
            message.attempts = attempts
            length = message.latency
            if latency < SECOND:  # nearly all are: that is one assignment of two
                length.nanos = latency
            else:
                length.seconds, length.nanos = divmod(latency, SECOND)
        length = message.queue_time
        if queued < SECOND:
            length.nanos = queued
        else:
            length.seconds, length.nanos = divmod(queued, SECOND)
        at = message.completed_at
        at.seconds, at.nanos = divmod(ended_at + offset, SECOND)
    return response


def names_of(request: pb.ProcessRequest) -> Callable[[int], str]:
    """The ids of a request's calls, by index."""
    calls = request.calls
    return (lambda index: calls[index].id) if calls else (lambda index: "")


def put_progress(response: pb.ProcessResponse, standing: Standing, total: int, offset: int) -> None:
    """Put the state of the batch into a response. `offset` is wall_offset().

    `total` may be ahead of `standing`, by calls that are still on their way to the engine: those aren't to come.
    """
    progress = response.progress
    progress.done = standing.done
    progress.total = total
    progress.in_flight = standing.in_flight
    if standing.eta is not None:
        progress.eta.FromNanoseconds(standing.eta)
    put_held(progress.held_by.add, standing.held_by, offset)
    if standing.waits_for is not None:
        _fill_held(progress.waits_for, standing.waits_for, offset)
    progress.to_come = max(0, standing.expected - total)
    if standing.rate is not None:
        progress.rate = standing.rate


def put_summary(response: pb.ProcessResponse, over: Over, correlation_id: str) -> None:
    """Put the batch's figures into the last response."""
    tally, summary = over.tally, response.summary
    summary.total = tally.total
    summary.succeeded = tally.succeeded
    summary.cancelled = tally.cancelled
    summary.failed = sum(tally.failed.values())
    for reason, count in tally.failed.items():
        summary.failed_by_reason[reason.value] = count
    summary.retries = tally.retries
    summary.elapsed.FromNanoseconds(over.elapsed)
    summary.calls_by_key.update(tally.calls_by_key)
    summary.time_waiting.FromNanoseconds(tally.time_waiting)
    summary.time_in_calls.FromNanoseconds(tally.time_in_calls)
    summary.correlation_id = correlation_id


def put_held(add: Callable[..., pb.Held], held_by: Sequence[Held], offset: int) -> None:
    """Put the reasons why calls wait into a message. `offset` is wall_offset()."""
    for held in held_by:
        _fill_held(add(), held, offset)


def _fill_held(message: pb.Held, held: Held, offset: int) -> None:
    message.cause = CAUSES[held.cause]
    message.reason = held.reason
    message.keys.extend(held.keys)
    message.key_count = held.count
    message.since.FromNanoseconds(held.since + offset)
    if held.until is not None:
        message.until.FromNanoseconds(held.until + offset)
        message.wait.FromNanoseconds(max(0, held.until + offset - time.time_ns()))
