"""A batch that outlives its connections, as a whole: its calls, its end, its deadline and its counts.

Rule: what holds for one server and for several is here; client/resume.py has one, client/several.py several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from apiflux_grpc.client.books import Books
from apiflux_grpc.client.channel import check_timeout
from apiflux_grpc.client.feed import CALLS_PER_MESSAGE
from apiflux_grpc.client.hook import Hook
from apiflux_grpc.client.tally import Tally
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from apiflux_grpc.client.calls import AnyCall
    from apiflux_grpc.client.errors import ApifluxError

    OnConnection = Callable[[ApifluxError | None], object]

WINDOW: Final = 2_000  # calls without a result
GIVE_UP_AFTER: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class End:
    """What follows on the end of a connection: hand out `responses`, then raise `error`, or connect again in `wait`
    seconds; neither: there is nothing more to do over it."""

    responses: Sequence[pb.ProcessResponse] = ()
    error: ApifluxError | None = None
    wait: float | None = None


class Whole:
    """`now` is seconds on a clock that never goes back. Raises ValueError for an option that is out of bounds."""

    def __init__(
        self,
        header: pb.ProcessStreamOpen,
        now: float,
        *,
        window: int = WINDOW,
        give_up_after: float = GIVE_UP_AFTER,
        timeout: float | None = None,
        on_connection: OnConnection | None = None,
    ) -> None:
        if window < 1:
            raise ValueError("window must be at least 1")
        self.header = header
        self.expected = header.expected_calls
        self.window = window
        self.give_up_after = give_up_after
        self.books = Books(header.ordered)
        self.tally = Tally()
        self.ended = False  # the producer has
        self.last_heard = now
        timeout = check_timeout(timeout)
        self._deadline = None if timeout is None else now + timeout
        self._hook = Hook(on_connection, "on_connection")
        self._is_lost = False  # that was told, and not yet that it is back

    @property
    def unsent(self) -> list[int]:
        """The indexes of calls without a result that certainly didn't run, or may run again."""
        return [item.index for item in self.books.ready]

    @property
    def to_take(self) -> int:
        """How many calls the producer is still expected to give; 0: none, or it isn't known."""
        return 0 if self.ended else max(0, self.expected - self.books.taken)

    def time_left(self, now: float) -> float | None:
        """How many seconds a new connection may last; None: any."""
        return None if self._deadline is None else max(self._deadline - now, 0.0)

    @property
    def wanted(self) -> int:
        """How many more calls of the producer there is room for now."""
        if self.books.ready or self.ended:
            return 0
        return max(min(CALLS_PER_MESSAGE, self.window - self.books.waiting), 0)

    def took(self, calls: Iterable[AnyCall] | None) -> None:
        """What the producer gave; None: that was all."""
        if calls is None:
            self.ended = True
        else:
            self.books.take(calls)

    @property
    def is_fed(self) -> bool:
        """There is nothing more to say: every call has its result, so that until then it can be stopped."""
        return self.ended and self.books.is_settled

    def stop(self) -> None:
        """Hand over nothing more, and don't connect again."""
        self.ended = True
        self.books.stopped = True

    @property
    def is_stopped(self) -> bool:
        """It was stopped, so the server is to be told."""
        return self.books.stopped

    def tell(self, error: ApifluxError | None) -> None:
        """The connection is lost, or it is back; each is news only once."""
        if self._is_lost is (error is None):
            self._is_lost = not self._is_lost
            self._hook.tell(error)

    def counted(self, results: list[pb.CallResult]) -> list[pb.ProcessResponse]:
        """These results, as messages of the whole."""
        for result in results:
            self.tally.add(result)
        return [pb.ProcessResponse(results=results)] if results else []

    def summary(self) -> pb.ProcessResponse:
        """The last word, counted from the results."""
        return pb.ProcessResponse(summary=self.tally.summary(self.header.correlation_id))
