"""The one table from an error to what a caller sees: code, reason, details and words."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from apiflux_grpc.core.checks import Fault
from apiflux_grpc.core.errors import (
    BatchTooLarge,
    CredentialsExpired,
    CredentialsInvalid,
    CredentialsMissing,
    DeadlineInfeasible,
    Draining,
    EngineFailed,
    FluxError,
    Forbidden,
    InvalidRequest,
    KeyNotFound,
    NotKept,
    Overloaded,
    PeerNotTrusted,
    PoolNotFound,
    QuotaExceeded,
    QuotaOfBatches,
    QuotaOfCalls,
    QuotaOfRate,
    ReaderStalled,
    TooManyAtOnce,
    TooManyBatches,
    TooManyBytes,
    TooManyCalls,
)
from apiflux_grpc.core.headers import NO_HEADERS
from apiflux_grpc.core.outcome import Answer, Cause, NotSent, Outcome, Reason, Result, Unknown
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.server.status import pushback, result_error, status_of

FAULTS = [Fault(f"calls[{number}].path", "is wrong") for number in range(30)]
STATUSES = [
    (
        InvalidRequest(FAULTS[:1]),
        "INVALID_ARGUMENT",
        "INVALID_REQUEST",
        "calls[0].path: is wrong",
        {},
    ),
    (
        InvalidRequest(FAULTS),
        "INVALID_ARGUMENT",
        "INVALID_REQUEST",
        "calls[0].path: is wrong; calls[1].path: is wrong; calls[2].path: is wrong; and 27 more",
        {"violations_not_shown": "10"},
    ),
    (BatchTooLarge(FAULTS[:1]), "INVALID_ARGUMENT", "BATCH_TOO_LARGE", "calls[0].path: is wrong", {}),
    (PoolNotFound("c", ["b", "a"]), "NOT_FOUND", "POOL_NOT_FOUND", "there is no pool 'c'; use one of a, b", {}),
    (KeyNotFound("c", ["b", "a"]), "NOT_FOUND", "KEY_NOT_FOUND", "there is no key 'c'; there are b, a", {}),
    (NotKept("the disk is full"), "FAILED_PRECONDITION", "NOT_KEPT", "the disk is full", {}),
    (
        TooManyBatches(9, 1, limit=9, retry_after=2 * SECOND),
        "RESOURCE_EXHAUSTED",
        "TOO_MANY_BATCHES",
        "9 batches are open, and 1 more would exceed the bound of 9; send again later",
        {"limit": "9"},
    ),
    (
        TooManyCalls(8, 2, limit=9, retry_after=2 * SECOND),
        "RESOURCE_EXHAUSTED",
        "TOO_MANY_CALLS",
        "8 queued calls are open, and 2 more would exceed the bound of 9; send again later",
        {"limit": "9"},
    ),
    (
        TooManyBytes(8, 2, limit=9, retry_after=2 * SECOND),
        "RESOURCE_EXHAUSTED",
        "TOO_MANY_BYTES",
        "8 bytes of queued requests are open, and 2 more would exceed the bound of 9; send again later",
        {"limit": "9"},
    ),
    (
        TooManyAtOnce(8, limit=7, retry_after=2 * SECOND),
        "RESOURCE_EXHAUSTED",
        "TOO_MANY_BYTES",
        "8 requests are on their way in, more than are received at once; send again later",
        {"limit": "7"},
    ),
    (
        QuotaOfBatches("team-a", 9, 1, limit=9, retry_after=2 * SECOND),
        "RESOURCE_EXHAUSTED",
        "QUOTA_BATCHES",
        "team-a has 9 batches open, and its quota is 9; send again later",
        {"limit": "9"},
    ),
    (
        QuotaOfCalls("team-a", 8, 2, limit=9, retry_after=2 * SECOND),
        "RESOURCE_EXHAUSTED",
        "QUOTA_CALLS",
        "team-a has 8 queued calls, and 2 more would exceed its quota of 9; send again later",
        {"limit": "9"},
    ),
    (
        QuotaOfRate("team-a", 8, 2, limit=9, retry_after=2 * SECOND),
        "RESOURCE_EXHAUSTED",
        "QUOTA_RATE",
        "team-a has sent 8 calls lately, and 2 more would exceed its rate of 9; send again later",
        {"limit": "9"},
    ),
    (
        CredentialsMissing(),
        "UNAUTHENTICATED",
        "CREDENTIALS_MISSING",
        "this server wants to know who calls: send a token as `authorization: Bearer TOKEN`",
        {},
    ),
    (
        CredentialsInvalid(),
        "UNAUTHENTICATED",
        "CREDENTIALS_INVALID",
        "these credentials are not, or no longer, those of a caller; get new ones from who runs this",
        {},
    ),
    (CredentialsExpired(), "UNAUTHENTICATED", "CREDENTIALS_EXPIRED", "the token has expired; get a new one", {}),
    (PoolNotFound("c", []), "NOT_FOUND", "POOL_NOT_FOUND", "there is no pool 'c' that you may use", {}),
    (PeerNotTrusted("who are you"), "UNAUTHENTICATED", "PEER_NOT_TRUSTED", "who are you; get a new certificate", {}),
    (Forbidden("this needs another role"), "PERMISSION_DENIED", "NOT_ALLOWED", "this needs another role", {}),
    (
        DeadlineInfeasible(90 * SECOND, 60 * SECOND),
        "RESOURCE_EXHAUSTED",
        "DEADLINE_INFEASIBLE",
        "the batch can't finish within its deadline of 60.0 s: it takes at least 90.0 s; "
        "allow more time or send fewer calls",
        {"eta_seconds": "90.000"},
    ),
    (
        DeadlineInfeasible(None, 60 * SECOND),
        "RESOURCE_EXHAUSTED",
        "DEADLINE_INFEASIBLE",
        "the batch can't finish within its deadline of 60.0 s: no key can be used now; "
        "allow more time or send fewer calls",
        {},
    ),
    (
        ReaderStalled(300),
        "ABORTED",
        "READER_STALLED",
        "nothing was read for 300 s, so the batch was stopped; read results as they come",
        {},
    ),
    (Draining(), "UNAVAILABLE", "DRAINING", "the server is shutting down", {}),
    (
        EngineFailed("4711"),
        "INTERNAL",
        "INTERNAL",
        "internal error 4711; the server's log has the details under this id",
        {"error_id": "4711"},
    ),
]
RETRY = {Overloaded: 2, DeadlineInfeasible: 30, Draining: 5}  # seconds


def details_of(status: status_pb2.Status) -> dict[type[Message], Message]:
    found: dict[type[Message], Message] = {}
    for detail in status.details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.RetryInfo,
            error_details_pb2.QuotaFailure,
        ):
            message = kind()
            if detail.Unpack(message):
                found[kind] = message
    return found


@pytest.mark.parametrize(("error", "code", "reason", "message", "metadata"), STATUSES)
def test_the_status_of_an_error(
    error: FluxError, code: str, reason: str, message: str, metadata: dict[str, str]
) -> None:
    """An ErrorInfo in every status, and BadRequest, RetryInfo and QuotaFailure wherever they help a program."""
    status = status_of(error)
    details = details_of(status)
    assert (status.code, status.message) == (grpc.StatusCode[code].value[0], message)
    info = error_details_pb2.ErrorInfo(reason=reason, domain="apiflux.v1", metadata=metadata)
    assert details.pop(error_details_pb2.ErrorInfo) == info
    if isinstance(error, InvalidRequest):
        bad = details.pop(error_details_pb2.BadRequest)
        assert isinstance(bad, error_details_pb2.BadRequest)
        assert [(each.field, each.description) for each in bad.field_violations] == list(error.violations[:20])
    if isinstance(error, Overloaded):
        subject = "caller:team-a" if isinstance(error, QuotaExceeded) else "server"
        violations = [error_details_pb2.QuotaFailure.Violation(subject=subject, description=message)]
        assert details.pop(error_details_pb2.QuotaFailure) == error_details_pb2.QuotaFailure(violations=violations)
    if seconds := [seconds for kind, seconds in RETRY.items() if isinstance(error, kind)]:
        retry = details.pop(error_details_pb2.RetryInfo)
        assert isinstance(retry, error_details_pb2.RetryInfo)
        never = isinstance(error, DeadlineInfeasible) and error.eta is None
        assert retry.retry_delay.seconds == (1 if never else seconds[0])
    assert details == {}


@pytest.mark.parametrize(
    ("error", "left", "milliseconds"),
    [
        (TooManyCalls(8, 2, limit=9, retry_after=2 * SECOND + 1), None, "2001"),
        (TooManyCalls(8, 2, limit=9, retry_after=2 * SECOND + 1), 3.0, "2001"),
        (TooManyCalls(8, 2, limit=9, retry_after=2 * SECOND), 2.0, "-1"),
        (Draining(), 60.0, "5000"),
        (Draining(), 1.0, "-1"),
        (DeadlineInfeasible(347 * SECOND, 60 * SECOND), 60.0, "-1"),
        *((error, None, "-1") for error, *_ in STATUSES if not isinstance(error, Overloaded | Draining)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, FluxError) else str(value),
)
def test_when_a_library_may_send_it_again_by_itself(error: FluxError, left: float | None, milliseconds: str) -> None:
    """As long as RetryInfo says, if the RPC's own deadline is later; never, if the same RPC would fail again."""
    assert pushback(error, left) == ("grpc-retry-pushback-ms", milliseconds)


