"""A request says which call it is and what it costs; it is an arrival whether its body ends or not."""

import json

import pytest

from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.places import CostIn
from tests.judge.wires import MINUTE, SECOND, Wire, request, statuses

COST = Limit(100, MINUTE, "cost")
MAX_TOKENS = CostIn("json", "options.max_tokens")


def post(body: str, *headers: str, target: str = "/ask") -> bytes:
    return request(target, f"Content-Length: {len(body)}", *headers, method="POST") + body.encode()


def test_different_bodies_are_different_calls() -> None:
    """Without X-Call-Id calls are told apart by method, target and body; the same body again is the same call."""
    wire = Wire()
    wire.send(post("one") + post("two") + request("/ask", method="POST") + post("one"))
    report = wire.judge.report()
    assert (report.accepted, report.seen_twice, report.resent) == (4, 1, 1)
    [repeat] = report.repeats
    assert repeat.call_id.startswith("POST /ask #")
    assert len(wire.judge.ledger.calls()) == 3


def test_an_id_goes_before_a_body() -> None:
    """With X-Call-Id the body doesn't matter: one id is one call, two are two."""
    wire = Wire()
    wire.send(post("one", "X-Call-Id: a") + post("two", "X-Call-Id: a") + post("one", "X-Call-Id: b"))
    assert wire.judge.ledger.calls() == {"a": 2, "b": 1}


def test_a_body_in_pieces_is_one_body() -> None:
    """Where a body's chunks end makes no difference to which call it is."""
    wire = Wire()
    wire.send(post("a body"))
    for byte in post("a body"):
        wire.send(bytes([byte]))
    assert wire.judge.report().resent == 1


@pytest.mark.parametrize("cost_in", [CostIn("header", "X-Cost"), MAX_TOKENS])
def test_a_body_that_never_ends_is_an_arrival(cost_in: CostIn) -> None:
    """A client that goes within its body did arrive, at the cost that was known, and spends the limit."""
    wire = Wire(Limit(1, MINUTE), COST, cost_in=cost_in)
    wire.send(post("{}")[:-1])
    wire.abort()
    report = wire.judge.report()
    assert (report.accepted, wire.judge.ledger.calls()) == (1, {"POST /ask": 1})


@pytest.mark.looptime
async def test_a_body_that_is_refused_is_an_arrival() -> None:
    """A body that is too large is refused, and its request did arrive, once."""
    wire = Wire()
    data = request("/ask", f"Content-Length: {9 << 20}", method="POST")
    assert statuses(wire.send(data + b"x" * (2 << 20))) == [413]
    wire.abort()
    assert wire.judge.ledger.calls() == {"POST /ask": 1}


@pytest.mark.parametrize(
    ("header", "cost"),
    [("X-Cost: 7", 7), ("X-Cost: 6.2", 7), ("X-Cost: 0", 0), ("X-Cost: -1", 1), ("X-Cost: nan", 1), ("X-Else: 7", 1)],
)
def test_cost_in_a_header(header: str, cost: int) -> None:
    """A call's cost is read from its header, rounded up; what can't be read is 1. The answer tells it twice."""
    wire = Wire(COST)
    [(status, body)] = wire.send(request("/a", header))
    assert (status, json.loads(body)) == (200, {"ok": True, "usage": {"total_tokens": cost}})
    assert f"\r\nX-Cost: {cost}\r\n".encode() in wire.sent
    assert wire.judge.ledger.left("canary-0b9e", 0)[0].remaining == 100 - cost


@pytest.mark.parametrize(
    ("body", "cost"),
    [
        ('{"options": {"max_tokens": 60}}', 60),
        ('{"options": {"max_tokens": 6.5}}', 7),
        ('{"options": {"max_tokens": true}}', 1),
        ('{"options": {"max_tokens": "6"}}', 1),
        ('{"options": []}', 1),
        ("[" * 100_000, 1),
        ("no JSON", 1),
    ],
)
def test_cost_in_a_body(body: str, cost: int) -> None:
    """A call's cost is read from a field of its JSON body; where there is no number, it is 1."""
    wire = Wire(COST, cost_in=MAX_TOKENS)
    [(status, answer)] = wire.send(post(body))
    assert (status, json.loads(answer)["usage"]["total_tokens"]) == (200, cost)


def test_a_body_with_a_cost_is_judged_by_its_first_byte() -> None:
    """Where the decision waits for the body, it is still made as of the first byte."""
    wire = Wire(Limit(100, SECOND, "cost"), cost_in=MAX_TOKENS)
    data = post('{"options": {"max_tokens": 60}}')
    assert statuses(wire.send(data)) == [200]
    wire.now = SECOND - 1
    wire.send(data[:1])
    wire.now = SECOND
    assert statuses(wire.send(data[1:])) == [429]
    assert statuses(wire.send(data)) == [200]


def test_a_cost_is_only_told_where_it_counts() -> None:
    """Without a limit of cost nothing is read and nothing is told."""
    wire = Wire(Limit(9, MINUTE))
    assert wire.send(request("/a", "X-Cost: 7")) == [(200, b'{"ok":true}')]
    assert b"X-Cost" not in wire.sent


def test_what_never_fits_is_refused() -> None:
    """A call that costs more than its limit is refused, whatever is left."""
    wire = Wire(COST)
    assert statuses(wire.send(request("/a", "X-Cost: 101"))) == [429]
    assert b"\r\nRetry-After: 60\r\n" in wire.sent


def test_somebody_else_spends_the_limit() -> None:
    """Others' calls are told in headers, and the report puts our refusals down to them; a reset forgets them."""
    wire = Wire(Limit(10, 10 * SECOND), headers="openai", others=0.5)
    wire.now = 10 * SECOND
    wire.send(request("/a"))
    assert b"\r\nx-ratelimit-remaining-requests: 4\r\n" in wire.sent
    wire.send(b"".join(request(f"/{at}") for at in range(6)))
    report = wire.judge.report()
    assert (report.accepted, report.rejected, report.others, report.rejected_for_others) == (
        5,
        2,
        5 * 2,
        2,
    )  # of two keys
    assert report.ok
    wire.judge.control(b"POST", b"/_judge/reset")
    assert wire.judge.report().others == 0
    wire.now += 2 * SECOND
    assert wire.judge.report().others == 2
