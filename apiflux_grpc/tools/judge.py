"""The judge: an upstream in its own process that checks keys, enforces limits and records every arrival.

The rule: a request arrives when its first byte is read, stamped before anything is parsed; the ledger decides on that
stamp as soon as the head is whole. So an arrival counts even if its body never ends, and a head that never ends is no
arrival. The control endpoints (/_judge/report, /_judge/reset, /_judge/live) are on the same port and not recorded.

`Judge` owns the ledger, on one event loop. It deliberately doesn't know whose client it judges, and keeps no body.
What the windows say is in ledger.py.

Keys reach a judge's process on its standard input, since everyone can read the arguments of a process.
"""

import asyncio
import gc
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from http import HTTPStatus
from re import compile as regex
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self, TextIO, cast
from urllib.parse import unquote_plus

import httptools

from apiflux_grpc.tools.ledger import Ledger, Limit, Report, format_ns

BODY_CAP: Final = 1 << 20
HEAD_CAP: Final = 1 << 16
PIPELINE_CAP: Final = 1000  # answers waiting on one connection; then it isn't read until some are written
LINGER: Final = 1.0  # seconds that a refused client has to read why, before it is cut off
TICK_NS: Final = 5_000_000
NS: Final = 1_000_000_000

DURATION: Final = regex(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
UNITS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": NS, "m": 60 * NS, "h": 3600 * NS}


class KeyIn(NamedTuple):
    """Where a request carries its key; for `bearer` the name is that of the header."""

    kind: Literal["header", "bearer", "query"]
    name: str


X_API_KEY: Final = KeyIn("header", "X-API-Key")


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """What a judge is told at its start. `keys` maps labels to secrets; `latency_ns` is a range, drawn uniformly."""

    keys: Mapping[str, str] = field(repr=False)
    limits: tuple[Limit, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one
    key_in: KeyIn = X_API_KEY
    latency_ns: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Live:
    """A cheap look at a run: `keys` maps labels to (accepted, rejected); `in_flight` wait for their answer."""

    arrivals: int
    unknown_arrivals: int
    in_flight: int
    keys: Mapping[str, tuple[int, int]]


# --- Options from text ------------------------------------------------------------------------------------------------


def parse_duration(text: str) -> int:
    """`10ms`, `1.5s`, `1m` in nanoseconds. Raises ValueError for any other form."""
    match = DURATION.fullmatch(text.strip())
    ns = Decimal(match[1]) * UNITS[match[2]] if match else Decimal("NaN")
    if ns.is_nan() or ns != int(ns):
        raise ValueError(f"{text!r} is no duration: expected a number with ns, us, ms, s, m or h, like 10ms")
    return int(ns)


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


def _answer(status: int, body: Mapping[str, object], *, head_only: bool = False, headers: str = "") -> bytes:
    payload = json.dumps(body, separators=(",", ":"))
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n{headers}\r\n"
    )
    return (head if head_only else head + payload).encode()


CLOSE: Final = "Connection: close\r\n"
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
    """The server's state; `connection` makes the protocol of one connection. `clock` gives nanoseconds."""

    def __init__(self, options: JudgeOptions, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.ledger = Ledger(options.keys, options.limits)
        self.lag = _Lag(clock)
        self.clock = clock
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
        wanted, act = {
            b"/_judge/report": (b"GET", self._report),
            b"/_judge/reset": (b"POST", self._reset),
            b"/_judge/live": (b"GET", self._live),
        }.get(path, (b"", None))
        if act is None:
            return 404, {"ok": False, "error": "no such control endpoint"}
        if method != wanted:
            return 405, {"ok": False, "error": f"expected {wanted.decode()}"}
        return 200, act()

    def report(self) -> Report:
        return self.ledger.report(self.lag.read())

    def _report(self) -> Mapping[str, object]:
        return self.report().to_json()

    def _reset(self) -> Mapping[str, object]:
        self.ledger.reset()
        self.lag.reset()
        return {"ok": True}

    def _live(self) -> Mapping[str, object]:
        keys = self.ledger.counts()
        unknown = self.ledger.unknown_arrivals
        arrivals = unknown + sum(map(sum, keys.values()))
        return asdict(Live(arrivals, unknown, self.in_flight, keys))


class _Connection(asyncio.Protocol):
    """One client connection: answers leave in the order of the requests, however long each one takes."""

    __slots__ = (
        "_attempt", "_call_id", "_choked", "_closing", "_head_size", "_in_head", "_judge", "_key", "_key_header",
        "_parser", "_ready", "_size", "_stamp", "_started", "_status", "_transport", "_url", "_wait_ns", "_waiting",
    )  # fmt: skip

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._key_header = b"" if judge.key_in.kind == "query" else judge.key_in.name.lower().encode()
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._ready: list[bytes] = []  # to be written when the chunk is parsed
        self._waiting: deque[bytes] = deque()  # to be written one per timer
        self._choked = self._closing = self._in_head = False
        self._head_size = self._stamp = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._judge.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._judge.connections.discard(self)
        self._judge.in_flight -= len(self._waiting)
        self._waiting.clear()
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
        self._closing = True
        return bool(self._waiting)

    def on_message_begin(self) -> None:
        self._started = self._stamp
        self._url = self._key = self._call_id = self._attempt = b""
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

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._status = 0  # of a control request, until it is asked
        if self._closing or self._url.startswith(b"/_judge/"):
            return
        key, target = self._take_key()
        call_id = _text(self._call_id or self._method() + b" " + target)
        attempt = int(self._attempt) if self._attempt.isdigit() and len(self._attempt) < 10 else 1
        self._status, self._wait_ns = self._judge.ledger.arrive(call_id, key, attempt, self._started)

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
        if self._status == 200 and keep and not head_only:
            answer = OK
        else:
            answer = self._compose("" if keep else CLOSE, head_only)
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

    def _compose(self, headers: str, head_only: bool) -> bytes:
        body: Mapping[str, object]
        status = self._status
        if status == 0:
            status, body = self._judge.control(self._method(), self._url.partition(b"?")[0])
        elif status == 429:
            headers += f"Retry-After: {-(-self._wait_ns // NS)}\r\n"
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

    def _send(self, answer: bytes, latency: float) -> None:
        if latency or self._waiting:
            # Every timer writes the oldest answer, not its own: that keeps the order.
            self._waiting.append(answer)
            self._judge.in_flight += 1
            asyncio.get_running_loop().call_later(latency, self._answer_oldest)
        else:
            self._ready.append(answer)

    def _answer_oldest(self) -> None:
        if self._waiting:  # else the connection was lost
            self._judge.in_flight -= 1
            self._ready.append(self._waiting.popleft())
            self._flush()

    def _flush(self) -> None:
        if self._ready:
            self._transport.write(b"".join(self._ready))
            self._ready.clear()
            if self._closing and not self._waiting:
                self._finish()
        if self._waiting or self._choked:
            self._throttle()

    def _finish(self) -> None:
        """Half-close: closing at once, with input unread, would take the answer back out of the client's hands."""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER, self.abort)

    def _throttle(self) -> None:
        if self._transport.is_closing():
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
    try:
        # Both event loops set TCP_NODELAY by themselves.
        server = await loop.create_server(judge.connection, options.host, options.port, backlog=4096)
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
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.url = ""
        self.port = 0
        self.pid = 0
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "apiflux_grpc.tools.judge"],
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

    def reset(self) -> None:
        """Forget every arrival."""
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
        self.url = f"http://{address}"
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
    return JudgeOptions(**options), data["cpu"]


def main() -> int:
    """The judge of a `JudgeProcess`: one line of JSON options on stdin, then nothing until the parent is gone."""
    options, cpu = _from_line(sys.stdin.readline())
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    return run_judge(options, until_eof=sys.stdin)


if __name__ == "__main__":
    sys.exit(main())
