"""The judge: an upstream in its own process that checks keys, enforces limits and records every arrival.

The rule: a request arrives when its first byte is read, stamped before anything is parsed; the ledger decides on that
stamp as soon as the head is whole. So an arrival counts even if its body never ends, and a head that never ends is no
arrival. The control endpoints (/_judge/...) are on the same port and not recorded.

A fault (faults.py) is chosen when the arrival is recorded, and counted when the request was read: from then on it is
certain, unless the client goes. A connection that hangs ends with its client, or with the judge.

`Judge` owns the ledger, on one event loop. It deliberately doesn't know whose client it judges, and keeps no body.
What the windows say is in ledger.py, what a fault is in faults.py.

Keys reach a judge's process on its standard input, since everyone can read the arguments of a process.
"""

import asyncio
import gc
import json
import os
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self, TextIO, cast
from urllib.parse import quote, unquote, unquote_plus

import httptools

from apiflux_grpc.judge.faults import REJECTED, Chance, Course, Fault, Faults, Rejection, course_of, head, scripted
from apiflux_grpc.judge.ledger import NS, Ledger, Limit, Report, format_ns, parse_duration

BODY_CAP: Final = 1 << 20
HEAD_CAP: Final = 1 << 16
PIPELINE_CAP: Final = 1000  # answers waiting on one connection; then it isn't read until some are written
LINGER: Final = 1.0  # seconds that a refused client has to read why, before it is cut off
TICK_NS: Final = 5_000_000
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


class KeyIn(NamedTuple):
    """Where a request carries its key; for `bearer` the name is that of the header."""

    kind: Literal["header", "bearer", "query"]
    name: str


