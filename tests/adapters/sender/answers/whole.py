"""Four whole answers, and which bytes of them are body."""

from __future__ import annotations

from dataclasses import dataclass

HEAD = b"HTTP/1.1 200 OK\r\nX-A: 1\r\n"


@dataclass(frozen=True)
class Whole:
    """An answer, where its head ends, and which bytes of it are body."""

    head: bytes
    rest: bytes
    body: tuple[int, ...]  # places in the rest
    until_end: bool = False  # it ends with its connection

    @property
    def text(self) -> bytes:
        return self.head + self.rest

    def body_of(self, length: int) -> bytes:
        """The body in the first `length` bytes."""
        return bytes(self.rest[place] for place in self.body if len(self.head) + place < length)


CHUNKS = b"5\r\nhello\r\n3;x=y\r\n wo\r\n3\r\nrld\r\n0\r\nX-Sum: 1\r\n\r\n"
WHOLES = {
    "length": Whole(HEAD + b"Content-Length: 11\r\n\r\n", b"hello world", tuple(range(11))),
    "chunks": Whole(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n", CHUNKS, (*range(3, 8), *range(17, 20), *range(25, 28))
    ),
    "until the end": Whole(HEAD + b"\r\n", b"hello world", tuple(range(11)), until_end=True),
    "no body": Whole(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 0\r\n\r\n", b"", ()),
}
