"""What comes out of a batch: results, how it stands, and its summary. Seconds are floats, bodies bytes.

Rule: every message of a stream of results has one frozen dataclass here, made by its `of`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any, Self

from apiflux_grpc.client.answer import Headers, Response, beginning
from apiflux_grpc.client.errors import CallFailed
from apiflux_grpc.client.tally import error_info, failure_of
from apiflux_grpc.client.words import word_of
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.duration_pb2 import Duration


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

    @property
    def status_code(self) -> int | None:
        """The response's status; None: there is no response."""
        return None if self.response is None else self.response.status

    @property
    def headers(self) -> Headers:
        """The response's. Raises CallFailed if there is none."""
        return self._answer.headers

    @property
    def content(self) -> bytes:
        """The response's body. Raises CallFailed if there is no response."""
        return self._answer.body

    @property
    def text(self) -> str:
        """The response's body as text, as Response.text. Raises CallFailed if there is no response."""
        return self._answer.text

    def json(self, **options: Any) -> Any:
        """The response's body, which is JSON; `options` are those of json.loads.

        Whatever the status: use `raise_for_status` before it. Raises CallFailed if there is no response, and
        ValueError (a json.JSONDecodeError), which says which call it is, if the body isn't JSON.
        """
        try:
            return self._answer.json(**options)
        except JSONDecodeError as error:
            raise JSONDecodeError(f"{self._name}: {error.msg}", error.doc, error.pos) from None

    def raise_for_status(self) -> Self:
        """The result itself, if it is `ok`. Raises CallFailed if it isn't: there is no response, or one that the pool
        doesn't count as success."""
        if self.failure:
            raise self._failed()
        return self

    @property
    def _answer(self) -> Response:
        if self.response is None:
            raise self._failed()
        return self.response

    @property
    def _name(self) -> str:
        return f"calls[{self.index}] (id {self.id!r})" if self.id else f"calls[{self.index}]"

    def _failed(self) -> CallFailed:
        error, response = self.error, self.response
        if response is not None:
            said = f"{self._name} was answered {response.status}"
            if part := beginning(response.body):
                said += f": {part}"
        else:
            assert error is not None
            run = "it may have run" if error.may_have_run else "it did not run"
            said = f"{self._name} has no response: {error.message}; {run}"
        return CallFailed(
            said,
            reason=self.failure,
            index=self.index,
            id=self.id,
            status_code=self.status_code,
            may_have_run=error is None or error.may_have_run,
        )

    @classmethod
    def of(cls, message: pb.CallResult) -> Result:
        response: Response | None = None
        error: CallError | None = None
        if message.HasField("error"):
            error = _call_error(message)
        else:
            answer = message.response
            names = tuple([header.name.lower() for header in answer.headers])
            headers = Headers(names, tuple([header.value for header in answer.headers]))
            response = Response(answer.status_code, headers, answer.body, answer.truncated)
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
class Held:
    """Why calls wait: `cause` in one word, such as LIMITED, and `reason` for people.

    `until` is when calls may go again, by the server's clock, with the first key if it is several, and `wait` how many
    seconds that was away when it was told; None: not known.
    `keys` has the labels of some, and `key_count` is the number of all; 0: the whole pool, or the key that says so.
    """

    cause: str
    reason: str
    since: datetime
    until: datetime | None
    keys: tuple[str, ...]
    key_count: int
    wait: float | None = field(default=None, compare=False)  # it is another at every moment

    @classmethod
    def of(cls, message: pb.Held) -> Held:
        return cls(
            cause=word_of(pb.HeldCause.DESCRIPTOR, message.cause),
            reason=message.reason,
            since=message.since.ToDatetime(tzinfo=UTC),
            until=message.until.ToDatetime(tzinfo=UTC) if message.HasField("until") else None,
            keys=tuple(message.keys),
            key_count=message.key_count,
            wait=seconds(message.wait) if message.HasField("wait") else None,
        )

    def __str__(self) -> str:
        """One line for people, the end by the clock on their wall."""
        whom = f"{self.key_count} keys: " if self.key_count > 1 else ""
        if self.cause in ("SPENT", "BACKOFF"):  # the words name the keys
            whom = "waiting for "
        end = ""
        if self.until is not None and self.cause != "UPSTREAM_FAILING":  # there the reason says when it is tried again
            end = f", until {self.until.astimezone():%H:%M:%S}"
        return f"{whom}{self.reason}{end}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How a batch stands; `eta` is seconds until its last result, None: not known. `held_by` is why its calls wait, but
    for the limits themselves.

    `waits_for` is what they wait for in the ordinary course: a limit of which nothing is left, or the time of their
    next attempt. `to_come` counts the calls of a stream that are still expected, which `eta` counts too. `rate` is how
    many calls a second the limits allow in the long run; None: not known, or no limit does.
    """

    done: int
    total: int
    in_flight: int
    eta: float | None
    held_by: tuple[Held, ...] = ()
    waits_for: Held | None = None
    to_come: int = 0
    rate: float | None = None

    @classmethod
    def of(cls, message: pb.Progress) -> Progress:
        return cls(
            message.done,
            message.total,
            message.in_flight,
            seconds(message.eta) if message.HasField("eta") else None,
            tuple(map(Held.of, message.held_by)),
            Held.of(message.waits_for) if message.HasField("waits_for") else None,
            message.to_come,
            message.rate if message.HasField("rate") else None,
        )


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


def seconds(duration: Duration) -> float:
    """A Duration as seconds."""
    return duration.seconds + duration.nanos / 1e9
