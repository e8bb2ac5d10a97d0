"""Asks a judge in memory that speaks an API."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from apiflux_grpc.judge.apis.known import APIS
from tests.judge.wires import SECRET, Wire


class Answer(NamedTuple):
    """An answer with the names of its headers in lower case, and its body from JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any


def ask(wire: Wire, target: str, body: object = None, *headers: str, key: str | None = SECRET) -> Answer:
    """A GET, or with a body a POST, whose key is where the API has it; bytes are sent as they are."""
    payload = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    kind, name = wire.judge.key_in
    fields = ["Host: x", *headers]
    if key is not None and kind == "query":
        target += f"{'&' if '?' in target else '?'}{name}={key}"
    elif key is not None:
        fields.append(f"{name}: Bearer {key}" if kind == "bearer" else f"{name}: {key}")
    if body is not None:
        fields.append(f"Content-Length: {len(payload)}")
    start = f"{'GET' if body is None else 'POST'} {target} HTTP/1.1"
    wire.send("\r\n".join([start, *fields, "", ""]).encode() + payload)
    head, _, said = bytes(wire.sent).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    named = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert int(named["content-length"]) == len(said)
    return Answer(int(first.split()[1]), named, json.loads(said) if "json" in named["content-type"] else said.decode())


def speaks(api: str, *limits: Any, **options: Any) -> Wire:
    """A judge that speaks it."""
    assert api in APIS
    return Wire(*limits, speak=api, **options)
