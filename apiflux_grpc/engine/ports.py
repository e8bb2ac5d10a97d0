"""What the engine asks of the outside: an Upstream that makes attempts, a LeaseStore, an Observer that is told.

Rule: signatures and contract prose only. Everything here is called on the engine's loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.core.call import Call
    from apiflux_grpc.core.events import Event
    from apiflux_grpc.core.lease.words import Reply, Round
    from apiflux_grpc.core.model import Key
    from apiflux_grpc.core.outcome import Outcome
    from apiflux_grpc.core.permit import Permit

    Clock = Callable[[], int]  # monotonic, integer nanoseconds


class Attempt:
    """One try of a call. The pump makes it; the upstream says `sent` and `done` of it.

    `timeout` (ns) runs from the permit to the last byte of the answer. After `send_by` it must not be written any
    more: it ends NotSent. `handle` is the upstream's to use.
    """

    __slots__ = ("_done", "_sent", "call", "handle", "key", "permit", "send_by", "timeout")

    def __init__(
        self,
        permit: Permit,
        call: Call,
        timeout: int,
        sent: Callable[[Attempt, int], None],
        done: Callable[[Attempt, Outcome], None],
    ) -> None:
        self.permit = permit
        self.key: Key = permit.key.key
        self.call = call
        self.timeout = timeout
        self.send_by: int | None = None
        self.handle: object = None
        self._sent = sent
        self._done = done

    def sent(self, at: int) -> None:
        """The request's bytes went to the socket at `at`; said at the write and at most once."""
        self._sent(self, at)

    def done(self, outcome: Outcome) -> None:
        """The attempt is over; said exactly once, never before `begin` has returned."""
        self._done(self, outcome)


class Upstream(Protocol):
    """Where the calls of one pool go.

    Nothing is ever sent twice: a failed attempt is `done`, and the engine decides about another one. Where an
    upstream can't say whether bytes went out, it is Unknown and not NotSent.
    """

    def begin(self, attempt: Attempt) -> None:
        """Start. Returns at once; never raises for what the call or the network brings."""

    def cancel(self, attempt: Attempt) -> None:
        """Stop it. It is still `done`, soon and once: NotSent if nothing went out, an Answer with a fault if its head
        came, else Unknown. Idempotent."""

    def connecting(self) -> int | None:
        """The longest that opening a connection took lately (ns); None: not known."""

    async def close(self) -> None:
        """Cancel what is open, and return when all of it is `done` and every connection is closed."""


class LeaseStore(Protocol):
    """Where processes that share budgets meet: what core/lease says, kept in one place.

    Each round is served once and whole, or not at all; in which order those of several processes are is the store's. A
    round whose reply was lost may be asked again. Nothing is asked again by the store's own client, and what is on its
    way is never cancelled: then nobody could tell whether it was served.

    `least_life` (ns): how long a lease must live at the least, unless configured, for what an exchange takes there.
    `is_near`: asking costs little, so little is borrowed at a time, and a process that is killed loses little.
    """

    least_life: int
    is_near: bool

    async def exchange(self, rounds: Sequence[Round]) -> Sequence[Reply | None]:
        """The replies to these rounds, of budgets that all differ, in their order; None: a part of the store is gone,
        and nobody knows whether it served this one. Raises ConnectionError if that is so for all of them. It ends in
        a bounded time, whatever the network does."""

    async def close(self) -> None:
        """Close what is open. Several pools may share a store, so it's said more than once."""


class Observer(Protocol):
    """Is told what happens; must be quick and must not raise."""

    def tell(self, pool: str, event: Event) -> None:
        """Something happened to this pool."""

    def crashed(self, error: BaseException, error_id: str) -> None:
        """A fault of ours stopped the engine."""
