"""`apiflux process`: a file of calls in, a file of results out, as JSON Lines, in constant memory.

Rules:
- With an output a job can be stopped or killed and run again: output.py and state.py know what is done.
- Results go out as they come, one line for each call; standard output carries nothing else.
- What can't be written ends the run: the results that are there stay whole lines, and the rest is for the next run.
- The first SIGINT or SIGTERM, or the end of `timeout`, stops the stream: calls that the server has not sent are left
  for the next run, and those in flight get GRACE to finish. One more signal ends it at once.
- From the first signal on the run ends as INTERRUPTED, even if the calls in flight were all that was left: whoever
  stopped a job must not take it for one that ended by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Final

from apiflux_grpc.client import ApifluxError, Client
from apiflux_grpc.client.accounts import unknown_result
from apiflux_grpc.client.tally import error_info
from apiflux_grpc.core.units import counted
from apiflux_grpc.jobs import sink
from apiflux_grpc.jobs.again import Again
from apiflux_grpc.jobs.checks import Checks
from apiflux_grpc.jobs.dryrun import Rehearsal
from apiflux_grpc.jobs.ending import Ending
from apiflux_grpc.jobs.finished import is_finished
from apiflux_grpc.jobs.job import Interrupted, Refused
from apiflux_grpc.jobs.known import AGAIN, Known
from apiflux_grpc.jobs.opening import is_simulated, opening
from apiflux_grpc.jobs.output import Output
from apiflux_grpc.jobs.pool import ANY_POOL, asked_pool
from apiflux_grpc.jobs.precautions import Precautions
from apiflux_grpc.jobs.progress import Progress
from apiflux_grpc.jobs.report import Report
from apiflux_grpc.jobs.screen import Screen
from apiflux_grpc.jobs.selection import Selected, Selection
from apiflux_grpc.jobs.servers import Servers
from apiflux_grpc.jobs.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apiflux_grpc.client import Stream
    from apiflux_grpc.jobs.console import Console
    from apiflux_grpc.jobs.job import Job
    from apiflux_grpc.jobs.ration import Ration
    from apiflux_grpc.v1 import apiflux_pb2 as pb

GRACE: Final = 5.0  # seconds that a signal, or the end of the timeout, leaves to calls in flight
_IN_DOUBT: Final = "an earlier run handed it over and ended before its result came; this call must not run twice"


class Run:
    """One run of a job, on one event loop."""

    def __init__(self, job: Job, console: Console) -> None:
        if job.tls is not None:
            try:
                job.tls.credentials()
            except OSError as error:
                raise Refused(f"can't read {error.filename}: {error.strerror}") from None
        self._job = job
        self._lenient = replace(job, skip_bad_lines=job.skip_bad_lines or job.dry_run)
        self._console = console
        self._screen = Screen(console)
        self._source = Source(job)
        self._known = Known()
        self._again = Again(job)
        self._servers = Servers(console.say, self._screen.clock)
        self._report = Report(job, self._source.name, console, self._again)
        self._out: IO[bytes] | Output
        self._output: Output | None = None  # the same, if a later run can go on with it
        self._pool = ANY_POOL
        self._checks: Checks
        self._care = Precautions(job, self._source, console)
        self._selection: Selection | None = None
        self._producer: Ration | None = None  # what the stream takes of it
        self._stream: Stream | None = None
        self._waiting: asyncio.Task[None] | None = None  # for the server
        self._signals = 0
        self._is_timed_out = False

    async def run(self) -> Ending:
        """Raises Refused, Interrupted; OSError if the output can't be opened."""
        with sink.opened(self._job, self._source, self._known) as out:
            self._out = out
            self._output = out if isinstance(out, Output) else None
            self._checks = Checks(
                self._lenient, self._source, self._known, self._output, self._again, self._console, self._care.failed
            )
            try:
                return await self._connected()
            except BrokenPipeError:  # nobody reads any more, and nobody has to be told
                return Ending.READER_LEFT
            except OSError as failed:
                return self._conclude(unwritable=failed)

    def interrupt(self) -> None:
        """SIGINT or SIGTERM."""
        is_ended = self._is_ended
        self._signals += 1
        if self._stream is not None and is_ended:
            self._stream.cancel()
        else:
            self._end(f"waiting up to {GRACE:g} s for calls in flight; press Ctrl-C again to end at once")

    # -- before anything is sent --------------------------------------------------------------

    async def _connected(self) -> Ending:
        job = self._job
        async with Client(job.target, tls=job.tls, token=job.token, plaintext_token=job.plaintext_token) as client:
            self._servers.are(lambda: client.targets)
            self._waiting = asyncio.create_task(self._learn(client))
            absent: ApifluxError | None = None
            try:
                await self._waiting
            except ApifluxError as error:
                absent = error
            except asyncio.CancelledError:
                if self._signals:
                    raise Interrupted from None
                raise
            await self._prepare()  # without a server too: what is wrong with the file is worth knowing now
            if job.dry_run:
                return await self._rehearse(client, absent)
            # What is in doubt waits as well: it may be that the pool's rules let it run twice.
            if absent and not self._checks.is_all_done:
                return self._conclude(absent)
            if self._output is not None:
                await self._make_room(self._output)
            return await self._process(client)

    async def _learn(self, client: Client) -> None:
        done = lambda: is_finished(self._job, self._source)  # noqa: E731
        self._pool = await asked_pool(client, self._job, self._console, self._servers, done)
        self._again.rules = self._pool.idempotent
        self._report.is_simulated = is_simulated(self._pool)

    async def _prepare(self) -> None:
        """Learn what earlier runs did, and check a file that can be read twice."""
        output = self._output
        self._source.read_for(None if self._pool is ANY_POOL else self._pool.base_url, self._console.say)
        self._checks.judge_for(self._pool)
        if output is not None:
            with self._screen.reads(f"reading {output.path}"):
                await self._turns(output.load())
        if self._source.is_regular:
            with self._screen.reads(f"checking {self._source.name}", self._source.share_read):
                await self._turns(self._checks.whole_file())

    async def _make_room(self, output: Output) -> None:
        """Take results out of the output whose calls are sent again."""
        if self._checks.replaced:
            output.expect(self._source.format)
            await self._turns(output.take_out(lambda flags: flags & AGAIN != 0))
        elif not self._source.is_regular and (self._job.retry_failed or self._job.retry_unknown):
            await self._turns(output.take_out(self._again.is_candidate, self._again.needs_its_line))
        if failed := output.taken_out:
            is_sure = self._source.is_regular and self._job.max_cost is None
            them = f"{'' if is_sure else 'up to '}{counted(failed, 'failed call')}"
            self._console.say(f"{them} {'is' if failed == 1 else 'are'} sent again")
        for word in self._again.words():
            self._console.say(word)

    async def _turns(self, work: Iterable[None]) -> None:
        for _ in work:
            await asyncio.sleep(0)
            if self._is_ended:
                raise Interrupted

    async def _rehearse(self, client: Client, absent: ApifluxError | None) -> Ending:
        """Do all but sending."""
        self._console.say("dry run: nothing is sent")
        if self._output is not None:
            await self._make_room(self._output)
        producer = self._producer = self._ration(self._selected())
        rehearsal = Rehearsal(self._job, self._pool, client, absent)
        await rehearsal.go_through(producer)
        if self._is_ended:
            raise Interrupted
        return await rehearsal.tell(self._console, self._checks, producer)

    def _selected(self) -> Selection:
        return Selection(self._lenient, self._source.open(), self._known, self._checks, self._again, self._console)

    def _ration(self, selection: Selection) -> Ration:
        return self._care.producer(selection, self._pool, is_within_limit=self._checks.is_within_limit)

    # -- the way there and back ---------------------------------------------------------------

    async def _process(self, client: Client) -> Ending:
        selection = self._selection = self._selected()
        error: ApifluxError | None = None
        done = False
        try:
            producer = self._producer = self._ration(selection)
            is_any = await producer.any()
            if self._output is not None:
                self._output.expect(self._source.format)
            if is_any:
                await self._exchange(client, selection, producer)
            self._settle(selection.doubtful())
            is_sent = self._stream is None or not self._stream.unsent
            done = selection.is_done and is_sent and not self._care.has_left
        except ApifluxError as failed:
            error = failed
        except asyncio.CancelledError:
            if not self._is_ended:
                raise
        finally:
            if self._output is not None and self._stream is not None and (unsent := self._stream.unsent):
                with contextlib.suppress(OSError):  # then the next run has to take them for calls that may have run
                    self._output.take_back(key for key, _ in selection.notes(unsent))
        self._out.flush()
        self._care.finish()
        return self._conclude(error, done)

    async def _exchange(self, client: Client, selection: Selection, producer: Ration) -> None:
        """Send what is to be sent, and write what comes."""
        job = self._job
        checks, to_send = self._checks, self._care.at_most(self._checks.to_send)
        self._console.say(await opening(client, job, self._pool, to_send, checks.mean_cost))
        self._report.tally.started = time.monotonic()
        progress = Progress(checks.calls, self._screen.clock(), checks.done, to_send, lambda: self._is_ended)
        stream = self._stream = client.process_stream(
            producer,
            pool=self._pool.name,
            retry=self._care.retry,
            ordered=job.ordered,
            resume=True,
            window=job.window,
            before_send=None if self._output is None else self._note,
            expected=to_send,
            on_connection=lambda error: self._console.say(progress.connection(error, self._screen.clock())),
            on_target=self._servers.changed,
        )
        if self._is_ended:
            raise Interrupted
        if job.timeout is not None:
            asyncio.get_running_loop().call_later(job.timeout, self._time_out)
        with self._screen.shows(progress):
            async with stream:
                async for message in stream.raw():
                    self._write(message.results, selection)
                    progress.heard(checks.done + self._report.tally.total, stream.progress, self._screen.clock())

    async def _note(self, indexes: Sequence[int]) -> None:
        """Before calls are handed over: on the disk first."""
        assert self._output is not None
        assert self._selection is not None
        await self._output.note(self._selection.notes(indexes))

    def _write(self, results: Sequence[pb.CallResult], selection: Selection) -> None:
        """Write results of the stream under the indexes of the input, and before them what is in doubt."""
        if not self._job.ordered:
            self._settle(selection.doubtful())
        for result in results:
            place = result.index
            call = selection.open.pop(place)
            if result.HasField("error") and error_info(result).reason == "INVALID_CALL":
                own, whole = f"calls[{place}].", f"calls[{call.index}]."
                result.error.message = result.error.message.replace(own, whole)
            result.index = call.index
            if self._job.ordered:
                self._settle(selection.doubtful(before=call.index))
            self._put(result, call)
            self._care.met(place, result, call)
        if results:
            self._out.flush()
            self._stop_if_failing(selection)

    def _settle(self, doubtful: Iterable[Selected]) -> None:
        """Give results to calls that may have run in an earlier run."""
        for call in doubtful:
            if self._output is None or not self._output.is_taken_out(call.key):
                self._put(unknown_result(call.index, call.id, _IN_DOUBT), call)
            self._care.met_in_doubt()

    def _put(self, result: pb.CallResult, call: Selected) -> None:
        self._report.add(result, call)
        self._out.write(self._source.format.line(result, call.idempotent))

    # -- the end ------------------------------------------------------------------------------

    @property
    def _is_ended(self) -> bool:
        """It was told to end before all is done."""
        return self._signals > 0 or self._is_timed_out

    def _time_out(self) -> None:
        if not self._is_ended:
            self._is_timed_out = True
            self._end(
                f"--timeout has passed: waiting up to {GRACE:g} s for calls in flight; press Ctrl-C to end at once"
            )

    def _stop_if_failing(self, selection: Selection) -> None:
        """Leave the rest to the next run; what is in flight may take its time."""
        if self._care.stops() and self._stream is not None and self._producer is not None:
            if selection.open or not selection.is_done:
                self._console.error(f"nothing more is sent: {self._care.why}")
            self._producer.stop()
            self._stream.stop()

    def _end(self, word: str) -> None:
        """Send nothing more, and go on only for what is in flight."""
        if self._producer is not None:
            self._producer.stop()
        if self._stream is None:
            if self._waiting is not None:
                self._waiting.cancel()
            return
        if self._selection is not None and self._selection.open:
            self._console.say(word)
        self._stream.stop()
        asyncio.get_running_loop().call_later(GRACE, self._stream.cancel)

    def _conclude(
        self, error: ApifluxError | None = None, done: bool = False, *, unwritable: OSError | None = None
    ) -> Ending:
        """Tell what came of it."""
        report, output, selection = self._report, self._output, self._selection
        ending = self._ending(error, done, unwritable)
        if error is not None:
            report.explain(error)
        kept = 0 if output is None else output.taken_out  # results that aren't replaced after all
        before = self._checks.done + kept
        if done or report.tally.total or before:
            summary = None if self._stream is None else self._stream.summary
            by_key = None if summary is None else summary.calls_by_key
            report.figures(output, before, self._checks.bad, by_key, skipped_failed=self._checks.failed + kept)
        if unwritable is not None:
            report.unwritable(unwritable)
        # Calls that failed decide the exit code, and --limit what is left.
        cut_by = self._care.ending or ending if ending is Ending.CALLS_FAILED else ending
        if not done or ending is Ending.INTERRUPTED:
            calls = self._checks.calls
            is_known = calls is not None
            total = calls if calls is not None else 0 if selection is None else selection.calls
            report.how_far(cut_by, output, before, total, is_known=is_known, stopped_by_line=self._checks.bad > 0)
        if not done and not (selection is not None and selection.is_other):
            report.how_to_continue(cut_by, output)
        return ending

    def _ending(self, error: ApifluxError | None, done: bool, unwritable: OSError | None) -> Ending:
        tally, output = self._report.tally, self._output
        has_bad_calls = self._checks.bad or tally.failed["INVALID_CALL"]
        if unwritable is not None:  # before a signal: it says what keeps the next run from continuing
            return Ending.UNWRITABLE
        if self._signals:
            return Ending.INTERRUPTED
        if error is not None:
            if error.reason == "INTERNAL":
                return Ending.FAULT
            return Ending.BAD_CALLS if error.violations or error.reason == "POOL_NOT_FOUND" else Ending.SERVER_LOST
        if self._selection is not None and self._selection.is_other:
            return Ending.OTHER_CALLS
        if not done and self._care.ending in (Ending.FAILING, Ending.COST_REACHED):
            return self._care.ending
        if self._is_timed_out and not done:
            return Ending.TIMED_OUT
        if has_bad_calls and not self._job.skip_bad_lines:
            return Ending.BAD_CALLS
        if tally.failed or (output is not None and output.failed):
            return Ending.CALLS_FAILED
        return Ending.LIMIT_REACHED if not done and self._care.ending else Ending.COMPLETE
