"""What has come of a batch so far: the part that both clients' streams share.

Rule: a stream that is dropped cancels its RPC; a message is taken apart in one place.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from apiflux_grpc.client.resuming import Resuming, SyncResuming
from apiflux_grpc.client.streaming import Streaming, SyncStreaming
from apiflux_grpc.client.types import Progress, Result, Summary

if TYPE_CHECKING:
    from apiflux_grpc.v1 import apiflux_pb2 as pb


class Received:
    """`summary` is set after the last result, `progress` about once a second."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._results: list[Result] = []  # of the last message, the next one last
        self.progress: Progress | None = None
        self.summary: Summary | None = None

    @property
    def unsent(self) -> list[int]:
        """Of a stream with `resume` that ended early, or was stopped: the indexes of the calls that were taken from
        the iterable, have no result, and either certainly did not run or may run again."""
        return self._call.unsent if isinstance(self._call, Resuming | SyncResuming) else []

    def stop(self) -> None:
        """End the batch of a process_stream early and know of each call: nothing more is sent, what is in flight gets
        its results, then comes the summary.

        A call that waits in the server then gets the error STOPPED, with `may_have_run` where an attempt was made.
        With `resume` those that certainly didn't run, or may run again, have no result but are in `unsent`.
        """
        if not isinstance(self._call, Resuming | SyncResuming | Streaming | SyncStreaming):
            raise RuntimeError("only what process_stream returns can be stopped; cancel() ends any batch")
        self._call.stop()

    def cancel(self) -> None:
        """Stop the batch: unsent calls are dropped, the others stopped."""
        self._call.cancel()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at interpreter shutdown nothing is certain
            self._call.cancel()

    def _take(self, message: pb.ProcessResponse, keep: bool = True) -> None:
        if keep:
            self._results = [Result.of(result) for result in reversed(message.results)]
        if message.HasField("progress"):
            self.progress = Progress.of(message.progress)
        if message.HasField("summary"):
            self.summary = Summary.of(message.summary)
