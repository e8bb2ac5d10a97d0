"""What a caller hears of a wrong request: the path of the field, and a text that says what to do.

One row for every text, and a guard that reads the texts from the source and finds one without a row.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

import apiflux_grpc
from apiflux_grpc.core.checks import MOST_FAULTS, MOST_REASONS, Checks
from apiflux_grpc.core.errors import BatchTooLarge, InvalidRequest
from apiflux_grpc.core.model import Counts, Key, Limit, Pool, QueryKey, RetryPolicy
from apiflux_grpc.core.outcome import Reason
from apiflux_grpc.core.rules import CostOfCall
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.server.calls import check_call
from apiflux_grpc.server.checking import Checking, StreamChecking, check_estimate
from apiflux_grpc.v1 import apiflux_pb2 as pb

LIMITS = (Limit(1000, SECOND), Limit(90, SECOND, Counts.COST))
POOL = Pool(
    "main",
    (Key("key-1", "secret", LIMITS),),
    timeout=30 * SECOND,
    allow_repeat=True,
    retry=RetryPolicy(max_attempts=4, initial_backoff=SECOND // 5, max_backoff=10 * SECOND),
)
NARROW = replace(POOL, allow_paths=("/v1/", "/v2/"))
QUERY = replace(POOL, key_in=QueryKey("api_key"))
STRICT = replace(POOL, allow_repeat=False)
MOST_CALLS, MOST_BYTES = 5, 1000
Row = tuple[object, str, str]

NOT_A_METHOD = "is not a method that can be sent"
HEADER_VALUE = "has a control or non-ASCII character; use printable ASCII and tabs"
ALMOST_DOTS = 'has a "." or ".." beside an escaped slash or a semicolon, which may lead elsewhere'
DOTS = 'has a "." or ".." segment; give the path that it leads to'
URL = "looks like a whole URL; give the part that follows the pool's base URL"
CORRELATION_ID = "must be at most 128 printable ASCII characters without spaces"
REASONS = "BODY_CUT, HTTP_5XX, KEY_REJECTED, LIMITED, NOT_SENT, TIMEOUT, UNKNOWN"
SPLIT = "Split it, or use ProcessStream, which takes a batch of any length"


def seconds(value: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(value * SECOND))
    return duration


def repeat(count: int = 1, **template: str) -> pb.RepeatedCall:
    return pb.RepeatedCall(count=count, template=pb.Call(**template))  # type: ignore[arg-type]  # all of them are texts


def header(name: str, value: str) -> pb.Header:
    return pb.Header(name=name, value=value)


def parameter(name: str) -> pb.QueryParameter:
    return pb.QueryParameter(name=name, value="a")


def retry(*reasons: int) -> pb.RetryPolicy:
    return pb.RetryPolicy(reasons=reasons)  # type: ignore[arg-type]  # unknown numbers can come, and types hide it


# A wrong call; the field is named from the call.
CALLS: list[Row] = [
    (pb.Call(id="x" * 257), "id", "has 257 bytes; use at most 256"),
    (pb.Call(id="\N{GRINNING FACE}" * 65), "id", "has 260 bytes; use at most 256"),
    (pb.Call(method="get"), "method", f"'get' {NOT_A_METHOD}; did you mean 'GET'?"),
    (pb.Call(method="connect"), "method", f"'connect' {NOT_A_METHOD}; use one such as GET or POST"),
    (pb.Call(method="TRACE"), "method", f"'TRACE' {NOT_A_METHOD}; use one such as GET or POST"),
    (pb.Call(method="X" * 40), "method", f"'{'X' * 32}' {NOT_A_METHOD}; use one such as GET or POST"),
    (pb.Call(path="/a?b=c"), "path", 'has "?" or "#"; put parameters into `query`, and leave out fragments'),
    (pb.Call(path="/é#a"), "path", 'has "?" or "#"; put parameters into `query`, and leave out fragments'),
    (pb.Call(path="/a%2"), "path", "has a % without two hex digits after it; write a percent sign as %25"),
    (pb.Call(path="%zz"), "path", "has a % without two hex digits after it; write a percent sign as %25"),
    (pb.Call(path="/a b"), "path", "has ' ', which must be percent-encoded"),
    (pb.Call(path="/%20/\n"), "path", r"has '\n', which must be percent-encoded"),
    (pb.Call(path="//host/a"), "path", 'begins with "//", which names a host; begin it with one "/"'),
    (pb.Call(path="http://host/a"), "path", URL),
    (pb.Call(path="a:b"), "path", URL),
    (pb.Call(path="../a"), "path", DOTS),
    (pb.Call(path="/a/."), "path", DOTS),
    (pb.Call(path="/a/%2E%2e/b"), "path", DOTS),
    (pb.Call(path="/a/.%2e"), "path", DOTS),
    (
        pb.Call(headers=[header("a b", "")]),
        "headers[0].name",
        "'a b' is not a header name; use A-Z, a-z, 0-9, !#$%&'*+-.^_`|~",
    ),
    (pb.Call(headers=[header("Host", "a")]), "headers[0].name", "'Host' is set by the service; remove it"),
    (
        pb.Call(headers=[header("Authorization", "a")]),
        "headers[0].name",
        "'Authorization' is set by the service; remove it",
    ),
    (pb.Call(headers=[header("x-api-KEY", "a")]), "headers[0].name", "'x-api-KEY' is set by the service; remove it"),
    (pb.Call(headers=[header("A", "a\r\nb")]), "headers[0].value", HEADER_VALUE),
    (pb.Call(headers=[header("A", "é")]), "headers[0].value", HEADER_VALUE),
    (pb.Call(timeout=seconds(0)), "timeout", "is 0 s; set more than 0 and at most 30 s"),
    (pb.Call(timeout=seconds(30.5)), "timeout", "is 30.5 s; set more than 0 and at most 30 s"),
    (pb.Call(cost=-1), "cost", "is -1; set 0 or more"),
    (pb.Call(cost=91), "cost", "is 91; no key of this pool takes more than 90 at once"),
]

# A wrong call for a pool that is unlike the others.
CALLS_OF_POOLS: list[tuple[Pool, pb.Call, str, str]] = [
    (NARROW, pb.Call(path="/v3/a"), "path", "is not allowed: paths of pool 'main' start with /v1/, /v2/"),
    (NARROW, pb.Call(path="v10/a"), "path", "is not allowed: paths of pool 'main' start with /v1/, /v2/"),
    (NARROW, pb.Call(), "path", "is not allowed: paths of pool 'main' start with /v1/, /v2/"),
    (NARROW, pb.Call(path="/v1/../a"), "path", DOTS),
    (NARROW, pb.Call(path="/v1/..%2fa"), "path", ALMOST_DOTS),
    (NARROW, pb.Call(path="/v1/..;/a"), "path", ALMOST_DOTS),
    (
        QUERY,
        pb.Call(query=[parameter("a"), parameter("api_key")]),
        "query[1].name",
        "is 'api_key', which carries the pool's key; remove it",
    ),
    (
        replace(POOL, cost=CostOfCall(("max_tokens",), 0.5)),
        pb.Call(body=b'{"max_tokens": 82}'),
        "cost",
        "is 91 (max_tokens + 0.5 per byte of the body); no key of this pool takes more than 90 at once",
    ),
]

# Wrong options of a batch, of both kinds of request.
OPTIONS: list[Row] = [
    (pb.ProcessStreamOpen(priority=4), "priority", "is 4; set -3 to 3"),
    (pb.ProcessStreamOpen(priority=-4), "priority", "is -4; set -3 to 3"),
    (pb.ProcessStreamOpen(correlation_id="a b"), "correlation_id", CORRELATION_ID),
    (pb.ProcessStreamOpen(correlation_id="a" * 129), "correlation_id", CORRELATION_ID),
    (
        pb.ProcessStreamOpen(expected_calls=-1),
        "expected_calls",
        "is -1; set 1 to 1000000000000, or 0 if it isn't known",
    ),
    (pb.RetryPolicy(max_attempts=5), "retry.max_attempts", "is 5; this pool allows 1 to 4"),
    (pb.RetryPolicy(max_attempts=-1), "retry.max_attempts", "is -1; this pool allows 1 to 4"),
    (pb.RetryPolicy(initial_backoff=seconds(0)), "retry.initial_backoff", "is 0 s; set 0.001 to 60 s"),
    (pb.RetryPolicy(initial_backoff=seconds(0.0009)), "retry.initial_backoff", "is 0.0009 s; set 0.001 to 60 s"),
    (pb.RetryPolicy(max_backoff=seconds(0.1)), "retry.max_backoff", "is 0.1 s; set 0.2 (the initial) to 60 s"),
    (pb.RetryPolicy(max_backoff=seconds(61)), "retry.max_backoff", "is 61 s; set 0.2 (the initial) to 60 s"),
    (retry(pb.REASON_TIMEOUT, pb.REASON_HTTP_4XX), "retry.reasons[1]", f"'HTTP_4XX' is not one of {REASONS}"),
    (retry(pb.REASON_UNSPECIFIED), "retry.reasons[0]", f"'0' is not one of {REASONS}"),
    (retry(pb.REASON_TIMEOUT, 99), "retry.reasons[1]", f"'99' is not one of {REASONS}"),
    (retry(*[99] * (MOST_REASONS + 1)), "retry.reasons", f"has {MOST_REASONS + 1}; use at most {MOST_REASONS}"),
]

# A request that is wrong as a whole.
REQUESTS: list[Row] = [
    (pb.ProcessRequest(), "calls", "is empty; give at least one call, or `repeat`"),
    (
        pb.ProcessRequest(calls=[pb.Call(id="a"), pb.Call(id="b"), pb.Call(id="a")]),
        "calls[2].id",
        "'a' is used twice in this batch; give each call its own",
    ),
    (pb.ProcessRequest(calls=[pb.Call()] * 6), "calls", f"has 6 calls; a batch has at most 5. {SPLIT}"),
    (
        pb.ProcessRequest(calls=[pb.Call(body=bytes(1000))]),
        "calls",
        f"makes a request of 1006 bytes; a batch has at most 1000. {SPLIT}",
    ),
    (pb.ProcessRequest(calls=[pb.Call()], repeat=repeat()), "repeat", "conflicts with `calls`; set one of them"),
    (pb.ProcessRequest(repeat=repeat(-1)), "repeat.count", "is -1; set 1 or more, or 0 for the default"),
    (pb.ProcessRequest(repeat=repeat(6)), "repeat.count", "is 6; a batch has at most 5 calls"),
    (
        pb.ProcessRequest(repeat=repeat(id="a")),
        "repeat.template.id",
        "must be empty, because ids are unique in a batch",
    ),
    (pb.ProcessRequest(repeat=repeat(path="..")), "repeat.template.path", DOTS),
]

ESTIMATES: list[Row] = [
    (pb.EstimateRequest(calls=0), "calls", "is 0; set 1 to 1000000000000"),
    (pb.EstimateRequest(calls=10**12 + 1), "calls", "is 1000000000001; set 1 to 1000000000000"),
    (pb.EstimateRequest(calls=1, cost_per_call=-1), "cost_per_call", "is -1; set 0 or more"),
    (
        pb.EstimateRequest(calls=1, cost_per_call=91),
        "cost_per_call",
        "is 91; no key of this pool takes more than 90 at once",
    ),
]

# These need more than one message or a pool of their own; each has a test below.
REPEAT_REFUSED = ("repeat", "is for synthetic load; pool 'main' needs allow_repeat = true for it")
ID_IN_USE = ("calls[1].id", "'a' is that of a call without a result yet; give each its own")
# And these an RPC: tests/server/test_process_stream.py.
OPEN_MISSING = ("open", "is missing; send it in the first message")
OPEN_AGAIN = ("open", "came again; send it in the first message alone")
NO_MESSAGE = ("request", "can't be decoded; send a message of this method's type")
MISSING = ("request", "is missing; send a message of this method's type")
TOO_LARGE = ("request", "has 1048578 bytes; use at most 1048576")  # test_request_costs.py
ALONE = (REPEAT_REFUSED, ID_IN_USE, OPEN_MISSING, OPEN_AGAIN, NO_MESSAGE, MISSING, TOO_LARGE)


def faults(request: pb.ProcessRequest, pool: Pool = POOL) -> list[tuple[str, str]]:
    """All that is wrong with a request; nothing: []."""
    checking = Checking(request, pool, "caller", default_repeat=2, max_calls=MOST_CALLS, max_bytes=MOST_BYTES)
    try:
        for _ in checking.slices():
            pass
    except InvalidRequest as error:
        return [tuple(violation) for violation in error.violations]  # type: ignore[misc]  # each is a pair
    return []


def ids(row: object) -> str | None:
    """Rows are named by their text."""
    return row if isinstance(row, str) else ""


@pytest.mark.parametrize(("call", "field", "text"), CALLS, ids=ids)
def test_what_is_wrong_with_a_call(call: pb.Call, field: str, text: str) -> None:
    """The fault names its field from the batch, and the other calls of the batch are found right."""
    assert faults(
        pb.ProcessRequest(
            calls=[pb.Call(), call],
        )
    ) == [(f"calls[1].{field}", text)]


@pytest.mark.parametrize(("pool", "call", "field", "text"), CALLS_OF_POOLS, ids=ids)
def test_what_a_pool_forbids(pool: Pool, call: pb.Call, field: str, text: str) -> None:
    """Paths outside `allow_paths`, and the parameter that carries the key, are refused by their own pool alone."""
    assert faults(pb.ProcessRequest(calls=[call]), pool) == [(f"calls[0].{field}", text)]
    assert text == DOTS or faults(pb.ProcessRequest(calls=[call])) == []


@pytest.mark.parametrize("path", ["/v1/a", "v2/a", "/v1/"])
def test_paths_that_a_pool_allows(path: str) -> None:
    """With and without the leading "/"."""
    assert faults(pb.ProcessRequest(calls=[pb.Call(path=path)]), NARROW) == []


@pytest.mark.parametrize(("options", "field", "text"), OPTIONS, ids=ids)
def test_what_is_wrong_with_the_options_of_a_batch(
    options: pb.ProcessStreamOpen | pb.RetryPolicy, field: str, text: str
) -> None:
    """The same of a request and of a stream, if both have the option; a stream's are in `open`."""
    if isinstance(options, pb.RetryPolicy):
        options = pb.ProcessStreamOpen(retry=options)
    request = pb.ProcessRequest(calls=[pb.Call()], priority=options.priority, correlation_id=options.correlation_id)
    if options.HasField("retry"):
        request.retry.CopyFrom(options.retry)
    if not options.expected_calls:
        assert faults(request) == [(field, text)]
    with pytest.raises(InvalidRequest) as caught:
        StreamChecking(options, POOL).spec("caller")
    assert caught.value.violations == ((f"open.{field}", text),)


