"""The one table from an error to what the caller sees: a status code, a reason and details.

Rule: every status carries an ErrorInfo, so that programs can tell errors apart without reading their text; and trailing
metadata for gRPC libraries that retry by themselves, which know nothing of RetryInfo.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

from apiflux_grpc.core.checks import MOST_FAULTS
from apiflux_grpc.core.errors import (
    DeadlineInfeasible,
    Draining,
    EngineFailed,
    FluxError,
    Forbidden,
    InvalidRequest,
    KeyNotFound,
    NotKept,
    Overloaded,
    PoolNotFound,
    QuotaExceeded,
    ReaderStalled,
    Unauthenticated,
)
from apiflux_grpc.core.outcome import Answer, NotSent, Reason
from apiflux_grpc.core.units import MILLISECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

    from apiflux_grpc.core.outcome import Result

DOMAIN: Final = "apiflux.v1"
# Status details travel in the trailers. Above 8 KiB clients drop some of them, by chance, and above 16 KiB all.
MOST_VIOLATIONS: Final = MOST_FAULTS
MOST_IN_WORDS: Final = 1_000  # bytes of violations in the message, as it is percent-encoded
# When a library's own retry policy may send the RPC again, in ms; negative: never (gRFC A6, "Pushback").
PUSHBACK: Final = "grpc-retry-pushback-ms"

_CODES: Final[tuple[tuple[type[FluxError], grpc.StatusCode], ...]] = (
    (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (PoolNotFound, grpc.StatusCode.NOT_FOUND),
    (KeyNotFound, grpc.StatusCode.NOT_FOUND),
    (NotKept, grpc.StatusCode.FAILED_PRECONDITION),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (DeadlineInfeasible, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (ReaderStalled, grpc.StatusCode.ABORTED),
    (Draining, grpc.StatusCode.UNAVAILABLE),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (Forbidden, grpc.StatusCode.PERMISSION_DENIED),
    (EngineFailed, grpc.StatusCode.INTERNAL),
)

# A call's error: the code a gRPC client would expect for what became of the call.
_RESULT_CODES: Final = {
    Reason.NOT_SENT: grpc.StatusCode.UNAVAILABLE,
    Reason.NO_USABLE_KEY: grpc.StatusCode.UNAVAILABLE,
    Reason.LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.INVALID_CALL: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.UNKNOWN: grpc.StatusCode.UNKNOWN,
    Reason.BODY_CUT: grpc.StatusCode.DATA_LOSS,
    Reason.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.STOPPED: grpc.StatusCode.CANCELLED,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
}


def code_of(error: FluxError) -> grpc.StatusCode:
    """The status code of an error of the whole request."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return grpc.StatusCode.INTERNAL


def status_of(error: FluxError) -> status_pb2.Status:
    """The whole status, with its details."""
    details: list[Message] = []
    metadata: dict[str, str] = {}
    message = str(error)
    if isinstance(error, InvalidRequest):
        shown = error.violations[:MOST_VIOLATIONS]
        total = len(error.violations) + error.more
        more = total - len(shown)
        told = _in_words(shown)
        message = "; ".join(told)
        if total > len(told):
            message += f"; and {total - len(told)} more"
        if more:
            metadata["violations_not_shown"] = str(more)
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=field, description=what) for field, what in shown
                ]
            )
        )
    if isinstance(error, Overloaded):
        metadata["limit"] = str(error.limit)
        subject = f"caller:{error.caller}" if isinstance(error, QuotaExceeded) else "server"
        violation = error_details_pb2.QuotaFailure.Violation(subject=subject, description=str(error))
        details.append(error_details_pb2.QuotaFailure(violations=[violation]))
    if isinstance(error, DeadlineInfeasible) and error.eta is not None:
        metadata["eta_seconds"] = f"{error.eta / 1e9:.3f}"
    if isinstance(error, Overloaded | Draining | DeadlineInfeasible):
        info = error_details_pb2.RetryInfo()
        info.retry_delay.FromNanoseconds(error.retry_after)
        details.append(info)
    if isinstance(error, EngineFailed):
        metadata["error_id"] = error.error_id
    return _status(code_of(error), error.reason, message, metadata, details)


def pushback(error: FluxError, left: float | None) -> tuple[str, str]:
    """The trailing metadata about retries within the same RPC, whose deadline is `left` seconds away (None: without).

    An infeasible deadline stays infeasible: it doesn't move when the RPC is sent again later.
    """
    if isinstance(error, Overloaded | Draining):
        wait = -(-error.retry_after // MILLISECOND)
        if left is None or wait < left * 1_000:
            return PUSHBACK, str(wait)
    return PUSHBACK, "-1"


def _in_words(violations: Sequence[tuple[str, str]]) -> list[str]:
    """The first three, or as many of them as fit into the message, but at least one."""
    told: list[str] = []
    left = MOST_IN_WORDS
    for field, what in violations[:3]:
        words = f"{field}: {what}"
        left -= len(quote(words))
        if told and left < 0:
            break
        told.append(words)
    return told


def result_error(result: Result) -> status_pb2.Status:
    """The error of one call that has no response."""
    outcome, reason = result.outcome, result.failure or Reason.INTERNAL
    if result.detail:
        message = result.detail
    elif reason is Reason.NO_USABLE_KEY:
        message = "no key of the pool could be used for too long: the upstream rejects them, or it fails"
    elif outcome is None:
        who = "caller stopped" if reason is Reason.STOPPED else "server shut down"
        message = f"the {who} before this call {'could be tried again' if result.attempts else 'was sent'}"
    elif isinstance(outcome, Answer):
        message = f"HTTP {outcome.status} came, but its body was cut"
    else:
        message = outcome.detail
    certainly_not = isinstance(outcome, NotSent) or (outcome is None and result.never_ran)
    metadata = {"may_have_run": "false" if certainly_not else "true"}
    if isinstance(outcome, Answer):
        metadata["http_status"] = str(outcome.status)
    code = _RESULT_CODES.get(reason, grpc.StatusCode.DATA_LOSS)  # of others a response came, and its body was cut
    return _status(code, reason.value, message, metadata, [])


def _status(
    code: grpc.StatusCode, reason: str, message: str, metadata: dict[str, str], details: list[Message]
) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=message)
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    for detail in (info, *details):
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status
