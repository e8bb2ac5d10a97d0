"""A call as one line of JSON: what calls.py reads, written.

Rule: read again, the line is the same call, byte for byte. A body is `json` if that carries it as it is, else `text`,
else `body` in base64.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from apiflux_grpc.core.jsontext import one_line
from apiflux_grpc.jobs import jsonline
from apiflux_grpc.jobs.calls import parse_call

if TYPE_CHECKING:
    from apiflux_grpc.v1 import apiflux_pb2 as pb


def line_of_call(call: pb.Call) -> bytes:
    """The line, with its end."""
    fields: dict[str, Any] = {"id": call.id} if call.id else {}
    fields |= {name: value for name, value in (("method", call.method), ("path", call.path)) if value}
    for name, pairs in (("query", call.query), ("headers", call.headers)):
        if pairs:
            fields[name] = [[pair.name, pair.value] for pair in pairs]
    if call.HasField("timeout"):
        fields["timeout"] = call.timeout.ToNanoseconds() / 1e9
    if call.HasField("cost"):
        fields["cost"] = call.cost
    if call.HasField("idempotent"):
        fields["idempotent"] = call.idempotent
    line = _with_json(fields, call) if call.body else None
    return f"{line or jsonline.line_of(fields | _body(call.body))}\n".encode()


def _with_json(fields: dict[str, Any], call: pb.Call) -> str | None:
    """The line with the body as `json`; None: that would make another call."""
    try:
        document = one_line(call.body.decode())
        if document.encode() != call.body:
            return None
        line = jsonline.line_of({**fields, "json": None}, "json", document)
        return line if parse_call(line) == call else None
    except ValueError:
        return None


def _body(body: bytes) -> dict[str, str]:
    try:
        return {"text": body.decode()} if body else {}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode()}