X_API_KEY: Final = KeyIn("header", "X-API-Key")


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """What a judge is told at its start. `keys` maps labels to secrets; `latency_ns` is a range, drawn uniformly.

    A fault comes after the latency. With a certificate and its key (PEM files) it speaks TLS, the control endpoints
    too. Raises ValueError where a rejection's label is none of `keys`, or one of the two files is missing.
    """

    keys: Mapping[str, str] = field(repr=False)
    limits: tuple[Limit, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one
    key_in: KeyIn = X_API_KEY
    latency_ns: tuple[int, int] = (0, 0)
    faults: tuple[Chance, ...] = ()  # by chance
    rejections: tuple[Rejection, ...] = ()
    seed: int = 0  # of `faults`
    tls_cert: str | None = None
    tls_key: str | None = None

    def __post_init__(self) -> None:
        for rejection in self.rejections:
            if rejection.label not in self.keys:
                raise ValueError(f"rejections: {rejection.label!r} is the label of no key")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("TLS takes a certificate and its key: one of the two is missing")
        for path in filter(None, (self.tls_cert, self.tls_key)):
            if not os.access(path, os.R_OK):
                raise ValueError(f"{path} can't be read")


@dataclass(frozen=True, slots=True)
class Live:
    """A cheap look at a run: `keys` maps labels to (accepted, rejected); `in_flight` wait for their answer.

    A call that hangs is in flight until its client goes.
    """

    arrivals: int
    unknown_arrivals: int
    in_flight: int
    keys: Mapping[str, tuple[int, int]]


# --- Options from text ------------------------------------------------------------------------------------------------


def parse_limit(text: str) -> Limit:
    """`1000/60s`: at most 1000 in any 60 seconds. Raises ValueError for any other form."""
    most, _, per = text.partition("/")
    try:
        limit = Limit(int(most), parse_duration(per))
    except ValueError:
        limit = Limit(0, 0)
    if limit.max < 1 or limit.per_ns < 1:
        raise ValueError(f"{text!r} is no limit: expected MAX/DURATION, like 1000/60s")
    return limit


def parse_latency(text: str) -> tuple[int, int]:
    """`0`, `20ms` or `10ms..50ms` as a range in nanoseconds. Raises ValueError for any other form."""
    low, dots, high = text.partition("..")
    try:
        least = 0 if low.strip() == "0" else parse_duration(low)
        most = parse_duration(high) if dots else least
    except ValueError:
        least, most = 1, 0
    if least > most:
        raise ValueError(f"{text!r} is no latency: expected 0, a duration or a range, like 10ms..50ms")
    return least, most


def parse_keys(texts: Iterable[str]) -> dict[str, str]:
    """Labels to secrets, of texts like `SECRET` or `LABEL=SECRET`; without a label the nth is `key-n`.

    A text with `=` only at its end is a secret (base64 ends so). Raises ValueError, which names positions and
    labels but no secret.
    """
    keys: dict[str, str] = {}
    for at, text in enumerate(texts, 1):
        label, _, secret = text.partition("=")
        if not secret.strip("="):
            label, secret = f"key-{at}", text
        if not label or not secret.strip("="):
            raise ValueError(f"key {at}: expected SECRET or LABEL=SECRET")
        if label in keys:
            raise ValueError(f"key {at}: the label {label!r} is taken")
        if secret in keys.values():
            raise ValueError(f"key {at}: the same secret was given before")
        keys[label] = secret
    return keys


def parse_key_in(text: str) -> KeyIn:
    """`header:NAME`, `bearer` or `query:NAME`. Raises ValueError for any other form."""
    kind, _, name = text.partition(":")
    if text == "bearer":
        return KeyIn("bearer", "Authorization")
    if kind not in ("header", "query") or not name:
        raise ValueError(f"{text!r} is no place for a key: expected header:NAME, bearer or query:NAME")
    return KeyIn(cast("Literal['header', 'query']", kind), name)


def parse_bind(text: str) -> tuple[str, int]:
    """`HOST:PORT`; an IPv6 address in brackets. Raises ValueError for any other form."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text!r} is no address: expected HOST:PORT, like 127.0.0.1:8900")
    return host.strip("[]"), int(port)


# --- The server -------------------------------------------------------------------------------------------------------


def _answer(status: int, body: Mapping[str, object], *, head_only: bool = False, headers: Iterable[str] = ()) -> bytes:
    payload = json.dumps(body, separators=(",", ":"))
    begin = head(status, "Content-Type: application/json", f"Content-Length: {len(payload)}", *headers)
    return (begin if head_only else begin + payload).encode()


CLOSE: Final = ("Connection: close",)
OK: Final = _answer(200, {"ok": True})


class _Lag:
    """How late the loop runs at worst. A stall is seen short by one tick at most."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        self._due = self._clock() + TICK_NS
        self._max = 0

    def tick(self) -> None:
        self.read()
        self._due = self._clock() + TICK_NS
        asyncio.get_running_loop().call_later(TICK_NS / NS, self.tick)

    def read(self) -> int:
        """The worst so far, a stall that is just ending included."""
        self._max = max(self._max, self._clock() - self._due)
        return self._max


class Judge:
    """The server's state; `connection` makes the protocol of one connection. `clock` gives nanoseconds.

    `wall` gives seconds since 1970, for dates.
    """

    def __init__(
        self,
        options: JudgeOptions,
        clock: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.ledger = Ledger(options.keys, options.limits)
        self.lag = _Lag(clock)
        self.clock = clock
        self.wall = wall
        self._labels = frozenset(options.keys)
        self._faults = Faults(options.faults, options.rejections, options.seed)
        self._rejecting: set[str] = set()  # labels, on command
        self._started = clock()
        self.key_in = options.key_in
        self.in_flight = 0
        self.connections: set[_Connection] = set()
        self._latency = tuple(ns / NS for ns in options.latency_ns)

    def connection(self) -> "_Connection":
        return _Connection(self)

    def latency(self) -> float:
        """Seconds that the next answer takes."""
        low, high = self._latency
        return low if low == high else random.uniform(low, high)

    def control(self, method: bytes, path: bytes) -> tuple[int, Mapping[str, object]]:
        """Status and body for a request to a control endpoint."""
        _, _, name, *rest = path.split(b"/", 3)
        wanted, act = {
            b"report": (b"GET", self._report),
            b"calls": (b"GET", self._calls),
            b"reset": (b"POST", self._reset),
            b"live": (b"GET", self._live),
        }.get(name, (b"", None))
        label = unquote(_text(b"".join(rest)))
        if name in (b"reject", b"accept") and label in self._labels:
            wanted, act = b"POST", partial(self._reject, label, name == b"reject")
        elif rest:
            act = None
        if act is None:
            return 404, {"ok": False, "error": "no such control endpoint"}
        if method != wanted:
            return 405, {"ok": False, "error": f"expected {wanted.decode()}"}
        return 200, act()

    def report(self) -> Report:
        return self.ledger.report(self.lag.read())

    def _report(self) -> Mapping[str, object]:
        return self.report().to_json()

    def fault(self, script: bytes, call_id: str, key: str, now: int) -> Fault | None:
        """What befalls the arrival that was accepted last. Raises ValueError where the script is none."""
        if not (script or self._rejecting or self._faults.any):
            return None
        nth = self.ledger.accepted_of(call_id)
        if script:
            fault: Fault | None = scripted(_text(script), nth)
        else:
            label = self.ledger.label(key)
            rejected = label in self._rejecting or self._faults.rejects(
                label, self.ledger.accepted_with(key), now - self._started
            )
            fault = REJECTED if rejected else self._faults.drawn(call_id, nth)
        return None if fault is None or fault.kind == "ok" else fault

    def _calls(self) -> Mapping[str, object]:
        return self.ledger.calls()

    def _reject(self, label: str, rejects: bool) -> Mapping[str, object]:
        (self._rejecting.add if rejects else self._rejecting.discard)(label)
        return {"ok": True}

    def _reset(self) -> Mapping[str, object]:
        self.ledger.reset()
        self.lag.reset()
        self._rejecting.clear()
        self._started = self.clock()
        return {"ok": True}

    def _live(self) -> Mapping[str, object]:
        keys = self.ledger.counts()
        unknown = self.ledger.unknown_arrivals
        arrivals = unknown + sum(map(sum, keys.values()))
        return asdict(Live(arrivals, unknown, self.in_flight, keys))


class _Connection(asyncio.Protocol):
    """One client connection: answers leave in the order of the requests, however long each one takes."""

    __slots__ = (
        "_attempt", "_call_id", "_choked", "_closing", "_course", "_due", "_ended", "_fault", "_head_size", "_in_head",
        "_judge", "_key", "_key_header", "_parser", "_ready", "_script", "_size", "_stamp", "_started", "_status",
        "_timer", "_transport", "_url", "_wait_ns", "_waiting",
    )  # fmt: skip

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._key_header = b"" if judge.key_in.kind == "query" else judge.key_in.name.lower().encode()
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._ready: list[bytes] = []  # to be written when the chunk is parsed
        self._waiting: deque[bytes | Course] = deque()  # to be written one per timer
        self._due = 0  # timers that found a course under way
        self._course: Course | None = None  # the one under way
        self._timer: asyncio.TimerHandle | None = None  # of its next piece
        self._choked = self._closing = self._ended = self._in_head = False
        self._head_size = self._stamp = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._judge.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._judge.connections.discard(self)
        self._judge.in_flight -= len(self._waiting) + (self._course is not None)
        self._waiting.clear()
        self._course = None
        if self._timer is not None:
            self._timer.cancel()
        self._closing = True
        self._parser = None  # it refers back to us

    def abort(self) -> None:
        self._transport.abort()

    # Reading.

    def data_received(self, data: bytes) -> None:
        self._stamp = self._judge.clock()
        if self._closing or self._parser is None:
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
        self._flush()

    def eof_received(self) -> bool:
        self._ended = self._closing = True
        if self._course is None:
            return bool(self._waiting)
        return self._course.end != "hang"

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
        if self._closing or self._url.startswith(b"/_judge/"):
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
        if self._closing:
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
        self._closing = not keep
        self._send(answer, latency)

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

    # Answering.

    def _compose(self, headers: tuple[str, ...], head_only: bool) -> bytes:
        body: Mapping[str, object]
        status = self._status
        if status == 0:
            status, body = self._judge.control(self._method(), self._url.partition(b"?")[0])
        elif status == 429:
            headers = (f"Retry-After: {-(-self._wait_ns // NS)}", *headers)
            body = {"ok": False, "error": "a limit of this key is used up"}
        elif status == 401:
            body = {"ok": False, "error": "unknown key"}
        else:
            body = {"ok": True}
        return _answer(status, body, head_only=head_only, headers=headers)

    def _refuse(self, status: int, error: str) -> None:
        if not self._closing:
            self._closing = True
            self._send(_answer(status, {"ok": False, "error": error}, headers=CLOSE), 0.0)

    def _injected(self, keep: bool, head_only: bool) -> Course:
        assert self._fault is not None
        fault, call_id, key = self._fault
        self._judge.ledger.fault(call_id, key, fault.kind)
        return course_of(fault, () if keep else CLOSE, head_only=head_only, wall=self._judge.wall)

    def _send(self, answer: bytes | Course, latency: float) -> None:
        if latency or self._waiting or self._course or isinstance(answer, Course):
            # Every timer writes the oldest answer, not its own: that keeps the order.
            self._waiting.append(answer)
            self._judge.in_flight += 1
            asyncio.get_running_loop().call_later(latency, self._answer_oldest)
        else:
            self._ready.append(answer)

    def _answer_oldest(self) -> None:
        self._due += 1
        self._answer_due()

    def _answer_due(self) -> None:
        while self._due and self._waiting and self._course is None:  # else the connection was lost, or waits
            self._due -= 1
            answer = self._waiting.popleft()
            if isinstance(answer, bytes):
                self._judge.in_flight -= 1
                self._ready.append(answer)
            else:
                self._course = answer
                if answer.begin:
                    self._ready.append(answer.begin)
                self._timer = asyncio.get_running_loop().call_later(answer.every, self._go_on)
        self._flush()

    def _go_on(self) -> None:
        """One step of the course under way; where the client doesn't read, its next reading takes it."""
        self._timer = None
        if self._course is None or self._choked:
            return
        piece = next(self._course.rest, None)
        if piece is None:
            self._end(self._course)
        else:
            self._timer = asyncio.get_running_loop().call_later(self._course.every, self._go_on)
            self._transport.write(piece)

    def _end(self, course: Course) -> None:
        if course.end == "hang":
            if self._ended:
                self.abort()
            return
        self._course = None
        self._judge.in_flight -= 1
        if course.end == "reset":
            wire = self._transport.get_extra_info("socket")
            if wire is not None:
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.abort()
        elif self._closing and not self._waiting:
            self._finish()
        else:
            self._answer_due()

    def _flush(self) -> None:
        if self._ready:
            self._transport.write(b"".join(self._ready))
            self._ready.clear()
            if self._closing and not self._waiting and self._course is None:
                self._finish()
        if self._waiting or self._choked:
            self._throttle()

    def _finish(self) -> None:
        """Half-close: closing at once, with input unread, would take the answer back out of the client's hands."""
        asyncio.get_running_loop().call_later(LINGER, self.abort)
        if self._transport.can_write_eof():
            with suppress(OSError):  # the client may be gone unnoticed, if its end had been read before
                self._transport.write_eof()

    def _throttle(self) -> None:
        if self._transport.is_closing():
            return
        if self._course and self._course.end == "hang" and len(self._waiting) >= PIPELINE_CAP:
            self.abort()  # unread it would never tell that its client is gone
            return
        if self._choked or len(self._waiting) >= PIPELINE_CAP:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._choked = True
        self._throttle()

    def resume_writing(self) -> None:
        self._choked = False
        self._throttle()
        if self._course and self._timer is None:
            self._go_on()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


# --- Running ----------------------------------------------------------------------------------------------------------


def run_judge(options: JudgeOptions, *, until_eof: TextIO | None = None) -> int:
    """Judge until SIGTERM or SIGINT (or the end of `until_eof`); prints `judging on HOST:PORT` once it listens.

    Ends with the report as a table on stderr. Returns 0, 3 where the report names a violation, or 2 where it can't
    listen.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        report = runner.run(_serve(options, until_eof))
    if report is None:
        return 2
    print_report(report, sys.stderr)
    return 0 if report.ok else 3


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return cast("Callable[[], asyncio.AbstractEventLoop]", uvloop.new_event_loop)


async def _serve(options: JudgeOptions, until_eof: TextIO | None) -> Report | None:
    """The report at the end; None where it couldn't listen, which it said on stderr."""
    loop = asyncio.get_running_loop()
    judge = Judge(options)
    ended = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, ended.set)
    tls: ssl.SSLContext | None = None
    try:
        if options.tls_cert is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(options.tls_cert, options.tls_key)
        # Both event loops set TCP_NODELAY by themselves.
        server = await loop.create_server(judge.connection, options.host, options.port, backlog=4096, ssl=tls)
    except ssl.SSLError:
        print("the TLS certificate and its key are no pair in PEM form", file=sys.stderr)
        return None
    except OSError as error:
        print(f"cannot listen on {_authority(options.host, options.port)}: {error.strerror}", file=sys.stderr)
        return None
    if until_eof is not None:
        loop.add_reader(until_eof, ended.set)
    # A pause of the garbage collector would be lag, and hardly anything here is cyclic.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    judge.lag.reset()
    judge.lag.tick()
    host, port = server.sockets[0].getsockname()[:2]
    print(f"judging on {_authority(host, port)}", flush=True)
    await ended.wait()
    report = judge.report()
    if until_eof is not None:
        loop.remove_reader(until_eof)
    server.close()
    for connection in [*judge.connections]:
        connection.abort()
    await asyncio.sleep(0)  # lets them go
    return report


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def print_report(report: Report, file: TextIO) -> None:
    """The report as a table, then its violations."""
    from rich.console import Console
    from rich.table import Table

    table = Table("key", "arrivals", "accepted", "rejected", "most in any window", title="The judge")
    for column in table.columns[1:]:
        column.justify = "right"
    for key in report.keys:
        most = "\n".join(
            f"{each.most} of {each.max} in {format_ns(each.per_ns)} ({each.ratio:.1%})" for each in key.limits
        )
        table.add_row(key.label, str(key.arrivals), str(key.accepted), str(key.rejected), most)
    console = Console(file=file, markup=False, highlight=False)
    console.print(table)
    console.print(f"{report.arrivals} arrivals; the judge's own lag was at most {report.max_lag_ns / 1e6:.1f} ms.")
    if report.faults:
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(report.faults.items()))
        console.print(f"Faults injected into accepted arrivals: {faults}.")
    for violation in report.violations or ["No violation."]:
        console.print(violation)


