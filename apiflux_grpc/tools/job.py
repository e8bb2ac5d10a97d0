"""`apiflux process`: a file of calls in, a file of results out, as JSON Lines.

Rule: the whole input is read and checked before anything is sent, and a bad line is named by file and line. Results
go out as they come; standard output carries nothing else. Names are those of the contract in proto3 JSON; a body
can be given as `json` or `text` and comes back as `body_json` or `body_text` where it can be read so.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import difflib
import json
import sys
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final

from google.protobuf import json_format
from google.rpc import error_details_pb2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from apiflux_grpc.client import ApifluxError, Client, Summary
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FINE, FAULT, USAGE, CALLS_FAILED, CUT_SHORT = 0, 1, 2, 3, 4  # exit codes

_FIELDS: Final = (*(name.json_name for name in pb.Call.DESCRIPTOR.fields), "json", "text")


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no call: where it stands, and what is wrong."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(slots=True)
class Job:
    """What was read: the calls, the line number of each, and the lines that are none."""

    calls: list[pb.Call] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)


def read_calls(lines: Iterable[str], name: str) -> Job:
    """Read JSON Lines; empty lines are skipped. `name` is the file's, for messages."""
    job = Job()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            job.calls.append(parse_call(line))
            job.lines.append(number)
        except ValueError as error:
            job.bad.append(BadLine(f"{name}:{number}", str(error)))
    return job


