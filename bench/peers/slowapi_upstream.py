"""slowapi's moving window as an upstream: MAX calls of a key in any PER seconds, told in headers.

    python -m bench.peers.slowapi_upstream MAX PER

This runs in an environment of its own. It prints its port, and ends with its standard input.
"""

from __future__ import annotations

import socket
import sys
from threading import Thread
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response  # type: ignore[import-not-found]  # it has an environment of its own
from slowapi import Limiter, _rate_limit_exceeded_handler  # type: ignore[import-not-found]
from slowapi.errors import RateLimitExceeded  # type: ignore[import-not-found]


async def answer(request: Request, response: Response) -> dict[str, bool]:
    return {"ok": True}


def app(limit: str) -> Any:
    limiter = Limiter(
        key_func=lambda request: request.headers["x-api-key"], strategy="moving-window", headers_enabled=True
    )
    made = FastAPI()
    made.state.limiter = limiter
    made.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)
    made.add_api_route("/{path:path}", limiter.limit(limit)(answer))
    return made


def main() -> None:
    most, per = sys.argv[1:]
    server = uvicorn.Server(uvicorn.Config(app(f"{most}/{per}seconds"), log_level="warning"))

    def end() -> None:
        sys.stdin.read()
        server.should_exit = True

    Thread(target=end, daemon=True).start()
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listening.getsockname()[1], flush=True)
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
