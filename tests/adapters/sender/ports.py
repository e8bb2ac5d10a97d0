"""Ports on which nobody listens."""

from __future__ import annotations

import socket


def closed_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
