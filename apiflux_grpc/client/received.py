"""What has come of a batch so far: the part that both clients' streams share.

Rule: a stream that is dropped cancels its RPC; a message is taken apart in one place.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from apiflux_grpc.client.hook import Hook
from apiflux_grpc.client.results import Progress, Result, Summary

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from apiflux_grpc.client.hook import OnProgress
    from apiflux_grpc.v1 import apiflux_pb2 as pb


class Cancellable(Protocol):
    """What brings the messages of a batch: an RPC of grpc's, or what process_stream wraps around one."""

    def cancel(self) -> object:
        """End it at once; of no effect after the end."""
        ...


@runtime_checkable
class Stoppable(Cancellable, Protocol):
    """What process_stream wraps around its RPCs."""

    def stop(self) -> None:
        """Send nothing more, and end when every call in flight has its result."""
        ...

    @property
    def unsent(self) -> list[int]:
        """After the end: the indexes of calls without a result that certainly didn't run, or may run again."""
        ...


class Received:
    """`summary` is set after the last result, `progress` about once a second, which `on_progress` is told."""

    def __init__(self, call: Cancellable, on_progress: OnProgress | None = None) -> None:
        self._call = call
        self._hook = Hook(on_progress)
        self._results: list[Result] = []  # of the last message, the next one last
        self.progress: Progress | None = None
        self.summary: Summary | None = None

    @property
    def unsent(self) -> list[int]:
        """Of a stream with `resume` that ended early, or was stopped: the indexes of the calls that were taken from
        the iterable, have no result, and either certainly did not run or may run again."""
        return self._call.unsent if isinstance(self._call, Stoppable) else []

    def stop(self) -> None:
        """End the batch of a process_stream early and know of each call: nothing more is sent, what is in flight gets
        its results, then comes the summary.

        A call that waits in the server then gets the error STOPPED, with `may_have_run` if an attempt was made. With
        `resume` those that certainly didn't run, or may run again, have no result but are in `unsent`.

        Raises RuntimeError for the stream of `process`, `repeat` or `send`: the server has that batch whole.
        """
        if not isinstance(self._call, Stoppable):
            raise RuntimeError("only what process_stream returns can be stopped; cancel() ends any batch")
        self._call.stop()

    def cancel(self) -> None:
        """End the batch at once: unsent calls are dropped, the others stopped, and their results lost."""
        self._call.cancel()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at interpreter shutdown nothing is certain
            self._call.cancel()

    def _take(self, message: pb.ProcessResponse, keep: bool = True) -> Awaitable[object] | None:
        """Note what a message says; `keep`: its results too, for `next`. What is returned is the hook's, to be awaited.

        The hook is told last: whatever becomes of it, the results are there.
        """
        if keep:
            self._results = [Result.of(result) for result in reversed(message.results)]
        progress = Progress.of(message.progress) if message.HasField("progress") else None
        if message.HasField("summary"):
            self.summary = summary = Summary.of(message.summary)
            # After a lost connection the last word is the client's own, and has no progress with it.
            if progress is None and (self.progress is None or self.progress.done < summary.total):
                progress = Progress(summary.total, summary.total, 0, 0.0)
        if progress is None:
            return None
        self.progress = progress
        return self._hook.tell(progress)
