"""The log of a server whose callers send what no client would: each line is JSON, and none has what they sent."""

from __future__ import annotations

import json
from typing import Any

import grpc

from apiflux_grpc.testing.served import ServedProcess
from tests.e2e.http2 import (
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    PREFACE,
    PSEUDO,
    RST_STREAM,
    SETTINGS,
    answer_to,
    frame,
    literal,
    request_frames,
)

CANARY = b"canary-31c"
BEGIN = PREFACE + frame(SETTINGS, 0, 0)
PONG = frame(PING, 1, 0, b"12345678")
POOL = '[pools.default]\nkeys = [{ label = "a", secret = "x", limits = [{ max = 1, per = "1s" }] }]\n'
# Headers that gRPC's C core or its Cython layer can't read, and frames that end a connection.
HEADERS_OF_ONE = [
    {b"x-bad": b"\xff\xfe" + CANARY},
    {b"x-bin-bin": CANARY + b"!!!"},
    {b"grpc-encoding": CANARY},
    {b"grpc-timeout": CANARY},
    {b"content-type": b"text/" + CANARY},
    {b":path": b"/\xff" + CANARY},
    {b"te": CANARY},
    {b"user-agent": CANARY + b"\xff"},
]
FRAMES = [
    frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff" + CANARY),
    frame(RST_STREAM, 0, 1, CANARY),
    frame(DATA, 0, 1, CANARY),
    frame(HEADERS, END_HEADERS, 1, b"".join(literal(*pair) for pair in PSEUDO.items()))
    + frame(DATA, 1, 1, b"\x02\0\0\0\6" + CANARY),
]


def test_whatever_callers_send_each_line_is_json_and_none_has_a_value_of_theirs() -> None:
    """At the lowest level too, where gRPC's C core would write lines of its own."""
    with ServedProcess(POOL, {"GRPC_VERBOSITY": "debug"}, log_level="debug", log_format="json") as served:
        for headers in HEADERS_OF_ONE:
            wire = BEGIN + request_frames(1, b"\x08\x01", headers)
            answer_to(served.target, wire + frame(PING, 0, 0, b"12345678"), PONG)
        for wire in FRAMES:
            answer_to(served.target, BEGIN + wire + frame(PING, 0, 0, b"12345678"), PONG)
        answer_to(served.target, b"GET /" + CANARY + b" HTTP/1.1\r\nhost: a\r\n\r\n")
        with grpc.insecure_channel(served.target, options=[("grpc.enable_http_proxy", 0)]) as channel:
            call: Any = channel.unary_unary("/apiflux.v1.FluxService/GetInfo")
            call(b"", metadata=(("x-trace", CANARY.decode()),), timeout=20)
        assert served.terminate() == 0
        text = served.stderr
    assert CANARY.decode() not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert any(line["event"] == "Invalid encoding on %s" for line in lines)
    assert any(line.get("method") == "/apiflux.v1.FluxService/GetInfo" for line in lines)


def test_why_a_server_cannot_start_is_json_too() -> None:
    """A fault of the configuration is a line of the log, as it would be said to people."""
    try:
        with ServedProcess("[server]\nbind = 3\n", {}, log_format="json"):
            raise AssertionError
    except RuntimeError as error:
        said = str(error).removeprefix("the server didn't start: ").splitlines()
    assert "server.bind" in json.loads(said[0])["event"]
