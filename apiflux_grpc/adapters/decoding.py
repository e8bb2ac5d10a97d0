"""Undoes the coding of a body that came compressed though nobody asked for it, the same way for both senders.

Rules
- All of it counts: every member of gzip (RFC 1952, section 2.2), and deflate with zlib's head (RFC 9110, section
  8.4.1.2) or without, as some servers send it. A stream that is cut, or has something else behind it, is BODY_CUT.
- A coding that isn't known leaves body and header as they came, and so does a body that isn't what its header says.
- No more comes out than was asked for, and time grows with the body's length alone, whatever its members are.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.outcome import Reason

if TYPE_CHECKING:
    from apiflux_grpc.core.headers import Headers

# What zlib calls the formats: 47 is gzip or zlib, found out by the first bytes, 31 gzip, 15 zlib, -15 without a frame.
_EITHER: Final = 47
_GZIP: Final = 31
_ZLIB: Final = 15
_BARE: Final = -15
_KNOWN: Final = frozenset({"gzip", "x-gzip", "deflate"})
_PIECE: Final = 1024  # bytes of a later member that are tried first


def decode(
    headers: Headers, body: bytes, cap: int, truncated: bool, fault: Reason | None
) -> tuple[Headers, bytes, Reason | None]:
    """(the headers without what was undone, the body without its coding, what is wrong with it).

    The body is at most `cap` bytes and one more, which says that it is longer. `truncated`: its end is missing because
    it went over the cap, which is no fault.
    """
    coding = headers.get("content-encoding", "").strip().lower()
    if coding not in _KNOWN or not body:
        return headers, body, fault
    text, whole = _undo(body, coding, cap + 1)
    if not whole and not (truncated and text is not None):
        fault = fault or Reason.BODY_CUT
    if text is None:
        return headers, body, fault
    return headers.without("content-encoding", "content-length"), text, fault


def _undo(body: bytes, coding: str, most: int) -> tuple[bytes | None, bool]:
    """(the text up to `most` bytes, whether the stream is whole as far as it was read). None: it can't be read."""
    decoder = zlib.decompressobj(_EITHER if coding != "deflate" else _ZLIB if _has_head(body) else _BARE)
    try:
        text = decoder.decompress(body, most)
    except zlib.error:
        return None, False
    if len(text) == most or not decoder.unused_data:
        return text, decoder.eof or len(text) == most
    return (text, False) if coding == "deflate" else _members(text, decoder.unused_data, most)


def _members(text: bytes, rest: bytes, most: int) -> tuple[bytes, bool]:
    """The text with that of more members of gzip, and whether they are whole."""
    texts, size = [text], len(text)
    view, at = memoryview(rest), 0
    while at < len(view) and size < most:
        decoder, piece = zlib.decompressobj(_GZIP), _PIECE
        while not decoder.eof and at < len(view) and size < most:
            # zlib copies what it leaves of a piece: whole bodies would be copied once per member, of which there may
            # be one every 20 bytes.
            data = view[at : at + piece]
            try:
                text = decoder.decompress(data, most - size)
            except zlib.error:
                return b"".join(texts), False
            texts.append(text)
            size += len(text)
            at += len(data) - len(decoder.unused_data)
            piece *= 2
        if not decoder.eof and size < most:
            return b"".join(texts), False
    return b"".join(texts), True


def _has_head(body: bytes) -> bool:
    """Whether it begins as zlib's format does (RFC 1950, section 2.2), which a bare stream can't."""
    return body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
