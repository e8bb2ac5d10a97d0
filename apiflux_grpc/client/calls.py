"""What goes in: calls, and what is asked for them as a whole. Seconds are floats, bodies bytes.

Rule: the dataclasses here are frozen, and each turns itself into its message of the contract; a message may stand
wherever a `Call` may.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from apiflux_grpc.client.words import reason_of
from apiflux_grpc.v1 import apiflux_pb2 as pb

Fields: TypeAlias = Mapping[str, str] | Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Call:
    """One outbound request. `timeout` is seconds; None, as everywhere: the pool's default.

    `query` and `headers` are mappings, or (name, value) pairs where a name is repeated or the order matters.
    """

    path: str = "/"
    method: str = "GET"
    query: Fields = ()
    headers: Fields = ()
    body: bytes = b""
    id: str = ""
    timeout: float | None = None
    cost: int | None = None
    idempotent: bool | None = None

    def to_message(self) -> pb.Call:
        """The same as the contract's Call."""
        message = pb.Call(
            id=self.id,
            method=self.method,
            path=self.path,
            query=[pb.QueryParameter(name=name, value=value) for name, value in _pairs(self.query)],
            headers=[pb.Header(name=name, value=value) for name, value in _pairs(self.headers)],
            body=self.body,
            cost=self.cost,
            idempotent=self.idempotent,
        )
        if self.timeout is not None:
            message.timeout.FromNanoseconds(round(self.timeout * 1e9))
        return message


def _pairs(fields: Fields) -> Iterable[tuple[str, str]]:
    return fields.items() if isinstance(fields, Mapping) else fields


AnyCall: TypeAlias = Call | pb.Call


@dataclass(frozen=True, slots=True)
class Retry:
    """When failed attempts are made again; what is None or empty is the pool's. Backoffs are seconds.

    `reasons` are words such as "TIMEOUT", those of Result.failure.
    """

    max_attempts: int | None = None
    initial_backoff: float | None = None
    max_backoff: float | None = None
    reasons: tuple[str, ...] = ()

    def to_message(self) -> pb.RetryPolicy:
        """The same as the contract's RetryPolicy. Raises ValueError for a reason that isn't one."""
        message = pb.RetryPolicy(max_attempts=self.max_attempts or 0, reasons=map(reason_of, self.reasons))
        if self.initial_backoff is not None:
            message.initial_backoff.FromNanoseconds(round(self.initial_backoff * 1e9))
        if self.max_backoff is not None:
            message.max_backoff.FromNanoseconds(round(self.max_backoff * 1e9))
        return message


# RFC 9110, section 9.2.2: what may be executed twice, unless the call says otherwise. "" is GET in the contract.
IDEMPOTENT_METHODS: Final = frozenset({"", "GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


def is_idempotent(call: pb.Call) -> bool:
    """Whether it may be executed twice, as the contract has it."""
    return call.idempotent if call.HasField("idempotent") else call.method in IDEMPOTENT_METHODS


def to_message(call: AnyCall) -> pb.Call:
    """The message of a call that may be one already."""
    return call.to_message() if isinstance(call, Call) else call


def process_request(
    calls: Iterable[AnyCall],
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


def repeat_request(count: int, template: Call | None, pool: str) -> pb.ProcessRequest:
    """The request message of synthetic load: one call `count` times, 0: as often as the server has it."""
    repeat = pb.RepeatedCall(count=count, template=None if template is None else template.to_message())
    return pb.ProcessRequest(pool=pool, repeat=repeat)
