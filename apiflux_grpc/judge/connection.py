"""One client's connection to the judge: what it asks, when it asked, and with which key.

The rule: a request arrives when its first byte is read, stamped before anything is parsed; the ledger decides on that
stamp as soon as the head is whole. So an arrival counts even if its body never ends, and a head that never ends is no
arrival. A fault is chosen when the arrival is recorded, and counted when the request was read: from then on it is
certain, unless the client goes.

It keeps no body. How and when answers leave is in answers.py.
"""

import asyncio
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import unquote_plus

import httptools

from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.answers import Answers
from apiflux_grpc.judge.judge import Judge
from apiflux_grpc.judge.wire import CLOSE, OK, Course, course_of, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apiflux_grpc.judge.faults import Fault

BODY_CAP: Final = 1 << 20
HEAD_CAP: Final = 1 << 16


class Connection(asyncio.Protocol):
    """Reads requests with llhttp, records each as an arrival, and hands its answer on."""

    __slots__ = (
        "_answers", "_attempt", "_call_id", "_fault", "_head_size", "_in_head", "_judge", "_key", "_key_header",
        "_parser", "_script", "_size", "_stamp", "_started", "_status", "_transport", "_url", "_wait_ns",
    )  # fmt: skip

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._key_header = b"" if judge.key_in.kind == "query" else judge.key_in.name.lower().encode()
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._in_head = False
        self._head_size = self._stamp = 0
        self._transport: asyncio.Transport
        self._answers: Answers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._answers = Answers(self._judge, self._transport)
        self._judge.connections.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._judge.connections.discard(self._transport)
        self._answers.lost()
        self._parser = None  # it refers back to us

    def pause_writing(self) -> None:
        self._answers.choke()

    def resume_writing(self) -> None:
        self._answers.unchoke()

    def data_received(self, data: bytes) -> None:
        self._stamp = self._judge.clock()
        if self._answers.closing or self._parser is None:
            return
        # A head that begins in this chunk starts from 0 again: what is before it isn't its own.
        self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # answered as an ordinary request, and closed
        except httptools.HttpParserCallbackError:
            raise  # a fault of ours
        except httptools.HttpParserError:
            self._refuse(400, "bad HTTP")
        if self._in_head and self._head_size > HEAD_CAP:
            self._refuse(431, "head too large")
        self._answers.flush()

    def eof_received(self) -> bool:
        return self._answers.client_ended()

    # What llhttp calls while it parses.

    def on_message_begin(self) -> None:
        self._started = self._stamp
        self._url = self._key = self._call_id = self._attempt = self._script = b""
        self._size = self._head_size = 0
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == self._key_header:
            self._key = value
        elif name == b"x-call-id":
            self._call_id = value
        elif name == b"x-attempt":
            self._attempt = value
        elif name == b"x-judge-fault":
            self._script += b"," + value if self._script else value

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._status = 0  # of a control request, until it is asked
        self._fault: tuple[Fault, str, str] | None = None  # with the call and the key that it is counted for
        if self._answers.closing or self._url.startswith(b"/_judge/"):
            return
        key, target = self._take_key()
        call_id = _text(self._call_id or self._method() + b" " + target)
        said = self._attempt
        attempt = int(said) if said.isdigit() and len(said) < 10 else 0
        self._status, self._wait_ns = self._judge.ledger.arrive(call_id, key, attempt, self._started)
        if self._status == 200:
            try:
                fault = self._judge.fault(self._script, call_id, key, self._started)
            except ValueError as error:
                self._judge.ledger.fault(call_id, key, "400")
                self._refuse(400, f"X-Judge-Fault: {error}")
            else:
                self._fault = fault and (fault, call_id, key)

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > BODY_CAP:
            self._refuse(413, "body too large")

    def on_message_complete(self) -> None:
        if self._answers.closing:
            return
        parser = cast("httptools.HttpRequestParser", self._parser)
        keep = parser.should_keep_alive() and not parser.should_upgrade() and parser.get_http_version() == "1.1"
        head_only = self._method() == b"HEAD"
        latency = self._judge.latency() if self._status else 0.0
        answer: bytes | Course
        if self._fault:
            answer = self._injected(keep, head_only)
            keep = keep and answer.end in ("keep", "hang")
        elif self._status == 200 and keep and not head_only:
            answer = OK
        else:
            answer = self._compose(() if keep else CLOSE, head_only)
        self._answers.send(answer, latency, last=not keep)

    # Of the request that was parsed.

    def _method(self) -> bytes:
        return cast("httptools.HttpRequestParser", self._parser).get_method()

    def _take_key(self) -> tuple[str, bytes]:
        """The secret as it came, and the target without it."""
        kind, name = self._judge.key_in
        if kind == "header":
            return _text(self._key), self._url
        if kind == "bearer":
            scheme, _, secret = self._key.partition(b" ")
            return (_text(secret.strip()) if scheme.lower() == b"bearer" else ""), self._url
        path, _, query = self._url.partition(b"?")
        key, kept = "", []
        for pair in query.split(b"&"):
            field_name, _, value = pair.partition(b"=")
            if unquote_plus(_text(field_name)) == name:
                key = unquote_plus(_text(value))
            else:
                kept.append(pair)
        rest = b"&".join(kept)
        return key, path + b"?" + rest if rest else path

    def _compose(self, fields: tuple[str, ...], head_only: bool) -> bytes:
        body: Mapping[str, object]
        status = self._status
        if status == 0:
            status, body = self._judge.control(self._method(), self._url.partition(b"?")[0])
        elif status == 429:
            fields = (f"Retry-After: {-(-self._wait_ns // SECOND)}", *fields)
            body = {"ok": False, "error": "a limit of this key is used up"}
        elif status == 401:
            body = {"ok": False, "error": "unknown key"}
        else:
            body = {"ok": True}
        return plain(status, body, head_only=head_only, fields=fields)

    def _refuse(self, status: int, error: str) -> None:
        if not self._answers.closing:
            self._answers.send(plain(status, {"ok": False, "error": error}, fields=CLOSE), 0.0, last=True)

    def _injected(self, keep: bool, head_only: bool) -> Course:
        assert self._fault is not None
        fault, call_id, key = self._fault
        self._judge.ledger.fault(call_id, key, fault.kind)
        return course_of(fault, () if keep else CLOSE, head_only=head_only, wall=self._judge.wall)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
