"""What is asked: one outbound request.

Rule: a Call is valid when it is made; checks.py says what is wrong with one that isn't. Which headers are ours and
which methods may be repeated stands here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.core.rules import CallRule

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


def decoded(path: str) -> str:
    """A path as the upstream reads it, to be compared with a setting: decoded, a slash in front, no base path."""
    path = unquote(path) if "%" in path else path
    return path if path.startswith("/") else f"/{path}"


def may_run_twice(method: str, path: str, rules: Iterable[CallRule]) -> bool:
    """Whether a call that doesn't say so itself may: by its pool's rules, else by its method."""
    if method in IDEMPOTENT_METHODS:
        return True
    return any(
        (not rule.methods or method in rule.methods) and (not rule.paths or decoded(path).startswith(rule.paths))
        for rule in rules
    )
