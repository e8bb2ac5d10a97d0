"""What can go wrong, as exceptions that name the reason.

    FluxError
      Refused                 the whole batch was refused at the door; nothing was sent
        InvalidRequest          a field is wrong: `violations` has field path and text of each fault
        BatchTooLarge           over the documented maximum
        PoolNotFound
        KeyNotFound
        NotKept                 what is to hold over a restart can't be written down
        Overloaded              the queue is full; `retry_after` says when to come back
          TooManyBatches
          TooManyCalls
          TooManyBytes
            TooManyAtOnce
          QuotaExceeded           one caller's own: `caller` names it
            QuotaOfBatches
            QuotaOfCalls
            QuotaOfRate
        DeadlineInfeasible      the batch can't finish before its deadline, even with all capacity to itself
        Draining                the server is shutting down
        Unauthenticated         nobody knows who it is
          CredentialsMissing
          CredentialsInvalid
            KeyUnknown
          CredentialsExpired
          PeerNotTrusted          the authority of their certificate was removed
        Forbidden               they may not do this
      ReaderStalled           the caller read nothing for too long
      EngineFailed            a fault of ours ended the batch

Rule: an exception says what happened and what to do, and holds what a program needs to act on it. `reason` is the
word that users see in ErrorInfo. No status codes here: server/status.py has the one table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.checks import Fault


class FluxError(Exception):
    """The root of all of them."""

    reason: ClassVar[str] = "INTERNAL"


class Refused(FluxError):
    """The whole batch was refused at the door; nothing was sent."""


class InvalidRequest(Refused):
    """One or more fields are wrong: `violations` has the first faults that were found, and there are `more`."""

    reason = "INVALID_REQUEST"

    def __init__(self, violations: Sequence[Fault], more: int = 0) -> None:
        self.violations = tuple(violations)
        self.more = more
        super().__init__("; ".join(f"{field}: {text}" for field, text in self.violations))


class BatchTooLarge(InvalidRequest):
    """The batch is over the documented maximum; ProcessStream has none."""

    reason = "BATCH_TOO_LARGE"


class PoolNotFound(Refused):
    """No pool has this name."""

    reason = "POOL_NOT_FOUND"

    def __init__(self, pool: str, known: Sequence[str]) -> None:
        self.pool = pool
        what = f"there is no pool {pool!r}" if pool else "no pool was named, and there are several"
        super().__init__(f"{what}; use one of {', '.join(sorted(known))}" if known else f"{what} that you may use")


class KeyNotFound(Refused):
    """No key of the pools that were chosen has this label."""

    reason = "KEY_NOT_FOUND"

    def __init__(self, label: str, known: Sequence[str]) -> None:
        shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
        super().__init__(f"there is no key {label!r}; there are {shown}")


class NotKept(Refused):
    """What is to hold over a restart can't be written down, so nothing was done."""

    reason = "NOT_KEPT"


class Overloaded(Refused):
    """The queue is full: `retry_after` (ns) is the time that it takes to drain, `limit` the bound that was hit."""

    what: ClassVar[str]

    def __init__(self, have: int, more: int, *, limit: int, retry_after: int) -> None:
        self.limit = limit
        self.retry_after = retry_after
        super().__init__(
            f"{have} {self.what} are open, and {more} more would exceed the bound of {limit}; send again later"
        )


class TooManyBatches(Overloaded):
    """More open batches than the server keeps."""

    reason = "TOO_MANY_BATCHES"
    what = "batches"


class TooManyCalls(Overloaded):
    """More calls without a result than the server keeps."""

    reason = "TOO_MANY_CALLS"
    what = "queued calls"


class TooManyBytes(Overloaded):
    """More bytes of requests than the server keeps."""

    reason = "TOO_MANY_BYTES"
    what = "bytes of queued requests"


class TooManyAtOnce(TooManyBytes):
    """More requests on their way in than the server has memory for; none of this one was decoded."""

    def __init__(self, have: int, *, limit: int, retry_after: int) -> None:
        super().__init__(have, 1, limit=limit, retry_after=retry_after)
        self.args = (f"{have} requests are on their way in, more than are received at once; send again later",)