def kinds(kind: type[FluxError] = FluxError) -> set[type[FluxError]]:
    return {kind}.union(*(kinds(each) for each in kind.__subclasses__()))


def test_every_error_has_its_row() -> None:
    """But for those that others are kinds of."""
    assert {kind.__name__ for kind in kinds() - {type(error) for error, *_ in STATUSES}} == {
        "FluxError",
        "Refused",
        "Overloaded",
        "QuotaExceeded",
        "Unauthenticated",
        "KeyUnknown",
    }


NOT_SENT = NotSent(Cause.UNREACHABLE, "connection refused")
SHUT_DOWN = "the server shut down before this call"
STOPPED = "the caller stopped before this call"
# Outcome, reason, attempts, may it have run, code, message.
RESULTS: list[tuple[Outcome | None, Reason, int, bool, str, str]] = [
    (NOT_SENT, Reason.NOT_SENT, 1, False, "UNAVAILABLE", "connection refused"),
    (None, Reason.LIMITED, 3, True, "RESOURCE_EXHAUSTED", "limited for longer than the pool's longest_wait"),
    (
        Answer(200, NO_HEADERS, b"", 0, fault=Reason.BODY_CUT),
        Reason.HTTP_5XX,
        1,
        True,
        "DATA_LOSS",
        "HTTP 200 came, but its body was cut",
    ),
    (Unknown("cut"), Reason.UNKNOWN, 1, True, "UNKNOWN", "cut"),
    (Unknown("late", Reason.TIMEOUT), Reason.TIMEOUT, 1, True, "DEADLINE_EXCEEDED", "late"),
    (
        Answer(200, NO_HEADERS, b"", 0, fault=Reason.BODY_CUT),
        Reason.BODY_CUT,
        1,
        True,
        "DATA_LOSS",
        "HTTP 200 came, but its body was cut",
    ),
    (None, Reason.INVALID_CALL, 0, False, "INVALID_ARGUMENT", "calls[0].path: is wrong"),
    (None, Reason.DRAINING, 0, False, "UNAVAILABLE", f"{SHUT_DOWN} was sent"),
    (None, Reason.DRAINING, 2, True, "UNAVAILABLE", f"{SHUT_DOWN} could be tried again"),
    (None, Reason.STOPPED, 0, False, "CANCELLED", f"{STOPPED} was sent"),
    (None, Reason.STOPPED, 1, True, "CANCELLED", f"{STOPPED} could be tried again"),
    (
        None,
        Reason.NO_USABLE_KEY,
        0,
        False,
        "UNAVAILABLE",
        "no key of the pool could be used for too long: the upstream rejects them, or it fails",
    ),
    (Unknown("a fault of ours"), Reason.INTERNAL, 1, True, "INTERNAL", "a fault of ours"),
]


