"""`apiflux process`: a file of calls in, a file of results out, as JSON Lines, in constant memory.

Rules:
- A regular file is read twice: first every line is checked, and nothing is sent where one is bad, unless bad lines
  are skipped. Of a pipe the lines are checked as they come: a bad one ends the reading, and what was sent is finished.
- With an output a job can be stopped, or die, and be run again: jobs/state.py knows what there is to do. A call
  that may have run and isn't idempotent gets a result that says so, and is never sent again.
- Results go out as they come, one line for each call; standard output carries nothing else. Names are those of the
  contract in proto3 JSON; a body comes back as `body_json` or `body_text` where it can be read so.
- What can't be written ends the run: the results that are there stay whole lines, and the rest is for the next run.
- The first SIGINT or SIGTERM, or the end of `timeout`, stops the stream: what waits in the server stays to be done, and
  what is in flight is waited for some seconds. One more signal ends it at once.
- An output of other calls is refused: a call must be what it was when it was handed over.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import stat
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from apiflux_grpc.client import ApifluxError, Client, TlsOptions, Unavailable
from apiflux_grpc.client.accounts import unknown_result
from apiflux_grpc.client.calls import is_idempotent
from apiflux_grpc.client.resume import WINDOW
from apiflux_grpc.client.tally import Tally, error_info, failure_of
from apiflux_grpc.jobs.lines import Entry, Readable, entries
from apiflux_grpc.jobs.state import (
    AGAIN,
    DONE,
    FED,
    HANDED,
    SEEN,
    CannotResume,
    Known,
    Output,
    digest_of,
    key_of,
)
from apiflux_grpc.jobs.template import Template

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from apiflux_grpc.client import Stream
    from apiflux_grpc.v1 import apiflux_pb2 as pb

FINE, FAULT, USAGE, CALLS_FAILED, CUT_SHORT = 0, 1, 2, 3, 4  # exit codes

GRACE: Final = 5.0  # seconds that a signal, or the end of the timeout, leaves to calls in flight
_SILENT: Final = 0.5  # seconds of waiting for a server that aren't worth a word
BAD_LINES_SHOWN: Final = 20
FAILURES_SHOWN: Final = 10
_TURN: Final = 500  # lines read without giving the loop a turn

_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Job:
    """What to do. `source` None: standard input; `output` None: standard output.

    `wait` is seconds for the server to be there, `timeout` seconds for the whole from then on.
    """

    source: Path | None
    target: str
    pool: str = ""
    output: Path | None = None
    template: str | None = None
    skip_bad_lines: bool = False
    ordered: bool = False
    wait: float | None = None
    timeout: float | None = None
    window: int = WINDOW
    retry_failed: bool = False
    overwrite: bool = False
    tls: TlsOptions | None = None
    token: str | None = None


class _Refused(Exception):
    """The job can't be done as it stands."""


class _Interrupted(Exception):
    """A signal came before anything was sent."""


# -- results as lines ------------------------------------------------------------------------------


def row(result: pb.CallResult, idempotent: bool = False) -> dict[str, Any]:
    """A result as a line of the output. `idempotent`: of the call; it says whether it can be sent again."""
    line: dict[str, Any] = {"index": result.index}
    if result.id:
        line["id"] = result.id
    if failure := failure_of(result):
        line["failure"] = failure
    if result.HasField("error"):
        info = error_info(result)
        error = {"code": result.error.code, "reason": info.reason, "message": result.error.message}
        may_have_run = info.metadata["may_have_run"] != "false"
        line["error"] = {**error, "mayHaveRun": may_have_run, "idempotent": idempotent}
    else:
        answer = result.response
        response: dict[str, Any] = {"statusCode": answer.status_code, "headers": dict(answer.headers)}
        response.update(_body(answer))
        if answer.truncated:
            response["truncated"] = True
        line["response"] = response
    line["keyLabel"] = result.key_label
    line["attempts"] = result.attempts
    line["queueTime"] = result.queue_time.ToJsonString()
    line["latency"] = result.latency.ToJsonString()
    line["completedAt"] = result.completed_at.ToJsonString()
    return line


def line_of(result: pb.CallResult, idempotent: bool = False) -> bytes:
    """The same as the bytes of a line."""
    fields = row(result, idempotent)
    try:
        return f"{_encode(fields)}\n".encode()
    except (ValueError, RecursionError):  # a body with NaN, half of a surrogate pair, or too deep, stays text
        response = fields["response"]
        del response["body_json"]
        response["body_text"] = result.response.body.decode(errors="replace")
        return f"{_encode(fields)}\n".encode()


