"""What aiohttp says, in words of ours: the outcome of an error, and an answer's headers.

Rule: no text of aiohttp's gets past this file. Its exceptions hold URLs, and a URL may hold the key: details are made
from an exception's class and errno alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import aiohttp

from apiflux_grpc.adapters.sender.short import NO_FILE, is_short
from apiflux_grpc.core.headers import Headers, text_of
from apiflux_grpc.core.outcome import Cause, NotSent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apiflux_grpc.adapters.masking import Mask


class Failed(Exception):
    """An attempt that came to nothing: `unsent`, unless its request went out before."""

    def __init__(self, unsent: NotSent) -> None:
        super().__init__(unsent.detail)
        self.unsent = unsent


# The first class that fits; {why} is what the system says of the errno.
_WORDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (aiohttp.ClientConnectorDNSError, "the host name was not found"),
    (aiohttp.ClientConnectorCertificateError, "the TLS certificate is not trusted"),
    (aiohttp.ClientConnectorSSLError, "the TLS handshake failed"),
    (aiohttp.ClientProxyConnectionError, "the egress proxy can't be reached: {why}"),
    (aiohttp.ClientHttpProxyError, "the egress proxy refused"),
    (aiohttp.ClientConnectorError, "can't connect: {why}"),
    (aiohttp.ConnectionTimeoutError, "connecting took too long"),
    (aiohttp.ServerDisconnectedError, "the connection was closed before an answer"),
    (aiohttp.ClientOSError, "the connection was lost: {why}"),
    (aiohttp.ClientConnectionResetError, "the connection was closed before an answer"),
    (aiohttp.ClientResponseError, "the answer is not HTTP"),
    (aiohttp.InvalidURL, "not a URL"),
    (OSError, "{why}"),
)


def unsent(error: BaseException) -> NotSent:
    """What to say of an error; never its own text, which may hold a URL and so a key."""
    if isinstance(error, Failed):
        return error.unsent
    if is_short(error):
        return NO_FILE  # it doesn't wait for one, as our own sender does
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return NotSent(Cause.UNREACHABLE, words.format(why=_why(error)))
    return NotSent(Cause.UNREACHABLE, type(error).__name__)


def _why(error: BaseException) -> str:
    errno = error.errno if isinstance(error, OSError) else None
    return os.strerror(errno).lower() if errno else "unknown reason"


def headers_of(headers: Mapping[str, str], mask: Mask) -> Headers:
    """The headers of an answer, without the key."""
    return Headers.of([(_unicode(name), _unicode(mask.text(value))) for name, value in headers.items()])


def _unicode(text: str) -> str:
    """aiohttp keeps bytes that aren't UTF-8 as surrogates, which nothing further on could encode."""
    return text if text.isascii() else text_of(text.encode("utf-8", "surrogateescape"))