# --- A process of its own ---------------------------------------------------------------------------------------------


class JudgeProcess:
    """A judge in a process of its own, for as long as the `with` block lasts; pinned to one `cpu` if asked.

    It ends with its parent, even a killed one. Raises RuntimeError, with what it said, where it can't start.
    """

    def __init__(self, options: JudgeOptions, *, cpu: int | None = None) -> None:
        self._options = options
        self._cpu = cpu
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if options.tls_cert is not None:  # its own certificate is all that it can be known by
            context = ssl.create_default_context(cafile=options.tls_cert)
            context.check_hostname = False
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)
        self.url = ""
        self.port = 0
        self.pid = 0
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "apiflux_grpc.judge.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent, which may still want the report
        )
        self.pid = self._process.pid
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def report(self) -> Report:
        """Everything that arrived since the last reset."""
        return Report.from_json(self._ask("GET", "report"))

    def live(self) -> Live:
        """Cheap enough to ask during a run."""
        data = self._ask("GET", "live")
        keys = {label: (accepted, rejected) for label, (accepted, rejected) in data.pop("keys").items()}
        return Live(**data, keys=keys)

    def calls(self) -> dict[str, int]:
        """How many arrivals each call had, accepted or not, since the last reset."""
        return self._ask("GET", "calls")

    def reject(self, label: str) -> None:
        """From now on this key is answered 401."""
        self._ask("POST", f"reject/{quote(label, safe='')}")

    def accept(self, label: str) -> None:
        """No longer reject this key on command; what the options say of it still holds."""
        self._ask("POST", f"accept/{quote(label, safe='')}")

    def reset(self) -> None:
        """Forget every arrival and every command; for the options' rejections this is the start."""
        self._ask("POST", "reset")

    def _start(self) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        # Not closed after: its end tells the child that we're gone.
        with suppress(BrokenPipeError):  # if it is dead already, it says why below
            process.stdin.write(_to_line(self._options, self._cpu))
            process.stdin.flush()
        line = process.stdout.readline()
        if not line.startswith("judging on "):
            process.wait()
            self._stderr.seek(0)
            raise RuntimeError(f"the judge didn't start: {self._stderr.read().strip()}")
        address = line.split()[-1]
        self.url = f"{'http' if self._options.tls_cert is None else 'https'}://{address}"
        self.port = int(address.rpartition(":")[2])

    def _end(self) -> None:
        self._process.terminate()
        try:
            self.returncode = self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.returncode = self._process.wait()
        for stream in (self._process.stdout, self._stderr):
            if stream is not None:
                stream.close()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def _ask(self, method: str, what: str) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/_judge/{what}", method=method)
        with self._opener.open(request, timeout=60) as response:
            return cast("dict[str, Any]", json.load(response))


def _to_line(options: JudgeOptions, cpu: int | None) -> str:
    return json.dumps({"options": {**asdict(options), "keys": {**options.keys}}, "cpu": cpu}) + "\n"


def _from_line(line: str) -> tuple[JudgeOptions, int | None]:
    data = json.loads(line)
    options = data["options"]
    options["limits"] = tuple(Limit(*limit) for limit in options["limits"])
    options["key_in"] = KeyIn(*options["key_in"])
    options["latency_ns"] = tuple(options["latency_ns"])
    options["faults"] = tuple(Chance(Fault(*fault), probability) for fault, probability in options["faults"])
    options["rejections"] = tuple(Rejection(*rejection) for rejection in options["rejections"])
    return JudgeOptions(**options), data["cpu"]


def main() -> int:
    """The judge of a `JudgeProcess`: one line of JSON options on stdin, then nothing until the parent is gone."""
    options, cpu = _from_line(sys.stdin.readline())
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    return run_judge(options, until_eof=sys.stdin)


if __name__ == "__main__":
    sys.exit(main())