def parse_call(line: str) -> pb.Call:
    """One line as a call. Raises ValueError saying what is wrong with it."""
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError(f"a call is a JSON object, not {type(data).__name__}")
    for key in data:
        if key not in _FIELDS and key not in pb.Call.DESCRIPTOR.fields_by_name:
            close = difflib.get_close_matches(key, _FIELDS, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; a call has {', '.join(_FIELDS)}"
            raise ValueError(f"unknown field {key[:64]!r}{hint}")
    bodies = [key for key in ("body", "json", "text") if key in data]
    if len(bodies) > 1:
        raise ValueError(f"{' and '.join(bodies)} exclude each other")
    body: bytes | None = None
    headers = data.get("headers")
    if "json" in data:
        try:
            body = json.dumps(data.pop("json"), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except ValueError:  # NaN, Infinity, half of a surrogate pair
            raise ValueError("json holds what JSON can't carry") from None
        if headers is None:
            data["headers"] = headers = {}
        if isinstance(headers, dict) and not any(str(name).lower() == "content-type" for name in headers):
            headers["Content-Type"] = "application/json"
    elif "text" in data:
        text = data.pop("text")
        if not isinstance(text, str):
            raise ValueError("text is not a string")
        body = text.encode()
    try:
        call = json_format.ParseDict(data, pb.Call())
    except json_format.ParseError as error:
        raise ValueError(str(error).replace("apiflux.v1.Call", "a call")) from None
    if body is not None:
        call.body = body
    return call


def row(result: pb.CallResult, index: int) -> dict[str, Any]:
    """A result as a line of the output."""
    line: dict[str, Any] = {"index": index}
    if result.id:
        line["id"] = result.id
    if result.HasField("error"):
        info = error_details_pb2.ErrorInfo()
        for detail in result.error.details:
            detail.Unpack(info)
        error = {"code": result.error.code, "reason": info.reason, "message": result.error.message}
        line["error"] = {**error, "mayHaveRun": info.metadata["may_have_run"] != "false"}
    else:
        answer = result.response
        response: dict[str, Any] = {"statusCode": answer.status_code, "headers": dict(answer.headers)}
        response.update(_body(answer))
        if answer.truncated:
            response["truncated"] = True
        line["response"] = response
    line["keyLabel"] = result.key_label
    line["attempts"] = result.attempts
    for name, duration in (("queueTime", result.queue_time), ("latency", result.latency)):
        line[name] = duration.ToJsonString()
    line["completedAt"] = result.completed_at.ToJsonString()
    return line


def _body(answer: pb.HttpResponse) -> dict[str, Any]:
    body = answer.body
    if "json" in answer.headers.get("content-type", ""):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(body)
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # what can't be written stays text
            return {"body_json": value}
    with contextlib.suppress(UnicodeDecodeError):
        return {"body_text": body.decode()}
    return {"body": base64.b64encode(body).decode()}


@dataclass(slots=True)
class Tally:
    """What came of a job."""

    calls: int
    results: int = 0
    failed: int = 0
    started: float = field(default_factory=time.monotonic)
    summaries: list[Summary] = field(default_factory=list)


async def run_job(
    source: Path | None,
    *,
    target: str,
    pool: str,
    output: Path | None,
    skip_bad_lines: bool,
    ordered: bool,
    timeout: float | None,
) -> int:
    """Process one file (None: standard input) and return the exit code."""
    console = Console(stderr=True, soft_wrap=True)
    name = "<stdin>" if source is None else str(source)
    try:
        with _reading(source) as lines:
            job = read_calls(lines, name)
    except (OSError, UnicodeDecodeError) as error:
        console.print(f"can't read {name}: {error}", style="red", markup=False, highlight=False)
        return USAGE
    for bad in job.bad[:20]:
        console.print(str(bad), style="red", markup=False, highlight=False)
    if job.bad and not skip_bad_lines:
        more = f" ({len(job.bad)} bad lines)" if len(job.bad) > 1 else ""
        console.print(f"nothing was sent{more}; --skip-bad-lines sends the others", highlight=False)
        return USAGE
    if not job.calls:
        console.print(f"{name} has no calls", style="red", markup=False, highlight=False)
        return USAGE
    tally = Tally(len(job.calls))
    try:
        with _writing(output) as out:
            await _send(job, out, console, tally, target=target, pool=pool, ordered=ordered, timeout=timeout)
    except ApifluxError as error:
        _explain(error, job, name, console)
        console.print(f"{tally.results} of {tally.calls} results were written", highlight=False)
        if error.reason == "INTERNAL":
            return FAULT
        return USAGE if error.violations or error.reason == "POOL_NOT_FOUND" else CUT_SHORT
    except asyncio.CancelledError:  # Ctrl-C
        console.print(f"interrupted: {tally.results} of {tally.calls} results were written", highlight=False)
        raise
    except BrokenPipeError:
        return CUT_SHORT
    except OSError as error:
        console.print(f"can't write: {error}", style="red", markup=False, highlight=False)
        return USAGE
    _report(tally, console)
    return CALLS_FAILED if tally.failed else FINE


async def _send(
    job: Job,
    out: IO[str],
    console: Console,
    tally: Tally,
    *,
    target: str,
    pool: str,
    ordered: bool,
    timeout: float | None,
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with Client(target) as client:
        most = (await client.info()).max_batch_calls
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
            task = bar.add_task("calls", total=tally.calls)
            for start in range(0, tally.calls, most):
                request = pb.ProcessRequest(pool=pool, calls=job.calls[start : start + most], ordered=ordered)
                stream = client.send(request, timeout=timeout)
                async for message in stream.raw():
                    for result in message.results:
                        tally.results += 1
                        tally.failed += not _fine(result)
                        line = json.dumps(row(result, start + result.index), ensure_ascii=False, separators=(",", ":"))
                        out.write(line + "\n")
                    if message.results:
                        out.flush()
                    eta = stream.progress.eta if stream.progress is not None else None
                    text = "calls" if eta is None else f"calls, {eta:.0f} s left"
                    bar.update(task, completed=tally.results, description=text)
                if stream.summary is not None:
                    tally.summaries.append(stream.summary)


def _fine(result: pb.CallResult) -> bool:
    return not result.HasField("error") and 200 <= result.response.status_code < 300


def _explain(error: ApifluxError, job: Job, name: str, console: Console) -> None:
    """Where the server names a field of a call, name its line."""
    for place, what in error.violations:
        where = place
        if place.startswith("calls["):
            index, _, rest = place.removeprefix("calls[").partition("]")
            where = f"{name}:{job.lines[int(index)]}: {rest.lstrip('.')}"
        console.print(f"{where}: {what}", style="red", markup=False, highlight=False)
    if not error.violations:
        console.print(str(error), style="red", markup=False, highlight=False)
    if error.retry_delay is not None:
        console.print(f"try again in {error.retry_delay:.0f} s", highlight=False)


def _report(tally: Tally, console: Console) -> None:
    elapsed = time.monotonic() - tally.started
    keys: dict[str, int] = {}
    reasons: dict[str, int] = {}
    retries = 0
    for summary in tally.summaries:
        retries += summary.retries
        for label, count in summary.calls_by_key.items():
            keys[label] = keys.get(label, 0) + count
        for reason, count in summary.failed_by_reason.items():
            reasons[reason] = reasons.get(reason, 0) + count
    text = f"{tally.results} results in {elapsed:.1f} s ({tally.results / max(elapsed, 1e-9):.0f} a second)"
    if retries:
        text += f", {retries} retries"
    console.print(text, highlight=False)
    console.print("by key: " + ", ".join(f"{label} {count}" for label, count in sorted(keys.items())), highlight=False)
    if tally.failed:
        named = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        console.print(f"{tally.failed} failed: {named or 'not 2xx'}", style="red", markup=False, highlight=False)


@contextlib.contextmanager
def _reading(source: Path | None) -> Iterator[Iterable[str]]:
    if source is None:
        yield sys.stdin
        return
    with source.open(encoding="utf-8") as file:
        yield file


@contextlib.contextmanager
def _writing(output: Path | None) -> Iterator[IO[str]]:
    if output is None:
        yield sys.stdout
        return
    with output.open("w", encoding="utf-8") as file:
        yield file
