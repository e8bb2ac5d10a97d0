"""Results as lines of the output, written and read back.

Rules
- Names are those of the contract in proto3 JSON, and a length of time is a number of seconds. Headers are a list of
  [name, value], as they came.
- A body that says it is JSON, and is one document, stands under `bodyJson` as it came: no number or name in it is
  changed. Any other is `bodyText`, or `body` in base64 if it is no text.
- Every line is JSON that any reader takes, whatever an upstream sent. What a later run must know of a result is in it.
"""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from apiflux_grpc.client.tally import error_info, failure_of, may_have_run
from apiflux_grpc.core.jsontext import one_line
from apiflux_grpc.jobs import jsonline
from apiflux_grpc.jobs.known import MOST_INDEX, key_of

if TYPE_CHECKING:
    from apiflux_grpc.v1 import apiflux_pb2 as pb


def _row(result: pb.CallResult, idempotent: bool, has_document: bool) -> dict[str, Any]:
    """The line; if the body is a document, with a place for it."""
    line: dict[str, Any] = {"index": result.index}
    if result.id:
        line["id"] = result.id
    if failure := failure_of(result):
        line["failure"] = failure
    if result.HasField("error"):
        line["error"] = {
            "code": result.error.code,
            "reason": error_info(result).reason,
            "message": result.error.message,
            "mayHaveRun": may_have_run(result),
            "idempotent": idempotent,
        }
    else:
        answer = result.response
        response: dict[str, Any] = {"statusCode": answer.status_code, "headers": _pairs(answer)}
        response.update({"bodyJson": None} if has_document else _body(answer.body))
        if answer.truncated:
            response["truncated"] = True
        line["response"] = response
    line["keyLabel"] = result.key_label
    line["attempts"] = result.attempts
    line["queueTime"] = result.queue_time.ToNanoseconds() / 1e9
    line["latency"] = result.latency.ToNanoseconds() / 1e9
    line["completedAt"] = result.completed_at.ToJsonString()
    return line


def line_of(result: pb.CallResult, idempotent: bool = False) -> bytes:
    """A result as a line of the output. `idempotent`: of the call; it says whether it can be sent again."""
    document = None if result.HasField("error") else document_of(result.response)
    row = _row(result, idempotent, document is not None)
    return f"{jsonline.line_of(row, 'bodyJson', document)}\n".encode()


def _pairs(answer: pb.HttpResponse) -> list[tuple[str, str]]:
    return [(header.name, header.value) for header in answer.headers]


def document_of(answer: pb.HttpResponse) -> str | None:
    """The body of an answer as one line of JSON; None: it isn't JSON, or not for every reader."""
    if not any(header.name == "content-type" and "json" in header.value for header in answer.headers):
        return None
    with contextlib.suppress(ValueError):
        return one_line(answer.body.decode())
    return None


def _body(body: bytes) -> dict[str, str]:
    try:
        return {"bodyText": body.decode()}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode()}


class Kept(NamedTuple):
    """What a line of the output says of a call, for the next run. `doubt`: why it may have run; "": it certainly
    didn't, or was answered."""

    key: int
    failed: bool
    doubt: str = ""


def kept(line: bytes) -> Kept:
    """Read a line of the output. Raises ValueError if it isn't a result."""
    try:
        fields = json.loads(line.decode())  # of bytes it would guess the encoding
        index, id = fields["index"], fields.get("id", "")
        if not (isinstance(index, int) and 0 <= index < MOST_INDEX and isinstance(id, str)):
            raise ValueError
        error: dict[str, Any] = fields.get("error") or {}
        if not error and not isinstance(fields["response"]["statusCode"], int):
            raise ValueError
        failed = bool(fields.get("failure"))
        doubt = str(error.get("reason") or "UNKNOWN") if failed and error.get("mayHaveRun", False) else ""
        return Kept(key_of(id, index), failed, doubt)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("is not a result of this command") from None
