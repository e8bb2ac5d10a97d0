"""Results as lines of the output, written and read back.

Rule: names are those of the contract in proto3 JSON. Headers are a list of [name, value], as they came; a body comes
back as `body_json` or `body_text` if it can be read so, and every line is strict JSON whatever an upstream sent. What a
later run must know of a result is in its line.
"""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from apiflux_grpc.client.tally import error_info, failure_of
from apiflux_grpc.jobs.known import MOST_INDEX, key_of

if TYPE_CHECKING:
    from apiflux_grpc.v1 import apiflux_pb2 as pb

_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def row(result: pb.CallResult, idempotent: bool = False) -> dict[str, Any]:
    """A result as a line of the output. `idempotent`: of the call; it says whether it can be sent again."""
    line: dict[str, Any] = {"index": result.index}
    if result.id:
        line["id"] = result.id
    if failure := failure_of(result):
        line["failure"] = failure
    if result.HasField("error"):
        info = error_info(result)
        error = {"code": result.error.code, "reason": info.reason, "message": result.error.message}
        may_have_run = info.metadata["may_have_run"] != "false"
        line["error"] = {**error, "mayHaveRun": may_have_run, "idempotent": idempotent}
    else:
        answer = result.response
        response: dict[str, Any] = {"statusCode": answer.status_code, "headers": _pairs(answer)}
        response.update(_body(answer))
        if answer.truncated:
            response["truncated"] = True
        line["response"] = response
    line["keyLabel"] = result.key_label
    line["attempts"] = result.attempts
    line["queueTime"] = result.queue_time.ToJsonString()
    line["latency"] = result.latency.ToJsonString()
    line["completedAt"] = result.completed_at.ToJsonString()
    return line


def line_of(result: pb.CallResult, idempotent: bool = False) -> bytes:
    """The same as the bytes of a line."""
    fields = row(result, idempotent)
    try:
        return f"{_encode(fields)}\n".encode()
    except (ValueError, RecursionError):  # a body with NaN, half of a surrogate pair, or nested too deeply, stays text
        response = fields["response"]
        del response["body_json"]
        response["body_text"] = result.response.body.decode(errors="replace")
        return f"{_encode(fields)}\n".encode()


def _pairs(answer: pb.HttpResponse) -> list[tuple[str, str]]:
    return [(header.name, header.value) for header in answer.headers]


def _body(answer: pb.HttpResponse) -> dict[str, Any]:
    body = answer.body
    try:
        if any(header.name == "content-type" and "json" in header.value for header in answer.headers):
            with contextlib.suppress(json.JSONDecodeError, RecursionError):
                return {"body_json": json.loads(body)}
        return {"body_text": body.decode()}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode()}


@dataclass(frozen=True, slots=True)
class Kept:
    """What a line of the output says of a call, for the next run."""

    key: int
    failed: bool
    may_go_again: bool


def kept(line: bytes) -> Kept:
    """Read a line of the output. Raises ValueError if it isn't a result."""
    try:
        fields = json.loads(line)
        index, id = fields["index"], fields.get("id", "")
        if not (isinstance(index, int) and 0 <= index < MOST_INDEX and isinstance(id, str)):
            raise ValueError
        error: dict[str, Any] = fields.get("error") or {}
        if not error and not isinstance(fields["response"]["statusCode"], int):
            raise ValueError
        failed = bool(fields.get("failure"))
        sure = not error.get("mayHaveRun", False) or error.get("idempotent", False)
        return Kept(key_of(id, index), failed, failed and bool(sure))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("is not a result of this command") from None
