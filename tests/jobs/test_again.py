"""Which calls are sent again: by their line as it is now, by what became of them, and by what was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2

from apiflux_grpc.client.accounts import unknown_result
from apiflux_grpc.core.rules import CallRule
from apiflux_grpc.jobs.again import Again, flags_of
from apiflux_grpc.jobs.job import Job
from apiflux_grpc.jobs.known import HANDED
from apiflux_grpc.jobs.rows import Kept
from apiflux_grpc.v1 import apiflux_pb2 as pb

POST = pb.Call(method="POST", path="/v1/chat/x")
GET = pb.Call(path="/v1/x")
SUCCEEDED = Kept(0, False)
ANSWERED = Kept(0, True)
TIMEOUT, UNKNOWN, CUT = (Kept(0, True, reason) for reason in ("TIMEOUT", "UNKNOWN", "BODY_CUT"))
OTHER = Kept(0, True, "INTERNAL")


def again(failed: bool = False, unknown: bool = False) -> Again:
    return Again(Job(Path("calls"), "127.0.0.1:1", retry_failed=failed, retry_unknown=unknown))


@pytest.mark.parametrize(
    ("result", "by_failed", "by_unknown"),
    [
        # For a POST and a GET each.
        (SUCCEEDED, (False, False), (False, False)),
        (ANSWERED, (True, True), (False, False)),
        (TIMEOUT, (False, True), (True, True)),
        (UNKNOWN, (False, True), (True, True)),
        (CUT, (False, True), (True, True)),
        (OTHER, (False, True), (False, False)),
    ],
)
def test_a_result_makes_room_if_it_is_asked_for(
    result: Kept, by_failed: tuple[bool, bool], by_unknown: tuple[bool, bool]
) -> None:
    """--retry-failed is for every failure whose call may be sent again, --retry-unknown for those without an answer."""
    flags = flags_of(result)
    calls = (POST, GET)
    assert tuple(again().replaces(flags, call) for call in calls) == (False, False)
    assert tuple(again(failed=True).replaces(flags, call) for call in calls) == by_failed
    assert tuple(again(unknown=True).replaces(flags, call) for call in calls) == by_unknown
    either = tuple(one or other for one, other in zip(by_failed, by_unknown, strict=True))
    assert tuple(again(failed=True, unknown=True).replaces(flags, call) for call in calls) == either


def test_the_line_decides_and_else_the_pool() -> None:
    """What a call says of itself comes before its pool's rules, and those before its method."""
    one = again()
    assert (one.may_run_twice(GET), one.may_run_twice(POST)) == (True, False)
    assert one.may_run_twice(pb.Call(method="DELETE"))
    assert not one.may_run_twice(pb.Call(path="/v1/x", idempotent=False))
    one.rules = [CallRule(methods=("POST",), paths=("/v1/chat/",))]
    assert one.may_run_twice(POST)
    assert not one.may_run_twice(pb.Call(method="POST", path="/v1/other"))
    assert not one.may_run_twice(pb.Call(method="POST", path="/v1/chat/x", idempotent=False))
    assert one.may_run_twice(pb.Call(method="PATCH", path="/v1/other", idempotent=True))


@pytest.mark.parametrize(("unknown", "sent"), [(False, (False, True)), (True, (True, True))])
def test_without_a_result_it_goes_if_it_may_run_twice_or_somebody_looked(
    unknown: bool, sent: tuple[bool, bool]
) -> None:
    """Each is counted and told, if this run comes to it: those that may run twice, those that go though they must not
    run twice, and those that don't go."""
    one = again(failed=True, unknown=unknown)
    for call in (POST, GET, GET):
        one.count_handed(HANDED, call, has_turn=True)
    assert list(one.words()) == [
        "2 calls without a result are sent again: they may run twice",
        *["1 call without a result is sent again"] * unknown,
    ]
    if unknown:
        one.count_handed(HANDED, POST, has_turn=False)
    one.count_handed(HANDED, GET, has_turn=False)
    assert tuple(one.is_sent(HANDED, idempotent) for idempotent in (False, True)) == sent
    assert (one.repeated, one.handed, one.doubtful) == ((2, 1, 0) if unknown else (2, 0, 1))


def test_what_waits_for_its_line_is_not_one_without_a_result() -> None:
    """Through a pipe an INTERNAL failure is no call that --retry-unknown is for, though its result is out."""
    flags = flags_of(OTHER) | HANDED
    one = again(failed=True, unknown=True)
    assert (one.is_candidate(flags), one.needs_its_line(flags)) == (True, True)
    assert (one.is_sent(flags, False), one.is_sent(flags, True)) == (False, True)
    assert not one.needs_its_line(flags_of(TIMEOUT))
    assert again(failed=True).needs_its_line(flags_of(TIMEOUT))


def refused(reason: str, may_have_run: str) -> pb.CallResult:
    result = pb.CallResult()
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, metadata={"may_have_run": may_have_run}))
    result.error.details.append(detail)
    return result


def test_what_is_not_sent_again_is_counted_with_its_reason() -> None:
    """Of earlier runs and of this one; what --retry-failed is for isn't in doubt."""
    one = again()
    assert one.why_not == ""
    for _ in range(1_990):
        one.leave(flags_of(UNKNOWN), POST)
    for result in (SUCCEEDED, ANSWERED, TIMEOUT):
        one.leave(flags_of(result), GET)
    assert one.failed == 2
    one.met(unknown_result(0, "", "why"), False)
    one.met(refused("TIMEOUT", "true"), False)
    one.met(refused("TIMEOUT", "true"), True)
    one.met(refused("NOT_SENT", "false"), False)
    one.met(pb.CallResult(failure=pb.REASON_HTTP_5XX, response=pb.HttpResponse(status_code=500)), False)
    text = "1,992 calls may have run and must not run twice: --retry-unknown sends them again"
    assert one.why_not == text
    one.leave(flags_of(OTHER), POST)
    assert one.why_not.startswith(f"{text}; 1 call may have run before it failed: ")