@pytest.mark.parametrize(("request_", "field", "text"), REQUESTS, ids=ids)
def test_what_is_wrong_with_a_batch(request_: pb.ProcessRequest, field: str, text: str) -> None:
    """No calls, too many, ids that aren't unique, and what `repeat` may not be."""
    assert faults(request_) == [(field, text)]


def test_a_batch_over_the_maximum_has_a_reason_of_its_own() -> None:
    """BATCH_TOO_LARGE, with every maximum that it is over, and before any call is looked at."""
    request = pb.ProcessRequest(calls=[pb.Call(path="..", body=bytes(300))] * 6)
    checking = Checking(request, POOL, "caller", default_repeat=2, max_calls=MOST_CALLS, max_bytes=MOST_BYTES)
    with pytest.raises(BatchTooLarge) as caught:
        next(checking.slices())
    assert [field for field, _ in caught.value.violations] == ["calls", "calls"]


@pytest.mark.parametrize(("request_", "field", "text"), ESTIMATES, ids=ids)
def test_what_is_wrong_with_an_estimate(request_: pb.EstimateRequest, field: str, text: str) -> None:
    """The same bounds as those of a batch."""
    with pytest.raises(InvalidRequest) as caught:
        check_estimate(request_, POOL)
    assert caught.value.violations == ((field, text),)


