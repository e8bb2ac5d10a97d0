"""What a whole request can fail with.

    ApifluxError              code, reason, message, retry_delay, metadata
      InvalidRequest            a field is wrong: `violations` has (field path, what is wrong)
      PoolNotFound
      Overloaded                the server's queue is full: come back after `retry_delay`
        DeadlineInfeasible        it can't finish within the timeout; metadata["eta_seconds"] is what it takes
      Unauthenticated           the server doesn't know who calls: the token is missing, wrong, or no longer valid
      PermissionDenied          it knows, and they may not do this
      Unavailable               not there, or shutting down; `retry_delay` if the server said one
      DeadlineExceeded          the timeout passed
      InternalError             a fault of the server's; metadata["error_id"] is in its log
      CallFailed                one call, and only if its result is asked: Result.raise_for_status, .json() and others

Rule: a failed *call* is no exception but a Result with an `error`, and no stream raises CallFailed by itself; the
others are for the request as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ApifluxError(Exception):
    """The request failed as a whole.

    `code` is the gRPC status code, `reason` the word of ErrorInfo ("" if the server gave none), `retry_delay`
    seconds (None: the server named none).
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        retry_delay: float | None = None,
        violations: Sequence[tuple[str, str]] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.retry_delay = retry_delay
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})

    def __str__(self) -> str:
        return f"{self.reason or self.code.name}: {self.message}"


class InvalidRequest(ApifluxError):
    """A field is wrong; nothing was sent."""


class PoolNotFound(ApifluxError):
    """The server has no pool of this name."""


class Overloaded(ApifluxError):
    """The server's queue is full; nothing was sent."""


class DeadlineInfeasible(Overloaded):
    """The batch can't finish within its timeout, even alone; nothing was sent."""


class Unauthenticated(ApifluxError):
    """The server doesn't know who calls; nothing was sent."""


class PermissionDenied(ApifluxError):
    """The caller may not do this; nothing was sent."""


class Unavailable(ApifluxError):
    """The server isn't there, or is shutting down."""


class DeadlineExceeded(ApifluxError):
    """The timeout passed; results that came before it are good."""


class InternalError(ApifluxError):
    """A fault of the server's."""


class CallFailed(ApifluxError):
    """A call failed: it has no response, or one that its pool doesn't count as success.

    `reason` is the result's `failure`, such as TIMEOUT or HTTP_4XX; `index` and `id` say which call it is;
    `status_code` None: there is no response; `may_have_run`: the upstream may have executed it. `code` is always
    UNKNOWN. The message has the first part of the body, as the server handed it over: with keys masked.
    """

    def __init__(
        self, message: str, *, reason: str, index: int, id: str, status_code: int | None, may_have_run: bool
    ) -> None:
        super().__init__(message, code=grpc.StatusCode.UNKNOWN, reason=reason)
        self.index = index
        self.id = id
        self.status_code = status_code
        self.may_have_run = may_have_run


_CLASSES = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: PoolNotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.INTERNAL: InternalError,
}


# What grpc.aio says if a write fails because the server has ended the stream: the real status comes after it, too late.
_BROKEN = "Internal error from Core"


def error_from(error: Any) -> ApifluxError:
    """The exception for an RpcError of grpc's, blocking or asynchronous."""
    metadata = error.trailing_metadata() or ()
    details = next((value for key, value in metadata if key == "grpc-status-details-bin"), None)
    return _error_of(error.code(), error.details() or "", details)


def silent() -> Unavailable:
    """The exception for a server that is left alone because it says nothing."""
    return Unavailable("it doesn't answer", code=grpc.StatusCode.UNAVAILABLE)


def never_ready(error: Any, target: str, timeout: float) -> ApifluxError:
    """The exception for a server that was waited for; `error` is what ended the waiting."""
    if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
        return error_from(error)
    return Unavailable(f"no server answered at {target} within {timeout:g} s", code=grpc.StatusCode.UNAVAILABLE)


def _error_of(code: grpc.StatusCode, message: str, details: bytes | None) -> ApifluxError:
    """The exception for a status; `details` is the serialized google.rpc.Status of the trailers."""
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    bad = error_details_pb2.BadRequest()
    delay: float | None = None
    for any_detail in status_pb2.Status.FromString(details or b"").details:
        any_detail.Unpack(info)
        any_detail.Unpack(bad)
        if any_detail.Unpack(retry):
            delay = retry.retry_delay.ToNanoseconds() / 1e9
    if code is grpc.StatusCode.INTERNAL and not info.reason and message == _BROKEN:
        code, message = grpc.StatusCode.UNAVAILABLE, "the server ended the stream while calls were written to it"
    kind = DeadlineInfeasible if info.reason == "DEADLINE_INFEASIBLE" else _CLASSES.get(code, ApifluxError)
    return kind(
        message,
        code=code,
        reason=info.reason,
        retry_delay=delay,
        violations=[(violation.field, violation.description) for violation in bad.field_violations],
        metadata=dict(info.metadata),
    )
