"""What goes in: calls, and what is asked for them as a whole. Seconds are floats, bodies bytes.

Rule: the dataclasses here are frozen, and each turns itself into its message of the contract; a message may stand
wherever a `Call` may. What a message can't hold is refused with the name of the field; what a pool doesn't take, the
server refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias, TypedDict, Unpack

from apiflux_grpc.client.asked import Params, body_of, number, query_of, text, text_pairs
from apiflux_grpc.client.words import reason_of
from apiflux_grpc.v1 import apiflux_pb2 as pb

_LONGEST: Final = 315_576_000_000  # seconds that a Duration can hold

Fields: TypeAlias = Mapping[str, str] | Sequence[tuple[str, str]]


class Options(TypedDict, total=False):
    """What Call.request and its shortcuts take by name; see there."""

    params: Params | None
    query: Params | None
    headers: Fields | None
    json: Any
    content: bytes | str | None
    text: str | None
    id: str
    timeout: float | None
    cost: int | None
    idempotent: bool | None


@dataclass(frozen=True, slots=True)
class Call:
    """One outbound request. `timeout` is seconds; None, as everywhere: the pool's default.

    `query` and `headers` are mappings, or (name, value) pairs where a name is repeated or the order matters.
    `Call.post("/v1/x", json=...)` and its siblings take what httpx takes; see `request`.
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

    @classmethod
    def request(
        cls,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        query: Params | None = None,
        headers: Fields | None = None,
        json: Any = None,
        content: bytes | str | None = None,
        text: str | None = None,
        id: str = "",
        timeout: float | None = None,
        cost: int | None = None,
        idempotent: bool | None = None,
    ) -> Self:
        """A call as httpx would make it; None: not given.

        `params` is httpx's name for `query`: values may be numbers, bools and None, and in a mapping also lists. The
        body is one of `json` (with its Content-Type, unless `headers` has one), `content` and `text`.

        Raises TypeError or ValueError, naming the field, for what can't be sent.
        """
        if params is not None and query is not None:
            raise ValueError("params conflicts with query; set one of them")
        body, kind = body_of(json, content, text)
        fields = text_pairs("headers", headers or ())
        if kind and not any(name.lower() == "content-type" for name, _ in fields):
            fields += (("Content-Type", kind),)
        name, given = ("query", query) if params is None else ("params", params)
        asked = () if given is None else query_of(name, given)
        call = cls(path, method, asked, fields, body, id, timeout, cost, idempotent)
        call._check_rest()
        return call

    @classmethod
    def get(cls, path: str, **options: Unpack[Options]) -> Self:
        """A GET; see `request`."""
        return cls.request("GET", path, **options)

    @classmethod
    def post(cls, path: str, **options: Unpack[Options]) -> Self:
        """A POST; see `request`."""
        return cls.request("POST", path, **options)

    @classmethod
    def put(cls, path: str, **options: Unpack[Options]) -> Self:
        """A PUT; see `request`."""
        return cls.request("PUT", path, **options)

    @classmethod
    def patch(cls, path: str, **options: Unpack[Options]) -> Self:
        """A PATCH; see `request`."""
        return cls.request("PATCH", path, **options)

    @classmethod
    def delete(cls, path: str, **options: Unpack[Options]) -> Self:
        """A DELETE; see `request`."""
        return cls.request("DELETE", path, **options)

    @classmethod
    def head(cls, path: str, **options: Unpack[Options]) -> Self:
        """A HEAD; see `request`."""
        return cls.request("HEAD", path, **options)

    def check(self) -> None:
        """Raises TypeError or ValueError, naming the field, for what no message can hold."""
        text_pairs("query", self.query)
        text_pairs("headers", self.headers)
        if not isinstance(self.body, bytes):
            raise TypeError(f"body must be bytes, not {type(self.body).__name__}")
        self._check_rest()

    def _check_rest(self) -> None:
        """The same of the fields that have one value, but for the body."""
        for name, value in (("path", self.path), ("method", self.method), ("id", self.id)):
            text(name, value)
        number("timeout", self.timeout, (int, float), "a number of seconds")
        number("cost", self.cost, int, "a whole number")
        if self.timeout is not None and abs(self.timeout) > _LONGEST:
            raise ValueError("timeout is too long")
        if self.cost is not None and abs(self.cost) >= 1 << 63:
            raise ValueError("cost must be a whole number below 2^63")
        if not isinstance(self.idempotent, bool | None):
            raise TypeError(f"idempotent must be True, False or None, not {type(self.idempotent).__name__}")

    def to_message(self) -> pb.Call:
        """The same as the contract's Call. Raises as `check`, for what that finds, and ValueError."""
        try:
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
        except (TypeError, ValueError, OverflowError):
            self._explain()
            raise

    def _explain(self) -> None:
        """Raises what `check` raises, with a word on which call it is: many are passed at a time."""
        try:
            self.check()
        except (TypeError, ValueError) as error:
            which = f"the call {self.id[:64]!r}" if self.id and isinstance(self.id, str) else f"Call({self.path!r:.64})"
            raise type(error)(f"{which}: {error}") from None


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
    calls: object,
    *,
    pool: str,
    priority: int,
    correlation_id: str,
    retry: Retry | None,
    ordered: bool,
    strict: bool,
    expected: int | None,
) -> pb.ProcessStreamOpen:
    """The first message of a stream of `calls`; `expected` None: as many as those have, if they have a length.

    Raises TypeError, ValueError for an `expected` that no message can hold.
    """
    number("expected", expected, int, "a whole number")
    if expected is None:
        expected = len(calls) if isinstance(calls, Sized) else 0
    if abs(expected) >= 1 << 63:
        raise ValueError("expected must be a whole number below 2^63")
    return pb.ProcessStreamOpen(
        pool=pool,
        priority=priority,
        correlation_id=correlation_id,
        retry=None if retry is None else retry.to_message(),
        ordered=ordered,
        strict=strict,
        expected_calls=expected,
    )


def repeat_request(count: int, template: Call | None, pool: str) -> pb.ProcessRequest:
    """The request message of synthetic load: one call `count` times, 0: as often as the server has it."""
    repeat = pb.RepeatedCall(count=count, template=None if template is None else template.to_message())
    return pb.ProcessRequest(pool=pool, repeat=repeat)
