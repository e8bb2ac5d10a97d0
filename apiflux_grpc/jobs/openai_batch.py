"""The lines of OpenAI's Batch API: custom_id, method, url and body in; id, custom_id, response and error out.

https://platform.openai.com/docs/api-reference/batch/request-input
https://platform.openai.com/docs/api-reference/batch/request-output

Rules
- A line has these four fields and no other. What the Batch API would refuse is refused here, before anything is sent.
- An answer is under `response` whatever its status, and `error` is null then: it is for calls without an answer. Its
  code is the reason in one word, such as TIMEOUT.
- What a later run must know of a result is in its line. So there are members beside OpenAI's, if something is unusual:
  `may_have_run` and `idempotent` of an error, and `failure` if the pool judges a status otherwise than 2xx or not.
- A body is carried as it is written, both ways.
"""

from __future__ import annotations

import base64
import difflib
import json
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from apiflux_grpc.client.tally import failure_of, may_have_run
from apiflux_grpc.core.jsontext import members
from apiflux_grpc.jobs import jsonline, values
from apiflux_grpc.jobs.calls import IS_JSON, parse_json
from apiflux_grpc.jobs.known import key_of
from apiflux_grpc.jobs.rows import Kept, document_of
from apiflux_grpc.jobs.urls import BaseUrl
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apiflux_grpc.jobs.values import Carried

_FIELDS: Final = ("custom_id", "method", "url", "body")
_OURS: Final = frozenset(field.json_name for field in pb.Call.DESCRIPTOR.fields) | {"json", "text"}
_REASONS: Final = frozenset(name.removeprefix("REASON_") for name in pb.Reason.DESCRIPTOR.values_by_name)


def is_openai(line: str) -> bool:
    """Whether an object of JSON is meant as a line of this format: no other has such fields."""
    if "custom_id" not in line and "url" not in line:
        return False
    try:
        return not {"custom_id", "url"}.isdisjoint(parse_json(line, "body"))
    except ValueError:
        return False


class OpenAiBatch:
    """A Format. `base_url` is that of the pool; "": the simulator's."""

    name: Final = "openai-batch"
    names: Final[Mapping[str, str]] = {"id": "custom_id", "path": "url", "query": "url"}

    def __init__(self, base_url: str) -> None:
        # The lines of a file have one or two: nothing is worked out for each of them.
        self._path_of = lru_cache(maxsize=4)(BaseUrl(base_url).path_of)

    def call(self, line: str) -> pb.Call:
        """As Format.call."""
        data = parse_json(line, "body")
        _check_names(data)
        id, method, url = (values.string(name, data[name]) for name in ("custom_id", "method", "url"))
        if not id:
            raise ValueError("custom_id is empty; give each line its own")
        if method != "POST":
            raise ValueError(f"method is {method[:32]!r}; a batch has POST alone")
        _check_body(data["body"])
        path, query = self._path_of(url)
        return pb.Call(
            id=id,
            method=method,
            path=path,
            query=[pb.QueryParameter(name=name, value=value) for name, value in query],
            headers=[IS_JSON],
            body=values.document("body", data["body"]),
        )

    def written(self, call: pb.Call) -> bytes:
        """As Format.written."""
        query = urlencode([(pair.name, pair.value) for pair in call.query])
        url = f"{call.path}?{query}" if query else call.path
        fields = {"custom_id": call.id, "method": call.method, "url": url, "body": None}
        return f"{jsonline.line_of(fields, 'body', call.body.decode())}\n".encode()

    def line(self, result: pb.CallResult, idempotent: bool) -> bytes:
        """As Format.line."""
        document = None if result.HasField("error") else document_of(result.response)
        row = _row(result, idempotent, document is not None)
        return f"{jsonline.line_of(row, 'body', document)}\n".encode()

    def kept(self, line: bytes) -> Kept:
        """As Format.kept."""
        try:
            fields = json.loads(line.decode())
            id, error, response = fields["custom_id"], fields["error"] or {}, fields["response"]
            if not (id and isinstance(id, str) and isinstance(error, dict)):
                raise ValueError
            status = response["status_code"] if response is not None or not error else 0
            if not isinstance(status, int):
                raise ValueError
            failed = bool(fields.get("failure", error or not 200 <= status < 300))
            doubt = ""
            if failed and error and error.get("may_have_run", True):
                code = error.get("code")  # of the Batch API itself it says nothing of what happened
                doubt = code if code in _REASONS else "UNKNOWN"
            return Kept(key_of(id, 0), failed, doubt)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise ValueError("is not a result of this command") from None


def _check_names(data: Mapping[str, object]) -> None:
    """Raises ValueError if a field is none of the four, or one of them is missing."""
    if "response" in data:
        raise ValueError("is a result; name the file with the calls of the batch")
    for name in data:
        if name in _FIELDS:
            continue
        if name in _OURS:
            raise ValueError(
                f"{name!r} is a field of APIFlux's own format, and the file is in OpenAI's batch format; "
                "write all lines in one format"
            )
        close = difflib.get_close_matches(name, _FIELDS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"a line has {', '.join(_FIELDS)}"
        raise ValueError(f"unknown field {name[:64]!r}; {hint}")
    for name in _FIELDS:
        if name not in data:
            raise ValueError(f"{name} is missing; a line has {', '.join(_FIELDS)}")


def _check_body(body: Carried) -> None:
    """Raises ValueError if it isn't an object, or asks for a stream."""
    if not body.startswith("{"):
        raise ValueError("body must be an object")
    if '"stream"' not in body and "\\u00" not in body:  # an escape may spell the name otherwise
        return
    for name, start, end in members(body):
        if name == "stream" and body[start:end] not in ("false", "null"):
            raise ValueError("body.stream asks for a stream, and a result is one line; leave it out")


def _row(result: pb.CallResult, idempotent: bool, has_document: bool) -> dict[str, Any]:
    """The line; if the body is a document, with a place for it."""
    failure = failure_of(result)
    # Another one for each time that the call was sent and got a result.
    unique = f"{result.completed_at.ToNanoseconds()} {result.id}"
    line: dict[str, Any] = {
        "id": f"batch_req_{blake2b(unique.encode(), digest_size=12).hexdigest()}",
        "custom_id": result.id,
    }
    if result.HasField("error"):
        line["response"] = None
        line["error"] = {
            "code": failure,
            "message": result.error.message,
            "may_have_run": may_have_run(result),
            "idempotent": idempotent,
        }
        return line
    answer = result.response
    response: dict[str, Any] = {"status_code": answer.status_code, "request_id": _request_id(answer), "body": None}
    if not has_document:
        response.update(_body(answer.body))
    if answer.truncated:
        response["truncated"] = True
    line["response"] = response
    line["error"] = None
    if bool(failure) is (200 <= answer.status_code < 300):
        line["failure"] = failure or None
    return line


def _request_id(answer: pb.HttpResponse) -> str:
    return next((header.value for header in answer.headers if header.name == "x-request-id"), "")


def _body(body: bytes) -> dict[str, Any]:
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body": None, "body_base64": base64.b64encode(body).decode()}
