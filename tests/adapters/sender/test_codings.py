"""Bodies that came compressed though nobody asked: what becomes of them, the same with both senders."""

from __future__ import annotations

import gzip
import zlib

import pytest

from apiflux_grpc.adapters import decoding
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.outcome import Reason
from tests.adapters.sender.answers.row import S
from tests.adapters.sender.stage import World

A, B = b"first " * 100, b"second " * 100
GZIP = gzip.compress(A)
ZLIB = zlib.compress(A)
BARE = ZLIB[2:-4]
CUT = Reason.BODY_CUT

# coding, the body as it comes, the body that comes out (None: as it came, header included), what is wrong with it
TABLE: dict[str, tuple[str, bytes, bytes | None, Reason | None]] = {
    "gzip": ("gzip", GZIP, A, None),
    "gzip, in capitals": ("GZip", GZIP, A, None),
    "x-gzip": ("x-gzip", GZIP, A, None),
    "gzip, two members": ("gzip", GZIP + gzip.compress(B), A + B, None),
    "gzip, a member without text": ("gzip", GZIP + gzip.compress(b"") + gzip.compress(B), A + B, None),
    "gzip, a large member behind": ("gzip", GZIP + gzip.compress(B * 1000, 0), A + B * 1000, None),
    "gzip, five hundred members": ("gzip", GZIP * 500, A * 500, None),
    "gzip, garbage behind": ("gzip", GZIP + b"nonsense", A, CUT),
    "gzip, garbage behind two members": ("gzip", GZIP + GZIP + b"\x1f", A + A, CUT),
    "gzip, zeros behind": ("gzip", GZIP + bytes(512), A, CUT),
    "gzip, cut in its sum": ("gzip", GZIP[:-4], A, CUT),
    "gzip, cut in its second member": ("gzip", GZIP + gzip.compress(B)[:-8], A + B, CUT),
    "gzip, cut in the head of its second member": ("gzip", GZIP + gzip.compress(B)[:5], A, CUT),
    "gzip, a bad sum": ("gzip", GZIP[:-8] + bytes(8), None, CUT),
    "gzip, a bad sum in its second member": ("gzip", GZIP + GZIP[:-8] + bytes(8), A, CUT),
    "gzip, not gzip": ("gzip", b"nonsense", None, CUT),
    "deflate": ("deflate", ZLIB, A, None),
    "deflate, without a head": ("deflate", BARE, A, None),
    "deflate, garbage behind": ("deflate", ZLIB + b"x", A, CUT),
    "deflate, without a head, garbage behind": ("deflate", BARE + b"x", A, CUT),
    "deflate, cut": ("deflate", ZLIB[:-1], A, CUT),
    "deflate, without a head, cut": ("deflate", BARE[:-1], A, CUT),
    "deflate, nonsense": ("deflate", b"nonsense", None, CUT),
    "no body": ("gzip", b"", None, None),
    "identity": ("identity", A, None, None),
    "br": ("br", A, None, None),
    "zstd": ("zstd", A, None, None),
    "a list": ("gzip, gzip", gzip.compress(GZIP), None, None),
    "nonsense": ("x" * 1000, A, None, None),
}


@pytest.mark.parametrize("framed", [True, False], ids=["length", "chunks"])
def test_codings(both: World, framed: bool) -> None:
    """The whole body comes out; what is cut or has garbage behind it says so; an unknown coding changes nothing."""

    async def go() -> None:
        async with both.stage() as stage:
            wrong: list[object] = []
            for name, (coding, body, text, fault) in TABLE.items():
                head = S + b"Content-Encoding: %s\r\n" % coding.encode()
                if framed:
                    stage.server.on("/z", head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                else:
                    chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
                    stage.server.on("/z", head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n")
                answer = await stage.answer("/z")
                kept = answer.headers.get("content-encoding") == coding
                if (answer.body, answer.fault, kept) != (body if text is None else text, fault, text is None):
                    wrong.append((name, len(answer.body), answer.fault, answer.headers))
                if framed and kept != ("content-length" in answer.headers):
                    wrong.append((name, answer.headers))
            assert not wrong
            assert len(stage.server.peers) == 1

    both.run(go())


@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("members", [1, 2])
def test_the_cap_counts_what_comes_out(both: World, members: int, over: int) -> None:
    """A body is cut at the cap after it was decoded, and says so only if there was more."""
    cap = 2000
    text = b"x" * (cap + over)
    body = gzip.compress(text) if members == 1 else gzip.compress(text[:1500]) + gzip.compress(text[1500:])

    async def go() -> None:
        async with both.stage(body_cap=cap) as stage:
            head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
            stage.server.on("/z", S + head + body)
            answer = await stage.answer("/z")
            assert (answer.body, answer.truncated, answer.fault) == (text[:cap], over > 0, None)

    both.run(go())


def test_a_body_that_is_cut_at_the_cap_before_it_is_decoded(both: World) -> None:
    """What came of it up to the cap is decoded, and its missing end is no fault besides."""
    text = bytes(range(256)) * 8

    async def go() -> None:
        async with both.stage(body_cap=1000) as stage:
            body = gzip.compress(text, 0)
            head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
            stage.server.on("/z", S + head + body)
            answer = await stage.answer("/z")
            assert answer.truncated
            assert answer.fault is None
            assert text.startswith(answer.body)
            assert len(answer.body) > 900

    both.run(go())


def test_many_members_cost_what_their_bytes_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """zlib copies what it doesn't use of what it is given: it is given a body of small members only a few times."""
    given = 0
    made = zlib.decompressobj

    class Counting:
        def __init__(self, wbits: int) -> None:
            self._decoder = made(wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal given
            given += len(data)
            return self._decoder.decompress(data, most)

        def __getattr__(self, name: str) -> object:
            return getattr(self._decoder, name)

    body = GZIP + gzip.compress(b"x" * 2000, 0) * 1000
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    _, text, fault = decoding.decode(Headers.of({"content-encoding": "gzip"}), body, 1 << 24, False, None)
    assert (text, fault) == (A + b"x" * 2_000_000, None)
    assert given < 4 * len(body)