def test_repeat_where_the_pool_does_not_allow_it() -> None:
    """Synthetic load on a real upstream needs its owner's word."""
    assert faults(pb.ProcessRequest(repeat=repeat()), STRICT) == [REPEAT_REFUSED]


def test_a_header_may_be_repeated() -> None:
    """Repeats are the caller's, in any case of letters."""
    assert (
        faults(pb.ProcessRequest(calls=[pb.Call(headers=[header("A", "1"), header("a", "2"), header("A", "1")])])) == []
    )


def test_an_id_of_a_stream_is_free_again_after_its_result() -> None:
    """Until then another call with it is wrong, and the first keeps it."""
    checking = StreamChecking(pb.ProcessStreamOpen(), POOL)
    good, wrong, _ = checking.take([pb.Call(id="a"), pb.Call(id="a")])
    assert [index for index, _, _ in good] == [0]
    assert wrong == [(1, ": ".join(ID_IN_USE))]
    assert (checking.name(1), checking.name(0)) == ("", "a")
    good, wrong, _ = checking.take([pb.Call(id="a")])
    assert ([index for index, _, _ in good], wrong) == ([2], [])


def test_a_strict_stream_refuses_a_message_as_a_whole() -> None:
    """With every fault of the message."""
    checking = StreamChecking(pb.ProcessStreamOpen(strict=True), POOL)
    with pytest.raises(InvalidRequest) as caught:
        checking.take([pb.Call(path=".."), pb.Call(), pb.Call(cost=-1)])
    assert [field for field, _ in caught.value.violations] == ["calls[0].path", "calls[2].cost"]