class QuotaExceeded(Overloaded):
    """The quota of `caller` is used up; others have room."""

    text: ClassVar[str]

    def __init__(self, caller: str, have: int, more: int, *, limit: int, retry_after: int) -> None:
        self.caller = caller
        self.limit = limit
        self.retry_after = retry_after
        Exception.__init__(self, self.text.format(caller=caller, have=have, more=more, limit=limit))


class QuotaOfBatches(QuotaExceeded):
    """It has as many batches open as it may."""

    reason = "QUOTA_BATCHES"
    text = "{caller} has {have} batches open, and its quota is {limit}; send again later"


class QuotaOfCalls(QuotaExceeded):
    """It has as many calls without a result as it may."""

    reason = "QUOTA_CALLS"
    text = "{caller} has {have} queued calls, and {more} more would exceed its quota of {limit}; send again later"


class QuotaOfRate(QuotaExceeded):
    """It has handed over as many calls lately as it may."""

    reason = "QUOTA_RATE"
    text = "{caller} has sent {have} calls lately, and {more} more would exceed its rate of {limit}; send again later"


class DeadlineInfeasible(Refused):
    """The batch can't finish before its deadline, even with all capacity to itself. Times are ns.

    `eta` is how long it would take from now, `retry_after` when the same deadline might do.
    """

    reason = "DEADLINE_INFEASIBLE"

    def __init__(self, eta: int | None, deadline: int) -> None:
        self.eta = eta
        self.retry_after = max(SECOND, (eta or 0) - deadline)
        takes = "no key can be used now" if eta is None else f"it takes at least {eta / 1e9:.1f} s"
        within = f"within its deadline of {deadline / 1e9:.1f} s"
        super().__init__(f"the batch can't finish {within}: {takes}; allow more time or send fewer calls")


class Draining(Refused):
    """The server is shutting down; `retry_after` (ns) is when another one may have taken its place."""

    reason = "DRAINING"

    retry_after: ClassVar[int] = 5 * SECOND

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class Unauthenticated(Refused):
    """Nobody knows who it is. What exactly was wrong stays untold: it would help only who guesses."""


class CredentialsMissing(Unauthenticated):
    """None came."""

    reason = "CREDENTIALS_MISSING"

    def __init__(self) -> None:
        super().__init__("this server wants to know who calls: send a token as `authorization: Bearer TOKEN`")


class CredentialsInvalid(Unauthenticated):
    """Those that came aren't of a caller that is known here."""

    reason = "CREDENTIALS_INVALID"

    def __init__(self) -> None:
        super().__init__("these credentials are not, or no longer, those of a caller; get new ones from who runs this")


class KeyUnknown(CredentialsInvalid):
    """Nobody knows yet with which key its token was signed; the issuer's keys are being fetched."""


class CredentialsExpired(Unauthenticated):
    """The token was good, and its time is over."""

    reason = "CREDENTIALS_EXPIRED"

    def __init__(self) -> None:
        super().__init__("the token has expired; get a new one")


class PeerNotTrusted(Unauthenticated):
    """The client has shown no certificate, or its authority was removed since its connection was made."""

    reason = "PEER_NOT_TRUSTED"

    def __init__(self, why: str = "the authority that issued your certificate isn't trusted any more") -> None:
        super().__init__(f"{why}; get a new certificate")


class Forbidden(Refused):
    """The caller is known, and may not do this."""

    reason = "NOT_ALLOWED"


class ReaderStalled(FluxError):
    """The caller read nothing for too long. Its batch was stopped; others go on."""

    reason = "READER_STALLED"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"nothing was read for {seconds:g} s, so the batch was stopped; read results as they come")


class EngineFailed(FluxError):
    """A fault of ours. `error_id` is in the log too; the fault's own text, which may hold anything, is only there."""

    def __init__(self, error_id: str) -> None:
        self.error_id = error_id
        super().__init__(f"internal error {error_id}; the server's log has the details under this id")
