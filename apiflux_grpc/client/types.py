"""What goes in and comes out of the client, as plain Python: seconds are floats, bodies bytes.

Rule: every message of the contract that a user touches has one frozen dataclass here, and its conversion beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from apiflux_grpc.client.tally import error_info, failure_of
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.duration_pb2 import Duration


@dataclass(frozen=True, slots=True)
class Call:
    """One outbound request. `timeout` is seconds; None, as everywhere: the pool's default."""

    path: str = "/"
    method: str = "GET"
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    id: str = ""
    timeout: float | None = None
    cost: int | None = None
    idempotent: bool | None = None

    def to_message(self) -> pb.Call:
        message = pb.Call(
            id=self.id,
            method=self.method,
            path=self.path,
            query=self.query,
            headers=self.headers,
            body=self.body,
            cost=self.cost,
            idempotent=self.idempotent,
        )
        if self.timeout is not None:
            message.timeout.FromNanoseconds(round(self.timeout * 1e9))
        return message


@dataclass(frozen=True, slots=True)
class Retry:
    """When failed attempts are made again; what is None or empty is the pool's. Backoffs are seconds."""

    max_attempts: int | None = None
    initial_backoff: float | None = None
    max_backoff: float | None = None
    reasons: tuple[str, ...] = ()

    def to_message(self) -> pb.RetryPolicy:
        message = pb.RetryPolicy(max_attempts=self.max_attempts or 0, reasons=self.reasons)
        if self.initial_backoff is not None:
            message.initial_backoff.FromNanoseconds(round(self.initial_backoff * 1e9))
        if self.max_backoff is not None:
            message.max_backoff.FromNanoseconds(round(self.max_backoff * 1e9))
        return message


