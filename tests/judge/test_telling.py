"""Every dialect tells what is left of a key's limits, on success and on refusal, as its API does."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from apiflux_grpc.judge.dialects import DIALECTS
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.telling import go_duration
from tests.judge.wires import MINUTE, SECOND, Wire, request

CALLS = Limit(3, 10 * SECOND)
COST = Limit(500, MINUTE, "cost")


def told(wire: Wire, *headers: str, key: str | None = None) -> tuple[int, dict[str, str], Any]:
    """The status of a call's answer, its headers with names in lower case, and its body."""
    wire.send(request("/a", *headers) if key is None else request("/a", *headers, key=key))
    head, _, body = bytes(wire.sent).decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), fields, json.loads(body)


# The judge's date is half a second past 1_000_000_000, which is 2001-09-09 01:46:40; times are rounded up.
SAID: Mapping[str, tuple[dict[str, str], dict[str, str]]] = {
    "ietf": (
        {
            "ratelimit-policy": '"requests-10s";q=3;w=10, "tokens-60s";q=500;qu="tokens";w=60',
            "ratelimit": '"requests-10s";r=1;t=9, "tokens-60s";r=480;t=59',
        },
        {"ratelimit": '"requests-10s";r=0;t=8, "tokens-60s";r=470;t=58', "retry-after": "8"},
    ),
    "openai": (
        {
            "x-ratelimit-limit-requests": "3",
            "x-ratelimit-remaining-requests": "1",
            "x-ratelimit-reset-requests": "10s",
            "x-ratelimit-limit-tokens": "500",
            "x-ratelimit-remaining-tokens": "480",
            "x-ratelimit-reset-tokens": "1m0s",
        },
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9.5s", "retry-after": "8"},
    ),
    "anthropic": (
        {
            "anthropic-ratelimit-requests-limit": "3",
            "anthropic-ratelimit-requests-remaining": "1",
            "anthropic-ratelimit-requests-reset": "2001-09-09T01:46:51Z",
            "anthropic-ratelimit-tokens-limit": "500",
            "anthropic-ratelimit-tokens-remaining": "480",
            "anthropic-ratelimit-input-tokens-remaining": "480",
            "anthropic-ratelimit-output-tokens-reset": "2001-09-09T01:47:41Z",
        },
        {"anthropic-ratelimit-requests-remaining": "0", "retry-after": "8"},
    ),
    "github": (
        {
            "x-ratelimit-limit": "3",
            "x-ratelimit-remaining": "1",
            "x-ratelimit-used": "2",
            "x-ratelimit-reset": "1000000010",
            "x-ratelimit-resource": "core",
        },
        {"x-ratelimit-remaining": "0", "x-ratelimit-used": "3"},
    ),
}


@pytest.mark.parametrize("dialect", SAID)
def test_what_is_left_is_told(dialect: str) -> None:
    """A success tells what is left after its own call, a refusal that nothing is, with the status of its API."""
    limits = (CALLS,) if dialect == "github" else (CALLS, COST)
    wire = Wire(*limits, headers=dialect)
    told(wire, "X-Cost: 10")
    wire.now += SECOND
    status, fields, _ = told(wire, "X-Cost: 10")
    success, refusal = SAID[dialect]
    assert (status, {name: fields[name] for name in success}) == (200, success)
    assert fields["date"] == "Sun, 09 Sep 2001 01:46:40 GMT"
    wire.now += SECOND // 2
    told(wire, "X-Cost: 10")
    wire.now += SECOND // 2
    status, fields, body = told(wire)
    assert (status, {name: fields[name] for name in refusal}) == (DIALECTS[dialect].status, refusal)
    assert ("retry-after" in fields) == (dialect != "github")
    assert "{max}" not in str(body)


def test_a_refusal_has_the_body_of_its_api() -> None:
    """What clients look for in a refused answer's body is there, with the words of the limit."""
    bodies = {}
    for dialect in SAID:
        wire = Wire(Limit(1, MINUTE), headers=dialect)
        told(wire)
        bodies[dialect] = told(wire)[2]
    assert bodies["ietf"]["violated-policies"] == ["requests-60s"]
    assert bodies["openai"]["error"]["code"] == "rate_limit_exceeded"
    assert bodies["openai"]["error"]["type"] == "requests"
    assert bodies["anthropic"]["error"]["type"] == "rate_limit_error"
    assert bodies["github"]["message"].startswith("API rate limit exceeded")


