"""One client's connection to the judge: requests are parsed, recorded as arrivals, and answered.

The rule: chunks are stamped before anything is parsed, and a head that never ends is no arrival. What an arrival is
stands in request.py, how and when answers leave in answers.py.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, cast

import httptools

from apiflux_grpc.judge.answers import Answers
from apiflux_grpc.judge.apis.api import Said, Trouble
from apiflux_grpc.judge.judge import Judge
from apiflux_grpc.judge.request import Request
from apiflux_grpc.judge.wire import CLOSE, OK, Course, course_of, ok, written

if TYPE_CHECKING:
    from collections.abc import Callable

BODY_CAP: Final = 1 << 20
HEAD_CAP: Final = 1 << 16


class Connection(asyncio.Protocol):
    """Reads requests with llhttp, records each as an arrival, and hands its answer on."""

    __slots__ = (
        "_answers", "_chunks", "_head_size", "_in_head", "_judge", "_parser", "_request", "_size", "_stamp",
        "_transport",
    )  # fmt: skip

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._chunks: deque[tuple[int, bytes]] = deque()  # stamped, in the backlog
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._in_head = False
        self._head_size = self._size = self._stamp = 0
        self._request: Request | None = None  # the one that is read
        self._transport: asyncio.Transport
        self._answers: Answers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._answers = Answers(self._judge, self._transport)
        self._judge.connections.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._judge.connections.discard(self._transport)
        self._catch_up()
        self._abandon()
        self._answers.lost()
        self._parser = None  # it refers back to us

    def pause_writing(self) -> None:
        self._answers.choke()

    def resume_writing(self) -> None:
        self._answers.unchoke()

    def data_received(self, data: bytes) -> None:
        stamp, backlog = self._judge.clock(), self._judge.backlog
        if backlog is None:
            self._parse(stamp, data)
        else:
            self._chunks.append((stamp, data))
            backlog.add(self._parse_next)

    def _parse_next(self) -> None:
        if self._chunks:  # else `_catch_up` was faster
            self._parse(*self._chunks.popleft())

    def _catch_up(self) -> None:
        while self._chunks:
            self._parse_next()

    def _parse(self, stamp: int, data: bytes) -> None:
        self._stamp = stamp
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
        self._catch_up()
        return self._answers.client_ended()

    # What llhttp calls while it parses.

    def on_message_begin(self) -> None:
        self._request = Request(self._judge, self._stamp)
        self._size = self._head_size = 0
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        if self._request is not None:
            self._request.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        # Without a request it is a trailer of one that was refused.
        if name in self._judge.read_headers and self._request is not None:
            self._request.header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if not self._answers.closing:
            self._recorded(self._read().head_complete, self._method())

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > BODY_CAP:
            self._refuse(413, "body too large")
        elif not self._answers.closing:
            self._read().body(body)

    def on_message_complete(self) -> None:
        if self._answers.closing:
            return
        request = self._read()
        if not self._recorded(request.complete):
            return
        parser = cast("httptools.HttpRequestParser", self._parser)
        keep = parser.should_keep_alive() and not parser.should_upgrade() and parser.get_http_version() == "1.1"
        head_only = self._method() == b"HEAD"
        latency = 0.0 if request.is_control else self._judge.latency()
        answer: bytes | Course
        if request.fault:
            answer = self._injected(request, () if keep else CLOSE, head_only)
            keep = keep and answer.end in ("keep", "hang")
        else:
            answer = self._compose(request, () if keep else CLOSE, head_only)
        self._request = None
        self._answers.send(answer, latency, last=not keep)

    # Of the request that was parsed.

    def _read(self) -> Request:
        assert self._request is not None
        return self._request

    def _recorded(self, step: "Callable[..., None]", *arguments: bytes) -> bool:
        """Take a step of the request. Whether that went well; one that can't be obeyed is refused."""
        try:
            step(*arguments)
        except ValueError as error:
            self._refuse(400, str(error))
            return False
        return True

    def _abandon(self) -> None:
        if self._request is not None and not self._in_head:
            self._request.abandoned()
        self._request = None

    def _method(self) -> bytes:
        return cast("httptools.HttpRequestParser", self._parser).get_method()

    def _compose(self, request: Request, fields: tuple[str, ...], head_only: bool) -> bytes:
        judge = self._judge
        speaker, teller = judge.speaker, judge.teller
        status, wait_ns, limit = request.verdict
        if request.is_control:
            said = Said(*judge.control(self._method(), request.url.partition(b"?")[0]))
        elif status == 401:
            said = speaker.error(Trouble(401))
        elif limit is not None:
            said = speaker.refusal(teller.refusal(limit, wait_ns))
            fields = (*self._told(request), *fields)
        elif not speaker.plain:
            if request.heard.trouble is not None:
                judge.refused[request.heard.trouble.status] += 1
            said = speaker.answer(request.heard)
            fields = (*self._told(request), *fields)
        elif teller.silent and not judge.counts_cost and not fields and not head_only:
            return OK
        else:
            return ok(request.cost if judge.counts_cost else None, (*self._told(request), *fields), head_only=head_only)
        return written(said, fields, head_only=head_only)

    def _told(self, request: Request) -> tuple[str, ...]:
        """What is left of the limits of the request's key, as headers."""
        if self._judge.teller.silent:
            return ()
        return self._judge.teller.fields(self._judge.ledger.left(request.key, request.started))

    def _refuse(self, status: int, error: str) -> None:
        if not self._answers.closing:
            self._abandon()
            said = self._judge.speaker.error(Trouble(status, error))
            self._answers.send(written(said, CLOSE), 0.0, last=True)

    def _injected(self, request: Request, fields: tuple[str, ...], head_only: bool) -> Course:
        fault, judge = request.fault, self._judge
        assert fault is not None
        judge.ledger.fault(request.call_id, request.key, fault.kind)
        fields = (*self._told(request), *fields)
        return course_of(fault, judge.speaker.injected(fault.kind), fields, head_only=head_only, wall=judge.wall)
