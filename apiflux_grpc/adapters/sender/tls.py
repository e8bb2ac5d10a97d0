"""TLS over memory: bytes in, bytes out, and no socket.

Rule: nothing here touches the network, so the connection alone decides what reaches the kernel and when. The loop's own
TLS would hide that: it takes a request into its buffer and can't say afterwards whether a byte of it went out, and
"not sent" would no longer be provable. It is also faster and smaller: 14 us a call on uvloop with one shared buffer, 43
without, and asyncio's TLS keeps 256 KB per connection.
"""

from __future__ import annotations

import ssl
from typing import Final, cast

# What is decrypted is parsed, and so copied, before the next read: one buffer serves all connections of the process.
_PLAIN: Final = memoryview(bytearray(64 << 10))


class Tls:
    """The client's side of one connection."""

    __slots__ = ("_from_peer", "_ssl", "_to_peer", "ready")

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._from_peer = ssl.MemoryBIO()
        self._to_peer = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._from_peer, self._to_peer, server_hostname=host)
        self.ready = False  # the handshake is done

    def feed(self, data: memoryview) -> None:
        """Bytes that came from the peer."""
        self._from_peer.write(data)

    def to_send(self) -> bytes:
        """What TLS itself has to say: handshake, alerts, key updates. b"": nothing."""
        return self._to_peer.read() if self._to_peer.pending else b""

    def handshake(self) -> bool:
        """Go on with the handshake; False: it needs more from the peer. Raises ssl.SSLError."""
        try:
            self._ssl.do_handshake()  # one step per flight of messages: the other side's answer must be fed first
        except ssl.SSLWantReadError:
            return False
        self.ready = True
        return True

    def seal(self, plain: bytes) -> bytes:
        """`plain` as it goes out, after what TLS has to say itself. Raises ssl.SSLError."""
        self._ssl.write(plain)
        return self._to_peer.read()

    def read(self) -> memoryview | None:
        """The next piece in plain, good until the next call; empty: the peer said goodbye; None: more must come.

        Raises ssl.SSLError for what isn't TLS.
        """
        # Asked first: an SSLWantReadError at the end of every answer costs seven times as much. OpenSSL may have taken
        # something from the peer's bytes and hold it itself.
        if not self._from_peer.pending and not self._ssl.pending():
            return None
        try:
            count = cast("int", self._ssl.read(len(_PLAIN), cast("bytearray", _PLAIN)))  # with a buffer, it counts
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:  # close_notify, RFC 8446, section 6.1
            count = 0
        return _PLAIN[:count]

    def __repr__(self) -> str:
        return f"<TLS: {'ready' if self.ready else 'in its handshake'}>"
