"""HTTP/2 by hand, for what no client of gRPC would send.

RFC 9113, section 4.1, has the frames; headers are literals without a name from a table, RFC 7541, section 6.2.2.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

SERVICE = "/apiflux.v1.FluxService"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0, 1, 3, 4, 6
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


PSEUDO = {
    b":method": b"POST",
    b":scheme": b"http",
    b":path": f"{SERVICE}/Process".encode(),
    b":authority": b"localhost",
    b"te": b"trailers",
    b"content-type": b"application/grpc",
}


def request_frames(stream: int, message: bytes, fields: dict[bytes, bytes] | None = None) -> bytes:
    """A whole Process request, with more headers, or others."""
    block = b"".join(literal(name, value) for name, value in (PSEUDO | (fields or {})).items())
    data = struct.pack(">BI", 0, len(message)) + message
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, data)


def answer_to(target: str, wire: bytes, end: bytes | None = None) -> bytes:
    """What comes back: until `end` is among it, or, after our own half-close, until the server closes.

    Raises TimeoutError where it neither answers nor closes.
    """
    host, _, port = target.rpartition(":")
    heard = b""
    with socket.create_connection((host, int(port)), timeout=20) as connection, suppress(ConnectionError):
        connection.sendall(wire)
        if end is None:
            connection.shutdown(socket.SHUT_WR)
        while (end is None or end not in heard) and (piece := connection.recv(65_536)):
            heard += piece
    return heard


def is_text(value: bytes) -> bool:
    """Whether it is UTF-8."""
    return value.decode(errors="replace").encode() == value