@pytest.mark.parametrize(("outcome", "reason", "attempts", "may_have_run", "code", "message"), RESULTS)
def test_the_error_of_a_call(
    outcome: Outcome | None, reason: Reason, attempts: int, may_have_run: bool, code: str, message: str
) -> None:
    """A call without a response has the code that a gRPC client would expect, and says whether it may have run."""
    detail = message if reason in (Reason.INVALID_CALL, Reason.LIMITED) and outcome is None else ""
    result = Result(0, outcome, reason, "", attempts, 0, 0, 0, detail, never_ran=not may_have_run)
    status = result_error(result)
    metadata = {"may_have_run": str(may_have_run).lower()}
    if isinstance(outcome, Answer):
        metadata["http_status"] = "200"
    assert (status.code, status.message) == (grpc.StatusCode[code].value[0], message)
    info = error_details_pb2.ErrorInfo(reason=reason.value, domain="apiflux.v1", metadata=metadata)
    assert details_of(status) == {error_details_pb2.ErrorInfo: info}


def test_every_reason_without_a_response_has_its_row() -> None:
    """The others come with an HTTP answer, which is no error of the call."""
    answered = {reason for reason in Reason if reason.value.startswith("HTTP_")} | {Reason.KEY_REJECTED}
    answered -= {Reason.HTTP_5XX}  # an example of those whose body was cut
    assert {reason for _, reason, *_ in RESULTS} == set(Reason) - answered