def test_a_secondary_limit_is_not_told() -> None:
    """GitHub tells its primary limit alone; over another one it answers 429 with Retry-After."""
    wire = Wire(Limit(1, SECOND), Limit(9, MINUTE), headers="github")
    assert told(wire)[1]["x-ratelimit-remaining"] == "8"
    status, fields, body = told(wire)
    assert (status, fields["retry-after"], fields["x-ratelimit-remaining"]) == (429, "1", "8")
    assert "secondary" in body["message"]


def test_a_primary_limit_is_one_that_can_be_told() -> None:
    """GitHub has no word for cost: a limit of it is a secondary one, however long its period is."""
    wire = Wire(Limit(9, SECOND), Limit(20, MINUTE, "cost"), headers="github")
    assert told(wire, "X-Cost: 20")[1]["x-ratelimit-limit"] == "9"
    assert (told(wire)[0], told(Wire(Limit(1, MINUTE, "cost"), headers="github"))[0]) == (429, 200)


def test_of_limits_with_one_header_the_tightest_is_told() -> None:
    """Where several limits count the same and only one can be told, it is the one with the smallest share left."""
    wire = Wire(Limit(10, SECOND), Limit(12, MINUTE), headers="openai")
    assert told(wire)[1]["x-ratelimit-limit-requests"] == "10"
    wire.now += SECOND
    told(wire)
    assert told(wire)[1]["x-ratelimit-limit-requests"] == "12"


@pytest.mark.parametrize("dialect", ["ietf", "openai", "github"])
def test_of_a_bucket_what_it_holds_is_the_limit(dialect: str) -> None:
    """What remains is out of its depth: of more than the told limit nothing could be left."""
    fields = told(Wire(Limit(10, SECOND, kind="bucket", depth=20), headers=dialect))[1]
    limit, left = {
        "ietf": ("ratelimit-policy", "ratelimit"),
        "openai": ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"),
        "github": ("x-ratelimit-limit", "x-ratelimit-remaining"),
    }[dialect]
    assert "20" in fields[limit]
    assert "19" in fields[left]


def test_policies_have_names_of_their_own() -> None:
    """Two limits of one unit and period are two policies; a period that is no whole second isn't told."""
    wire = Wire(Limit(9, SECOND), Limit(8, SECOND, "calls", "fixed"), Limit(7, SECOND // 2), headers="ietf")
    policy = told(wire)[1]["ratelimit-policy"]
    assert policy == '"requests-1s";q=9;w=1, "requests-1s-2";q=8;w=1, "requests-500ms";q=7'


def test_nothing_is_told_of_an_unknown_key() -> None:
    """A 401 has no limits, and without a dialect no answer tells any."""
    assert not [name for name in told(Wire(CALLS, headers="ietf"), key="wrong")[1] if "rate" in name]
    assert not [name for name in told(Wire(CALLS))[1] if "rate" in name or name == "date"]


@pytest.mark.looptime
async def test_an_injected_answer_tells_limits_too() -> None:
    """A fault that is an answer tells what is left, as real APIs' errors do."""
    wire = Wire(CALLS, headers="ietf")
    await wire.exchange(request("/a", fault="503"))
    assert b'\r\nRateLimit: "requests-10s";r=2;t=10\r\n' in wire.sent


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        *(
            (0, "0s"),
            (1, "1ms"),
            (12_000_000, "12ms"),
            (1_500_000_000, "1.5s"),
            (SECOND, "1s"),
            (59_999 * 10**6, "59.999s"),
        ),
        *((6 * MINUTE, "6m0s"), (3602 * SECOND, "1h0m2s"), (61 * SECOND + 1, "1m1.001s")),
    ],
)
def test_go_writes_durations_so(ns: int, text: str) -> None:
    """A length of time is written as Go prints it, in milliseconds, rounded up."""
    assert go_duration(ns) == text