def test_the_faults_of_a_request_are_told_in_its_order() -> None:
    """Those of the calls in their order, then those of the options."""
    request = pb.ProcessRequest(
        calls=[pb.Call(path="..", method="get", cost=-1), pb.Call(), pb.Call(id="x" * 300)], priority=9
    )
    assert [field for field, _ in faults(request)] == [
        "calls[0].method",
        "calls[0].path",
        "calls[0].cost",
        "calls[2].id",
        "priority",
    ]


BAD = header("b d", "\0")


@pytest.mark.parametrize(
    ("calls", "more"),
    [
        ([pb.Call(path="..")] * MOST_CALLS * MOST_FAULTS, (MOST_CALLS - 1) * MOST_FAULTS),
        ([pb.Call(headers=[BAD] * 10_000)] * 3, 2 * MOST_FAULTS),  # of one call only so many are looked for
    ],
    ids=["calls", "headers"],
)
def test_a_request_with_millions_of_faults_is_as_cheap_as_one(calls: list[pb.Call], more: int) -> None:
    """The first are told, and the others counted: a client can make faults faster than we can name them."""
    checking = Checking(
        pb.ProcessRequest(calls=calls), POOL, "caller", default_repeat=2, max_calls=len(calls), max_bytes=1 << 30
    )
    with pytest.raises(InvalidRequest) as caught:
        list(checking.slices())
    assert (len(caught.value.violations), caught.value.more) == (MOST_FAULTS, more)


