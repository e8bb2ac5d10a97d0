"""What the contract's messages become for who reads them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from apiflux_grpc.client import Held, Info, Result
from apiflux_grpc.v1 import apiflux_pb2 as pb


def test_headers_are_read_by_name_and_none_is_lost() -> None:
    """A repeated one reads as one joined value, and all are there as they came."""
    pairs = [("set-cookie", "a=1"), ("date", "now"), ("set-cookie", "b=2")]
    headers = [pb.Header(name=name, value=value) for name, value in pairs]
    response = Result.of(pb.CallResult(response=pb.HttpResponse(status_code=200, headers=headers))).response
    assert response is not None
    assert (response.headers["date"], response.headers.get("etag", "-")) == ("now", "-")
    assert response.headers["set-cookie"] == "a=1, b=2"
    assert list(response.headers.pairs) == pairs


def test_enums_are_words() -> None:
    """Bare and upper case for a failure, lower case for what describes a server; "" where nothing is said."""
    answered = pb.HttpResponse(status_code=429)
    assert Result.of(pb.CallResult(response=answered, failure=pb.REASON_LIMITED)).failure == "LIMITED"
    assert Result.of(pb.CallResult(response=answered)).ok
    limits = [pb.Limit(max=1, counts=pb.LIMIT_COUNTS_COST), pb.Limit(max=2, paths=["/search/"])]
    pool = pb.PoolInfo(upstream=pb.UPSTREAM_KIND_HTTP, keys=[pb.KeyInfo(limits=limits)])
    info = Info.of(pb.GetInfoResponse(mode=pb.MODE_TEST, pools=[pool]))
    assert (info.mode, info.pools[0].upstream) == ("test", "http")
    assert info.pools[0].keys[0].limits == ((1, 0.0, "cost", ()), (2, 0.0, "", ("/search/",)))


def test_a_value_that_is_not_known_yet_is_a_failure_too() -> None:
    """A newer server may say more than this client knows: its number stands for the word."""
    newer = pb.CallResult.FromString(
        pb.CallResult(response=pb.HttpResponse(status_code=200)).SerializeToString() + b"P\x63"
    )
    assert (Result.of(newer).failure, Result.of(newer).ok) == ("99", False)


def test_what_holds_calls_back_is_one_line_for_people() -> None:
    """How many keys if it is more than one, and the end by the wall's clock, unless the reason says it."""
    until = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
    message = pb.Held(cause=pb.HELD_CAUSE_LIMITED, reason="429 with Retry-After: 12 s", keys=["a", "b"], key_count=7)
    message.until.FromDatetime(until)
    held = Held.of(message)
    assert (held.cause, held.until, held.keys) == ("LIMITED", until, ("a", "b"))
    assert str(held) == f"7 keys: 429 with Retry-After: 12 s, until {until.astimezone():%H:%M:%S}"
    assert str(replace(held, key_count=1, until=None)) == "429 with Retry-After: 12 s"
    assert replace(held, wait=3.0) == replace(held, wait=2.0)  # the same reason, told later
    spent = replace(held, cause="SPENT", reason="10/60s of 2 keys", key_count=2, until=None)
    assert str(spent) == "waiting for 10/60s of 2 keys"
    failing = replace(held, cause="UPSTREAM_FAILING", reason="upstream failing; next try in 8 s", key_count=0)
    assert str(failing) == "upstream failing; next try in 8 s"