@dataclass(frozen=True, slots=True)
class Response:
    """The upstream's answer. `truncated`: the body is only the beginning."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class CallError:
    """Why a call has no response. `may_have_run`: the upstream may have executed it."""

    reason: str
    message: str
    may_have_run: bool


@dataclass(frozen=True, slots=True)
class Result:
    """The final word on a call: a `response` or an `error`, never both.

    `key` is the label of the last attempt's key; `queue_time` and `latency` are seconds. `failure` is why it counts as
    failed, in the words of Summary.failed_by_reason; "": it doesn't.
    """

    index: int
    id: str
    response: Response | None
    error: CallError | None
    key: str
    attempts: int
    queue_time: float
    latency: float
    completed_at: datetime
    failure: str

    @property
    def ok(self) -> bool:
        """It was answered, and with a status that the pool counts as success."""
        return not self.failure

    @classmethod
    def of(cls, message: pb.CallResult) -> Result:
        response: Response | None = None
        error: CallError | None = None
        if message.HasField("error"):
            error = _call_error(message)
        else:
            answer = message.response
            response = Response(answer.status_code, dict(answer.headers), answer.body, answer.truncated)
        return cls(
            index=message.index,
            id=message.id,
            response=response,
            error=error,
            key=message.key_label,
            attempts=message.attempts,
            queue_time=seconds(message.queue_time),
            latency=seconds(message.latency),
            completed_at=message.completed_at.ToDatetime(tzinfo=UTC),
            failure=failure_of(message),
        )


def _call_error(message: pb.CallResult) -> CallError:
    info = error_info(message)
    return CallError(info.reason, message.error.message, info.metadata.get("may_have_run") != "false")


@dataclass(frozen=True, slots=True)
class Progress:
    """How a batch stands; `eta` is seconds until its last result, None: not known."""

    done: int
    total: int
    in_flight: int
    eta: float | None

    @classmethod
    def of(cls, message: pb.Progress) -> Progress:
        eta = seconds(message.eta) if message.HasField("eta") else None
        return cls(message.done, message.total, message.in_flight, eta)


@dataclass(frozen=True, slots=True)
class Summary:
    """The last word on a batch; times are seconds. See the contract's Summary."""

    total: int
    succeeded: int
    failed: int
    failed_by_reason: Mapping[str, int]
    cancelled: int
    retries: int
    elapsed: float
    calls_by_key: Mapping[str, int]
    time_waiting: float
    time_in_calls: float
    correlation_id: str

    @classmethod
    def of(cls, message: pb.Summary) -> Summary:
        return cls(
            total=message.total,
            succeeded=message.succeeded,
            failed=message.failed,
            failed_by_reason=dict(message.failed_by_reason),
            cancelled=message.cancelled,
            retries=message.retries,
            elapsed=seconds(message.elapsed),
            calls_by_key=dict(message.calls_by_key),
            time_waiting=seconds(message.time_waiting),
            time_in_calls=seconds(message.time_in_calls),
            correlation_id=message.correlation_id,
        )


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a pool. `limits` are (max, per in seconds, "calls" or "cost")."""

    label: str
    headroom: float
    in_flight: int
    attempts: int
    blocked_for: float
    limits: tuple[tuple[int, float, str], ...]


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool; `drain_time` is seconds until all that waits now is done, None: not known."""

    name: str
    upstream: str
    base_url: str
    keys: tuple[Key, ...]
    waiting: int
    in_flight: int
    drain_time: float | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a batch would take now (seconds; None: no key can be used), and which limit binds ("": none)."""

    makespan: float | None
    binding_limit: str

    @classmethod
    def of(cls, message: pb.EstimateResponse) -> Estimate:
        makespan = message.makespan.ToNanoseconds() / 1e9 if message.HasField("makespan") else None
        return cls(makespan, message.binding_limit)


@dataclass(frozen=True, slots=True)
class Info:
    """What the server is."""

    mode: str
    version: str
    pools: tuple[Pool, ...]
    default_repeat_count: int
    max_batch_calls: int
    max_batch_bytes: int
    open_batches: int
    open_calls: int

    @classmethod
    def of(cls, message: pb.GetInfoResponse) -> Info:
        return cls(
            mode=message.mode,
            version=message.version,
            pools=tuple(_pool(pool) for pool in message.pools),
            default_repeat_count=message.default_repeat_count,
            max_batch_calls=message.max_batch_calls,
            max_batch_bytes=message.max_batch_bytes,
            open_batches=message.open_batches,
            open_calls=message.open_calls,
        )


def _pool(message: pb.PoolInfo) -> Pool:
    return Pool(
        name=message.name,
        upstream=message.upstream,
        base_url=message.base_url,
        keys=tuple(
            Key(
                label=key.label,
                headroom=key.headroom,
                in_flight=key.in_flight,
                attempts=key.attempts,
                blocked_for=seconds(key.blocked_for),
                limits=tuple((limit.max, seconds(limit.per), limit.counts) for limit in key.limits),
            )
            for key in message.keys
        ),
        waiting=message.waiting,
        in_flight=message.in_flight,
        drain_time=seconds(message.drain_time) if message.HasField("drain_time") else None,
    )


def seconds(duration: Duration) -> float:
    """A Duration as seconds."""
    return duration.seconds + duration.nanos / 1e9


# The methods whose calls may be executed twice, where a call doesn't say.
IDEMPOTENT_METHODS: Final = frozenset({"", "GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


def is_idempotent(call: pb.Call) -> bool:
    """Whether it may be executed twice, as the contract has it."""
    return call.idempotent if call.HasField("idempotent") else call.method in IDEMPOTENT_METHODS


def to_message(call: Call | pb.Call) -> pb.Call:
    """The message of a call that may be one already."""
    return call.to_message() if isinstance(call, Call) else call


def process_request(
    calls: Iterable[Call | pb.Call],
    *,
    pool: str,
    priority: int,
    correlation_id: str,
    retry: Retry | None,
    ordered: bool,
) -> pb.ProcessRequest:
    """The request message of a batch."""
    return pb.ProcessRequest(
        pool=pool,
        calls=[to_message(call) for call in calls],
        priority=priority,
        correlation_id=correlation_id,
        retry=None if retry is None else retry.to_message(),
        ordered=ordered,
    )


def stream_open(
    pool: str, priority: int, correlation_id: str, retry: Retry | None, ordered: bool, strict: bool
) -> pb.ProcessStreamOpen:
    """The first message of a stream."""
    return pb.ProcessStreamOpen(
        pool=pool,
        priority=priority,
        correlation_id=correlation_id,
        retry=None if retry is None else retry.to_message(),
        ordered=ordered,
        strict=strict,
    )