def _body(answer: pb.HttpResponse) -> dict[str, Any]:
    body = answer.body
    try:
        if "json" in answer.headers.get("content-type", ""):
            with contextlib.suppress(json.JSONDecodeError, RecursionError):
                return {"body_json": json.loads(body)}
        return {"body_text": body.decode()}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode()}


# -- the input -------------------------------------------------------------------------------------


class _Pipe:
    """Lines of a file descriptor that may block; knows whether another line is there already."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()

    def readline(self, limit: int) -> bytes:
        while (end := self._buffer.find(b"\n") + 1) == 0 and len(self._buffer) < limit:
            data = os.read(self._descriptor, 1 << 16)
            if not data:
                end = len(self._buffer)
                break
            self._buffer += data
        line = bytes(self._buffer[: min(end or limit, limit)])
        del self._buffer[: len(line)]
        return line

    @property
    def has_line(self) -> bool:
        return b"\n" in self._buffer


class _Entries(Protocol):
    """The lines of the input, for a loop that mustn't block."""

    async def more(self) -> Sequence[Entry] | None:
        """The next ones, none of them lost when cancelled; None: that was all."""
        ...

    def wake(self) -> None:
        """Let whoever waits for more go on without."""
        ...


class _FromFile:
    def __init__(self, lines: Iterator[Entry]) -> None:
        self._lines = lines

    async def more(self) -> Sequence[Entry] | None:
        await asyncio.sleep(0)
        some = []
        for entry in self._lines:
            some.append(entry)
            if len(some) == _TURN:
                break
        return some or None

    def wake(self) -> None:
        pass


class _FromPipe:
    """A thread reads: a pipe can't be waited for otherwise without changing it for whoever else has it open.

    It is a daemon, since nothing ends its waiting but the other end of the pipe.
    """

    def __init__(self, pipe: _Pipe, lines: Iterator[Entry]) -> None:
        self._pipe = pipe
        self._lines = lines
        self._queue: asyncio.Queue[list[Entry] | _Refused | None] = asyncio.Queue()
        self._slots = threading.Semaphore(4)
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, daemon=True).start()

    async def more(self) -> Sequence[Entry] | None:
        some = await self._queue.get()
        self._slots.release()
        if isinstance(some, _Refused):
            raise some
        return some

    def wake(self) -> None:
        self._queue.put_nowait([])

    def _read(self) -> None:
        some: list[Entry] = []
        last: _Refused | None = None
        with contextlib.suppress(RuntimeError):  # the loop is gone, and so are we
            try:
                for entry in self._lines:
                    some.append(entry)
                    if len(some) == _TURN or not self._pipe.has_line:
                        self._put(some)
                        some = []
            except _Refused as error:
                last = error
            if some:
                self._put(some)
            self._put(last)

    def _put(self, some: list[Entry] | _Refused | None) -> None:
        self._slots.acquire()
        self._loop.call_soon_threadsafe(self._queue.put_nowait, some)


class _Input:
    """The file or pipe that calls come from."""

    def __init__(self, job: Job) -> None:
        self.name = "<stdin>" if job.source is None else str(job.source)
        suffix = "" if job.source is None else job.source.suffix.lower()
        self._template: Template | None = None
        if job.template is not None and suffix in (".jsonl", ".ndjson", ".json"):
            raise _Refused(f"{self.name}: --template is for CSV")
        if job.template is not None:
            self._template = Template(_text_of(job.template), "\t" if suffix == ".tsv" else ",")
        elif suffix in (".csv", ".tsv"):
            raise _Refused(f"{self.name}: --template says what call a row of {suffix[1:].upper()} makes")
        self._descriptor = 0 if job.source is None else os.open(job.source, os.O_RDONLY | os.O_CLOEXEC)
        mode = os.fstat(self._descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError("is a directory")
        self.is_file = stat.S_ISREG(mode)
        self._start = os.lseek(self._descriptor, 0, os.SEEK_CUR) if self.is_file else 0

    def is_same(self, path: Path) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._descriptor), path.stat())
        return False

    def read(self) -> Iterator[Entry]:
        """The lines of a regular file, from its start."""
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(self._start)
            yield from self._entries(file)

    def open(self) -> _Entries:
        if self.is_file:
            return _FromFile(self.read())
        pipe = _Pipe(self._descriptor)
        return _FromPipe(pipe, self._entries(pipe))

    def _entries(self, file: Readable) -> Iterator[Entry]:
        try:
            yield from entries(file, self._template)
        except OSError as error:
            raise _Refused(f"can't read {self.name}: {error}") from None
        except ValueError as error:  # the header doesn't go with the template
            raise _Refused(f"{self.name}: {error}") from None


