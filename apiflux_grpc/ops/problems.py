"""What an error looks like over HTTP: application/problem+json (RFC 9457).

Rule: a problem has the reason, the text, the fields and the wait that the status of the RPC has, for it is made from
that; the HTTP status is the one that google.rpc.Code names for the code. HTTP's own refusals have reasons of their own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import grpc
from google.rpc import error_details_pb2

from apiflux_grpc.core.errors import BatchTooLarge
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.server.status import status_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apiflux_grpc.core.errors import FluxError

CONTENT_TYPE: Final = "application/problem+json"
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_STATUSES: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.ABORTED: HTTPStatus.CONFLICT,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """`more` are further members of the document, `headers` those of the answer. `closes`: the connection ends too."""

    status: HTTPStatus
    reason: str
    detail: str
    more: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    closes: bool = False

    def document(self) -> bytes:
        """On one line."""
        told = {
            "title": self.status.phrase,
            "status": self.status.value,
            "reason": self.reason,
            "detail": self.detail,
            **self.more,
        }
        return json.dumps(told, ensure_ascii=False).encode()


class HttpRefused(Exception):
    """A request that HTTP's own rules refuse."""

    def __init__(
        self,
        status: HTTPStatus,
        reason: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        *,
        closes: bool = False,
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(status, reason, detail, headers=headers or {}, closes=closes)


def problem_of(error: FluxError) -> Problem:
    """The same that the caller of the RPC is told."""
    told = status_of(error)
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in told.details:
        _ = detail.Unpack(info) or detail.Unpack(bad) or detail.Unpack(retry)
    more: dict[str, object] = {}
    headers: dict[str, str] = {}
    if bad.field_violations:
        more["violations"] = [{"field": one.field, "description": one.description} for one in bad.field_violations]
    if info.metadata:
        more["metadata"] = dict(info.metadata)
    if retry.HasField("retry_delay"):
        headers["Retry-After"] = str(-(-retry.retry_delay.ToNanoseconds() // SECOND))
    status = _STATUSES.get(_CODES[told.code], HTTPStatus.INTERNAL_SERVER_ERROR)
    if isinstance(error, BatchTooLarge):
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Problem(status, info.reason, told.message, more, headers)