def test_a_parameter_that_is_wrong_again_and_again_is_told_so_often() -> None:
    """As a header."""
    found = check_call(Checks(QUERY), pb.Call(query=[parameter("api_key")] * 10_000))
    assert len(found) == MOST_FAULTS


def test_a_retry_policy_is_the_pool_s_where_the_caller_says_nothing() -> None:
    """A caller narrows the pool's policy: fewer attempts, fewer reasons, never more."""

    def policy(asked: pb.RetryPolicy, pool: Pool = POOL) -> RetryPolicy:
        return StreamChecking(pb.ProcessStreamOpen(retry=asked), pool).spec("caller").retry

    assert StreamChecking(pb.ProcessStreamOpen(), POOL).spec("caller").retry == POOL.retry
    assert policy(pb.RetryPolicy()) == POOL.retry
    assert policy(pb.RetryPolicy(max_attempts=1)) == replace(POOL.retry, max_attempts=1)
    assert policy(pb.RetryPolicy(initial_backoff=seconds(20))) == replace(
        POOL.retry, initial_backoff=20 * SECOND, max_backoff=20 * SECOND
    )
    only = replace(POOL, retry=replace(POOL.retry, reasons=frozenset({Reason.TIMEOUT})))
    assert policy(retry(pb.REASON_TIMEOUT, pb.REASON_LIMITED), only).reasons == {Reason.TIMEOUT}
    assert policy(retry(pb.REASON_LIMITED), only).reasons == frozenset()


# -- the guard -----------------------------------------------------------------------------------


def sources() -> Iterator[Path]:
    root = Path(apiflux_grpc.__file__).parent
    yield root / "core" / "checks.py"
    yield from sorted((root / "server").glob("*.py"))


def pattern(node: ast.expr) -> str:
    """A text of the source as a pattern: whatever it fills in may be anything."""
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value))
    assert isinstance(node, ast.JoinedStr), f"line {node.lineno}: a fault's text stands in the call that makes it"
    return "".join(re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".*" for part in node.values)


def texts() -> list[tuple[str, str]]:
    """A pattern for each field and text that a Fault is made with; a field that is no literal may be any."""
    trees = [ast.parse(path.read_text()) for path in sources()]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    made = [node.args for node in nodes if isinstance(node.func, ast.Name) and node.func.id == "Fault"]
    return [(".*" if isinstance(field, ast.Name) else pattern(field), pattern(text)) for field, text in made]


def says(found: tuple[str, str], row: tuple[str, str]) -> bool:
    return bool(re.fullmatch(rf"(.*\.)?{found[0]}", row[0]) and re.fullmatch(found[1], row[1]))


def test_every_text_has_its_row() -> None:
    """What the source can say and no row here shows is found, and so is a row that nothing says any more.

    Nothing else can be said: InvalidRequest takes faults alone, which mypy sees to.
    """
    rows = {
        (row[-2], row[-1]) for table in (CALLS, CALLS_OF_POOLS, OPTIONS, REQUESTS, ESTIMATES, ALONE) for row in table
    }
    found = texts()
    assert [each for each in found if not any(says(each, row) for row in rows)] == []
    assert [row for row in rows if not any(says(each, row) for each in found)] == []
