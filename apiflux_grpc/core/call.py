"""What is asked: one outbound request.

Rule: a Call is valid when it is made; checks.py says what is wrong with one that isn't. Which headers are ours and
which methods may be repeated stands here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

# Set by the sender, or of the connection: neither a call nor a setting may set them.
SENDER_HEADERS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# RFC 9110 section 9.2.2: sent twice, they have the effect of being sent once. TRACE is never sent.
IDEMPOTENT_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


# Names and values in the caller's order, repeats included.
Pairs: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One outbound request. `timeout` is ns; None: the pool's."""

    method: str = "GET"
    path: str = "/"
    query: Pairs = ()
    headers: Pairs = ()
    body: bytes = b""
    timeout: int | None = None
    idempotent: bool = True
    id: str = ""