def _text_of(template: str) -> str:
    """The template itself; @FILE is one that lies in a file."""
    if not template.startswith("@"):
        return template
    try:
        return Path(template[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise _Refused(f"can't read the template {template[1:]}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _Refused(f"the template {template[1:]} is not UTF-8") from None


# -- the run ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sent:
    """A call that has no result yet: its index among the calls of the input, its line, what it is known by."""

    index: int
    line: int
    key: int
    idempotent: bool
    digest: int  # 0 where there is nothing to go on with


class _Run:
    """One run of a job. It is the producer of the stream's calls, too."""

    def __init__(self, job: Job, console: Console) -> None:
        if job.tls is not None:
            try:
                job.tls.credentials()
            except OSError as error:
                raise _Refused(f"can't read {error.filename}: {error.strerror}") from None
        self._job = job
        self._console = console
        self._input = _Input(job)
        self._known = Known()
        self._output: Output | None = None
        self._out: IO[bytes] | Output
        self._lines: _Entries | None = None
        self._chunk: deque[Entry] = deque()
        self._first: list[pb.Call] = []  # taken to see whether there is anything to send
        self._calls = 0  # of the input, so far
        self._sent = 0
        self._open: dict[int, _Sent] = {}  # by their index in the stream
        self._doubtful: deque[tuple[_Sent, str]] = deque()  # may have run in an earlier run; with their ids
        self._to_do: int | None = None
        self._skipped = 0
        self._bad = 0
        self._checked = False
        self._over = False  # the input was read to its end
        self._stopping = False
        self._foreign = False  # a call isn't what it was
        self._signals = 0
        self._timed_out = False
        self._unwritable: OSError | None = None
        self._waiting: asyncio.Task[None] | None = None  # for the server
        self._stream: Stream | None = None
        self._tally = Tally()
        self._failures: list[str] = []

    async def run(self) -> int:
        job = self._job
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, self._interrupt)
        try:
            with contextlib.ExitStack() as stack:
                if job.output is not None and _may_be_file(job.output):
                    if self._input.is_same(job.output):
                        raise _Refused(f"{job.output} is the input")
                    self._output = stack.enter_context(Output(job.output, self._known, overwrite=job.overwrite))
                    self._out = self._output
                elif job.retry_failed:
                    raise _Refused("--retry-failed needs the --output of an earlier run")
                else:
                    self._out = _opened(job.output)
                    stack.callback(_close, self._out)
                try:
                    return await self._work()
                except BrokenPipeError:  # nobody reads any more, and nobody has to be told
                    return CUT_SHORT
                except OSError as failed:
                    self._unwritable = failed
                    return self._conclude(None, False)
        finally:
            for signum in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(signum)

    async def _work(self) -> int:
        output = self._output
        if output is not None:
            await self._turns(output.load())
        if self._input.is_file:
            await self._check()
        if output is not None and output.again and self._job.retry_failed:
            self._say(f"{output.again} failed calls are sent again")
            await self._turns(output.retry_failed())
        return await self._process()

    async def _turns(self, work: Iterable[None]) -> None:
        for _ in work:
            await asyncio.sleep(0)
            if self._stopping:
                raise _Interrupted

    # -- before anything is sent --------------------------------------------------------------

    async def _check(self) -> None:
        """Read the whole file, and send nothing where a line is bad or where it is another file than before."""
        calls = todo = 0
        for count, entry in enumerate(self._input.read()):
            if count % _TURN == _TURN - 1:
                await self._turns([None])
            call = entry.call
            if call is None or self._is_second(call, SEEN):
                self._bad_line(entry)
                continue
            if fault := self._is_other(entry.line, call, calls):
                raise _Refused(fault)
            todo += not self._known[key_of(call.id, calls)] & DONE
            calls += 1
        if self._bad and not self._job.skip_bad_lines:
            more = f" ({self._bad} bad lines)" if self._bad > 1 else ""
            raise _Refused(f"nothing was sent{more}; --skip-bad-lines sends the others")
        if not calls:
            raise _Refused(f"{self._input.name} has no calls")
        if self._output is not None and self._job.retry_failed:
            todo += self._output.again
        self._to_do = todo
        self._checked = True
        self._bad = 0

    def _is_other(self, line: int, call: pb.Call, index: int) -> str:
        """What is wrong where an earlier run has handed over another call under the same id or index; "": nothing."""
        if self._output is None:
            return ""
        key = key_of(call.id, index)
        flags, before = self._known[key], self._known.digest(key)
        is_sent_anew = flags & AGAIN and self._job.retry_failed
        if not before or is_sent_anew or not flags & (DONE | HANDED) or digest_of(call) == before:
            return ""
        name = repr(call.id[:64]) if call.id else f"calls[{index}]"
        return (
            f"{self._input.name}:{line}: {self._output.path} belongs to other calls: {name} was another one; "
            "name another --output, or begin anew with --overwrite"
        )

    def _is_second(self, call: pb.Call, flag: int) -> bool:
        """Its id was used before. Remembers it, by this flag."""
        if not call.id:
            return False
        key = key_of(call.id, 0)
        flags = self._known[key]
        self._known[key] = flags | flag
        return bool(flags & flag)

    def _bad_line(self, entry: Entry) -> None:
        self._bad += 1
        if self._checked:
            return  # it was said
        fault = entry.fault
        if entry.call is not None:
            fault = f"the id {entry.call.id[:64]!r} was used before"
        if self._bad <= BAD_LINES_SHOWN:
            self._error(f"{self._input.name}:{entry.line}: {fault}")
        elif self._bad == BAD_LINES_SHOWN + 1:
            self._error("... and more")

    # -- the producer -------------------------------------------------------------------------

    async def take(self, most: int) -> Sequence[pb.Call] | None:
        """The next calls that are to be sent, for the stream."""
        calls, self._first = self._first, []
        while True:
            while self._chunk and len(calls) < most and not self._stopping:
                call = self._accept(self._chunk.popleft())
                if call is not None:
                    calls.append(call)
            if calls:
                return calls
            if self._stopping or self._over:
                return None
            assert self._lines is not None
            some = await self._lines.more()
            self._over = some is None
            self._chunk.extend(some or ())

    def _accept(self, entry: Entry) -> pb.Call | None:
        """The call of a line, where it is to be sent."""
        call = entry.call
        if call is None or self._is_second(call, FED):
            self._bad_line(entry)
            self._stopping = self._stopping or not self._job.skip_bad_lines
            return None
        index = self._calls
        if fault := self._is_other(entry.line, call, index):
            self._error(fault)
            self._foreign = self._stopping = True
            return None
        self._calls += 1
        digest = 0 if self._output is None else digest_of(call)
        sent = _Sent(index, entry.line, key_of(call.id, index), is_idempotent(call), digest)
        flags = self._known[sent.key]
        if flags & DONE:
            self._skipped += 1
            return None
        if flags & HANDED and not sent.idempotent:
            self._doubtful.append((sent, call.id))
            if not self._job.ordered:
                self._settle_doubtful()
            return None
        self._open[self._sent] = sent
        self._sent += 1
        return call

    async def _note(self, indexes: Sequence[int]) -> None:
        """Before calls are handed over: on the disk first."""
        assert self._output is not None
        await asyncio.to_thread(self._output.hand_over, [self._handed(index) for index in indexes])

    def _handed(self, index: int) -> tuple[int, int]:
        sent = self._open[index]
        return sent.key, sent.digest

    # -- the way there and back ---------------------------------------------------------------

    async def _process(self) -> int:
        self._lines = self._input.open()
        self._first = list(await self.take(1) or ())
        error: ApifluxError | None = None
        done = False
        try:
            if self._first:
                await self._exchange()
            self._settle_doubtful(all=True)
            done = self._over and not self._chunk and (self._stream is None or not self._stream.unsent)
        except ApifluxError as failed:
            error = failed
        except asyncio.CancelledError:
            if not self._is_ended:
                raise
        finally:
            if self._output is not None and self._stream is not None and (unsent := self._stream.unsent):
                with contextlib.suppress(OSError):  # then the next run has to take them for calls that may have run
                    self._output.take_back(self._open[index].key for index in unsent)
        self._out.flush()
        return self._conclude(error, done)

    async def _exchange(self) -> None:
        """Send what is to be sent, and write what comes."""
        job, console = self._job, self._console
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        async with Client(job.target, tls=job.tls, token=job.token) as client:
            if job.wait is not None:
                await self._wait_for_server(client, job.wait)
            self._tally.started = time.monotonic()
            stream = self._stream = client.process_stream(
                self,
                pool=job.pool,
                ordered=job.ordered,
                resume=True,
                window=job.window,
                before_send=None if self._output is None else self._note,
            )
            if self._stopping:
                raise _Interrupted
            if job.timeout is not None:
                asyncio.get_running_loop().call_later(job.timeout, self._time_out)
            with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
                task = bar.add_task("calls", total=self._to_do)
                async with stream:
                    async for message in stream.raw():
                        for result in message.results:
                            self._write(result)
                        if message.results:
                            self._out.flush()
                        bar.update(task, completed=self._tally.total)

    async def _wait_for_server(self, client: Client, seconds: float) -> None:
        waiting = self._waiting = asyncio.create_task(client.wait_ready(seconds))
        await asyncio.wait({waiting}, timeout=_SILENT)
        if not waiting.done():
            self._say(f"waiting up to {seconds:g} s for a server at {self._job.target}")
        try:
            await waiting
        except asyncio.CancelledError:
            if self._signals:
                raise _Interrupted from None
            raise

    def _write(self, result: pb.CallResult) -> None:
        sent = self._open.pop(result.index)
        if result.HasField("error") and error_info(result).reason == "INVALID_CALL":
            own, whole = f"calls[{result.index}].", f"calls[{sent.index}]."
            result.error.message = result.error.message.replace(own, whole)
        result.index = sent.index
        if self._job.ordered:
            self._settle_doubtful(sent.index)
        self._put(result, sent)

    def _settle_doubtful(self, before: int = 0, *, all: bool = False) -> None:
        """Give results to calls that may have run in an earlier run: at once, or in their turn."""
        while self._doubtful and (all or not self._job.ordered or self._doubtful[0][0].index < before):
            sent, id = self._doubtful.popleft()
            why = "it was handed over before the run ended that sent it, and this call must not run twice"
            self._put(unknown_result(sent.index, id, why), sent)

    def _put(self, result: pb.CallResult, sent: _Sent) -> None:
        failure = self._tally.add(result)
        self._out.write(line_of(result, sent.idempotent))
        if failure and len(self._failures) < FAILURES_SHOWN:
            what = failure
            if result.HasField("error"):
                what = f"{failure}: {result.error.message}"
                if failure == "INVALID_CALL":
                    what = result.error.message.replace(f"calls[{sent.index}].", "")
            elif failure == "KEY_REJECTED" or failure.endswith("XX"):
                what = f"HTTP {result.response.status_code}"
            self._failures.append(f"{self._input.name}:{sent.line}: {what[:300]}")

    def _interrupt(self) -> None:
        """SIGINT or SIGTERM."""
        again = self._is_ended
        self._signals += 1
        if self._stream is not None and again:
            self._stream.cancel()
        else:
            self._end(f"waiting up to {GRACE:g} s for calls in flight; once more ends it at once")

    def _time_out(self) -> None:
        if not self._is_ended:
            self._timed_out = True
            self._end(f"--timeout is over: waiting up to {GRACE:g} s for calls in flight; Ctrl-C ends it at once")

    @property
    def _is_ended(self) -> bool:
        """It was told to end before all is done."""
        return self._signals > 0 or self._timed_out

    def _end(self, word: str) -> None:
        """Send nothing more, and go on only for what is in flight."""
        self._stopping = True
        if self._lines is not None:
            self._lines.wake()
        if self._stream is None:
            if self._waiting is not None:
                self._waiting.cancel()
            return
        if self._open:
            self._say(word)
        self._stream.stop()
        asyncio.get_running_loop().call_later(GRACE, self._stream.cancel)

    # -- the last words -----------------------------------------------------------------------

    def _conclude(self, error: ApifluxError | None, done: bool) -> int:
        if error is not None:
            self._explain(error)
        if done or self._tally.total or self._skipped:
            self._report()
        earlier = 0 if self._output is None else self._output.failed
        if not done:
            self._say_how_far()
        if self._unwritable is not None:
            return CUT_SHORT
        if error is not None:
            if error.reason == "INTERNAL":
                return FAULT
            return USAGE if error.violations or error.reason == "POOL_NOT_FOUND" else CUT_SHORT
        if self._foreign:
            return USAGE
        if self._is_ended and not done:
            return CUT_SHORT
        if self._bad and not self._job.skip_bad_lines:
            return USAGE
        if self._tally.failed["INVALID_CALL"] and not self._job.skip_bad_lines:
            return USAGE
        return CALLS_FAILED if self._tally.failed or earlier else FINE

    def _say_how_far(self) -> None:
        """The run was cut short: what is there, and how to go on."""
        output, full = self._output, self._unwritable
        total = self._calls - self._skipped if self._to_do is None else self._to_do
        if full is not None:
            where = full.filename or self._job.output or "standard output"
            self._error(f"can't write to {where}: {full.strerror}")
        if full is not None and output is None:
            self._say("the last line that was written may be cut")
        elif full is None or total:
            stopped = "stopped at a bad line (--skip-bad-lines passes over them): " if self._bad else ""
            begin = "interrupted: " if self._signals else "--timeout is over: " if self._timed_out else stopped
            written = self._tally.total if output is None else output.written
            self._say(f"{begin}{written} of {total} results were written")
        if self._foreign:
            return
        if output is not None and (full is not None or not output.is_fresh):
            room = "" if full is None else "once there is room, "
            self._say(f"{room}the same command with --output {self._job.output} goes on from here")
        elif output is None and (full is not None or self._is_ended):
            self._say("with --output it could be gone on with")

    def _explain(self, error: ApifluxError) -> None:
        for place, what in error.violations:
            self._error(f"{place}: {what}")
        if not error.violations:
            self._error(str(error))
        if isinstance(error, Unavailable) and self._stream is not None and not (error.reason or self._tally.total):
            self._say(f"is a server running at {self._job.target}? --wait SECONDS waits for one")
        if error.retry_delay is not None:
            self._say(f"try again in {error.retry_delay:.0f} s")

    def _report(self) -> None:
        tally = self._tally
        elapsed = tally.elapsed
        rows = [("results", f"{tally.total} in {elapsed:.1f} s, {tally.total / max(elapsed, 1e-9):.0f} a second")]
        if tally.failed:
            rows.append(("failed", f"{tally.failed.total()}: {_counts(tally.failed)}"))
        if tally.retries:
            rows.append(("retries", str(tally.retries)))
        if tally.by_key:
            rows.append(("by key", _counts(tally.by_key)))
        rows.append(("waited", f"{tally.waiting / 1e9:.1f} s for budget, {tally.in_calls / 1e9:.1f} s in calls (sums)"))
        if self._output is not None and self._skipped:
            earlier = f"{self._skipped} calls had their result"
            if self._output.failed:
                earlier += f", {self._output.failed} of them a failure"
            if self._output.again and not self._job.retry_failed:
                earlier += f"; --retry-failed sends {self._output.again} again"
            rows.append(("earlier", earlier))
        if self._bad:
            rows.append(("bad lines", str(self._bad)))
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(name, Text(value, style="red" if name == "failed" else ""))
        self._console.print(table, highlight=False)
        for place in self._failures:
            self._error(place)
        if (more := tally.failed.total() - len(self._failures)) > 0 and self._failures:
            self._say(f"... and {more} more that failed")

    def _error(self, text: str) -> None:
        self._console.print(text, style="red", markup=False, highlight=False)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _opened(path: Path | None) -> IO[bytes]:
    """A device or a pipe; None: standard output, whose own buffer the interpreter would complain of when it ends."""
    return open(1, "wb", closefd=False) if path is None else path.open("wb")


def _close(file: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # what can't be written was said before
        file.close()


def _may_be_file(path: Path) -> bool:
    """Whether it is a regular file, or could become one: nothing else can be gone on with."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True


async def run_job(job: Job) -> int:
    """Process one file and return the exit code."""
    console = Console(stderr=True, soft_wrap=True)

    def error(text: str) -> int:
        console.print(text, style="red", markup=False, highlight=False)
        return USAGE

    name = "<stdin>" if job.source is None else str(job.source)
    try:
        run = _Run(job, console)
    except OSError as failed:
        return error(f"can't read {name}: {failed}")
    except (_Refused, ValueError) as refused:
        return error(str(refused))
    try:
        return await run.run()
    except (_Refused, CannotResume) as refused:
        return error(str(refused))
    except _Interrupted:
        console.print("interrupted: nothing was sent", highlight=False)
        return CUT_SHORT
    except OSError as failed:
        return error(f"can't write: {failed}")
