"""An ASGI app for uvicorn. SEEN names the file for the query of each request."""

from __future__ import annotations

import os
import urllib.parse
from pathlib import Path
from typing import Any

LOG = Path(os.environ["SEEN"]).open("ab", buffering=0)  # noqa: SIM115 - until the process ends


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    LOG.write(scope["query_string"] + b"\n")
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    path = scope["path"]
    headers = [(b"x-method", scope["method"].encode())]
    status, parts = 200, [b""]
    if path == "/echo":
        parts = [body]
        headers.append((b"content-length", str(len(body)).encode()))
    elif path == "/big":
        size = int(urllib.parse.parse_qs(scope["query_string"].decode())["size"][0])
        parts = [b"x" * size]
        headers.append((b"content-length", str(size).encode()))
    elif path == "/chunked":
        parts = [b"%05d" % part for part in range(20)]
    elif path == "/none":
        status = 204
    elif path == "/missing":
        status = 404
    elif path == "/close":
        parts = [b"closed"]
        headers += [(b"connection", b"close"), (b"content-length", b"6")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
