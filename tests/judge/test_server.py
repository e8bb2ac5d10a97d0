"""The judge without a process: its ledger against a naive model, its options, and its HTTP on a transport in memory."""

import asyncio
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiflux_grpc.judge.answers import PIPELINE_CAP
from apiflux_grpc.judge.connection import BODY_CAP, HEAD_CAP, Connection
from apiflux_grpc.judge.judge import TICK_NS, Judge
from apiflux_grpc.judge.ledger import Ledger, Limit, most_in_any_window
from apiflux_grpc.judge.options import (
    JudgeOptions,
    KeyIn,
    parse_bind,
    parse_key_in,
    parse_keys,
    parse_latency,
    parse_limit,
)
from apiflux_grpc.judge.report import Report

SECRET = "canary-7f3a"
MINUTE = 60_000_000_000

limits = st.lists(st.builds(Limit, st.integers(1, 5), st.integers(1, 20)), max_size=3)
in_time = st.lists(st.integers(0, 8), max_size=40).map(lambda gaps: [sum(gaps[: at + 1]) for at in range(len(gaps))])
in_any_order = st.lists(st.integers(0, 60), max_size=40)


def naive_most(stamps: list[int], per_ns: int) -> int:
    """The fullest window begins, just before it, with some stamp."""
    return max((sum(first <= stamp < first + per_ns for stamp in stamps) for first in stamps), default=0)


def ledger_of(*limits: Limit) -> Ledger:
    return Ledger({"alpha": SECRET}, limits)


# --- Enforcement ------------------------------------------------------------------------------------------------------


@given(limits, in_time | in_any_order)
def test_accepts_exactly_what_fits(limits: list[Limit], stamps: list[int]) -> None:
    """An arrival is accepted if and only if no window of any limit then holds too many, told in order or not."""
    ledger = ledger_of(*limits)
    accepted: list[int] = []
    for at, now in enumerate(stamps):
        fits = all(naive_most([*accepted, now], limit.per_ns) <= limit.max for limit in limits)
        assert ledger.arrive(f"call-{at}", SECRET, 1, now).status == (200 if fits else 429)
        accepted += [now] if fits else []


@given(limits, in_time | in_any_order)
def test_reports_the_fullest_window(limits: list[Limit], stamps: list[int]) -> None:
    """The most in any window counts accepted and rejected arrivals, and is exact for every limit."""
    ledger = ledger_of(*limits)
    for at, now in enumerate(stamps):
        ledger.arrive(f"call-{at}", SECRET, 1, now)
    [key] = ledger.report().keys
    assert key.arrivals == len(stamps)
    assert [each.most for each in key.limits] == [naive_most(stamps, limit.per_ns) for limit in limits]


@given(in_any_order, st.integers(1, 30))
def test_most_in_any_window_is_exact(stamps: list[int], per_ns: int) -> None:
    """One pass over sorted stamps finds what counting every window finds."""
    assert most_in_any_window(sorted(stamps), per_ns) == naive_most(stamps, per_ns)


@given(limits.filter(bool), in_time)
def test_retry_after_is_exact(limits: list[Limit], stamps: list[int]) -> None:
    """A rejected arrival would be accepted once its wait is over, and a nanosecond sooner would not."""
    ledger = ledger_of(*limits)
    for at, now in enumerate(stamps):
        verdict = ledger.arrive(f"call-{at}", SECRET, 1, now)
        if verdict.status == 429:
            assert ledger.arrive("sooner", SECRET, 1, now + verdict.retry_after_ns - 1).status == 429
            assert ledger.arrive("then", SECRET, 1, now + verdict.retry_after_ns).status == 200
            return


def test_a_window_apart_is_not_in_one_window() -> None:
    """Two arrivals exactly T apart are never in one window; a nanosecond less, and they are."""
    ledger = ledger_of(Limit(1, MINUTE))
    assert ledger.arrive("a", SECRET, 1, 0).status == 200
    assert ledger.arrive("b", SECRET, 1, MINUTE - 1).status == 429
    assert ledger.arrive("c", SECRET, 1, MINUTE).status == 200


@pytest.mark.parametrize(("late", "status"), [(90, 200), (91, 429), (109, 429), (110, 200), (190, 200), (191, 429)])
def test_a_late_arrival_is_judged_on_both_sides(late: int, status: int) -> None:
    """An arrival told late is rejected if it shares a window with an accepted one before it or behind it."""
    ledger = ledger_of(Limit(1, 10))
    for now in (100, 200):
        ledger.arrive(f"at {now}", SECRET, 1, now)
    assert ledger.arrive("late", SECRET, 1, late).status == status


def test_keys_do_not_share_a_limit() -> None:
    """Each key has every limit to itself."""
    ledger = Ledger({"a": "1", "b": "2"}, [Limit(1, MINUTE)])
    assert [ledger.arrive(key, key, 1, 0).status for key in ("1", "2", "1")] == [200, 200, 429]
    assert ledger.counts() == {"a": (1, 1), "b": (1, 0)}


# --- The report -------------------------------------------------------------------------------------------------------


def test_a_call_seen_twice_is_a_violation() -> None:
    """A call counts as seen twice if it was accepted twice; arrivals answered 429 or 401 don't count."""
    ledger = ledger_of(Limit(3, MINUTE))
    for call_id, key, attempt, now in [
        ("once", SECRET, 1, 0),
        ("retried", "wrong", 1, 1),
        ("retried", SECRET, 2, 2),
        ("twice", SECRET, 1, 3),
        ("twice", SECRET, 2, 4),
        ("twice", SECRET, 3, 3 + MINUTE),
    ]:
        ledger.arrive(call_id, key, attempt, now)
    report = ledger.report()
    assert report.seen_twice == 1
    assert report.repeats == (("twice", (1, 3)),)
    assert "1 call arrived more than once: 'twice' (attempts 1, 3)." in report.violations


def test_a_broken_limit_and_unknown_keys_are_violations() -> None:
    """The report says in plain words which limit was broken and that unknown keys arrived."""
    ledger = ledger_of(Limit(1, MINUTE), Limit(5, MINUTE))
    for now in range(3):
        ledger.arrive(f"call-{now}", SECRET, 1, now)
    for key in ("x", "y", "x"):
        ledger.arrive("call", key, 1, 0)
    report = ledger.report(max_lag_ns=7)
    assert not report.ok
    assert report.worst == 3.0
    assert (report.arrivals, report.accepted, report.rejected) == (6, 1, 2)
    assert (report.unknown_arrivals, report.unknown_keys, report.max_lag_ns) == (3, 2, 7)
    assert report.violations == [
        "alpha: 3 arrivals within 60s, its limit is 1.",
        "3 arrivals with 2 unknown keys.",
    ]


def test_a_kept_limit_is_no_violation() -> None:
    """As many arrivals as the limit allows are fine, and so is no arrival at all."""
    ledger = ledger_of(Limit(2, MINUTE))
    assert ledger.report().ok
    ledger.arrive("a", SECRET, 1, 0)
    ledger.arrive("b", SECRET, 1, 0)
    assert ledger.report().ok
    assert ledger.report().worst == 1.0


def test_reset_forgets_everything() -> None:
    """After a reset the report is that of a new ledger, and no window is occupied."""
    ledger = ledger_of(Limit(1, MINUTE))
    for key in (SECRET, SECRET, "wrong"):
        ledger.arrive("a", key, 1, 0)
    ledger.reset()
    assert ledger.report() == ledger_of(Limit(1, MINUTE)).report()
    assert ledger.arrive("a", SECRET, 1, 0).status == 200


def test_a_report_survives_json() -> None:
    """What `to_json` tells, `from_json` understands, derived figures included."""
    ledger = ledger_of(Limit(1, MINUTE))
    for key, now in [(SECRET, 0), (SECRET, 1), ("wrong", 1), (SECRET, MINUTE)]:
        ledger.arrive("a", key, 1, now)
    report = ledger.report(max_lag_ns=3)
    data = json.loads(json.dumps(report.to_json()))
    assert Report.from_json(data) == report
    assert (data["ok"], data["worst"], data["violations"]) == (False, 2.0, report.violations)


def test_no_secret_is_shown() -> None:
    """Neither a report nor a repr shows a secret, not even one that a client put into a call's name."""
    options = JudgeOptions(keys={"alpha": SECRET, "beta": f"{SECRET}-2"}, limits=(Limit(9, MINUTE),))
    judge = Judge(options)
    for key in (SECRET, SECRET, "unknown-canary"):
        judge.ledger.arrive(f"GET /?key={SECRET}-2", key, 1, 0)
    told = f"{options!r} {judge.ledger!r} {judge.report()!r} {judge.report().to_json()} {judge.report().violations}"
    assert "canary" not in told
    assert "GET /?key=<beta>" in told


@pytest.mark.slow
def test_a_million_arrivals_fit() -> None:
    """A million arrivals take less than 200 bytes each, and the fullest window of them is still found exactly."""
    ledger = ledger_of(Limit(600_000, 600_000), Limit(1, 1))
    tracemalloc.start()
    try:
        for now in range(1_000_000):
            ledger.arrive(f"call-{now}", SECRET, 1, now)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 200_000_000
    [key] = ledger.report().keys
    assert (key.accepted, key.rejected) == (1_000_000, 0)
    assert [each.most for each in key.limits] == [600_000, 1]


# --- Options from text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parse", "text", "meaning"),
    [
        (parse_limit, "1000/60s", (1000, MINUTE)),
        (parse_limit, "10/1.5m", (10, 3 * MINUTE // 2)),
        (parse_latency, "0", (0, 0)),
        (parse_latency, "20ms", (20_000_000, 20_000_000)),
        (parse_latency, "0..5ns", (0, 5)),
        (parse_key_in, "header:X-Key", ("header", "X-Key")),
        (parse_key_in, "bearer", ("bearer", "Authorization")),
        (parse_key_in, "query:key", ("query", "key")),
        (parse_bind, "127.0.0.1:0", ("127.0.0.1", 0)),
        (parse_bind, "[::1]:8900", ("::1", 8900)),
        (parse_keys, ["a", "two=b", "YQ=="], {"key-1": "a", "two": "b", "key-3": "YQ=="}),
    ],
)
def test_options_are_read(parse: Callable[[Any], object], text: object, meaning: object) -> None:
    """Every documented form of an option has one exact meaning."""
    assert parse(text) == meaning


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((parse_limit, text) for text in ("", "10", "0/1s", "-1/1s", "1.5/1s", "10/0s", "10/60", "10/1s:cost")),
        *((parse_latency, text) for text in ("", "5", "5ms..", "..5ms", "9ms..1ms")),
        *((parse_key_in, text) for text in ("", "header", "header:", "bearer:", "cookie:key")),
        *((parse_bind, text) for text in ("", "8900", ":8900", "host:", "host:x", "host:65536")),
    ],
)
def test_a_bad_option_is_named(parse: Callable[[str], object], text: str) -> None:
    """An option that can't be read is refused with its text and the form that was expected."""
    with pytest.raises(ValueError, match=r"expected|must be|is missing|has no port|counts cost") as refused:
        parse(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize("texts", [[""], ["="], [f"={SECRET}"], [SECRET, SECRET], [f"a={SECRET}", "a=b"]])
def test_a_bad_key_is_named_by_its_place(texts: list[str]) -> None:
    """A key that can't be taken is refused without showing it."""
    with pytest.raises(ValueError, match=r"^key [12]: ") as refused:
        parse_keys(texts)
    assert SECRET not in str(refused.value)


# --- HTTP -------------------------------------------------------------------------------------------------------------


class Wire(asyncio.Transport):
    """A connection to a judge in memory; the judge's clock is `now`."""

    def __init__(self, *limits: Limit, key_in: KeyIn | None = None, latency_ns: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.now = 0
        self.sent = bytearray()
        self.half_closed = self.aborted = self.paused = False
        options = JudgeOptions({"alpha": SECRET}, limits, latency_ns=latency_ns)
        if key_in:
            options = JudgeOptions({"alpha": SECRET}, limits, key_in=key_in, latency_ns=latency_ns)
        self.judge = Judge(options, clock=lambda: self.now)
        self.connection = Connection(self.judge)
        self.connection.connection_made(self)

    def send(self, data: bytes) -> list[tuple[int, dict[str, Any]]]:
        """The answers, status and body, that come at once."""
        self.sent.clear()
        self.connection.data_received(data)
        return self.answers()

    def answers(self) -> list[tuple[int, dict[str, Any]]]:
        found, rest = [], bytes(self.sent)
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].split()[0])
            found.append((int(head.split()[1]), json.loads(rest[:size])))
            rest = rest[size:]
        return found

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def request(target: str = "/", *headers: str, method: str = "GET", key: str = SECRET) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: x", *([f"X-API-Key: {key}"] if key else []), *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def statuses(answers: list[tuple[int, dict[str, Any]]]) -> list[int]:
    return [status for status, _ in answers]


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests in one chunk get one answer each, in their order, in one write."""
    wire = Wire(Limit(1, MINUTE))
    assert statuses(wire.send(request("/a") + request("/b", key="wrong") + request("/c"))) == [200, 401, 429]


async def test_any_split_of_the_bytes_is_read_the_same() -> None:
    """Where the chunks end makes no difference to what is recorded and answered."""
    wire = Wire()
    data = request("/a", "Content-Length: 2", "X-Call-Id: one", method="POST") + b"{}" + request("/b")
    answers = [answer for at in range(len(data)) for answer in wire.send(data[at : at + 1])]
    assert answers == [(200, {"ok": True})] * 2
    assert wire.judge.report().accepted == 2


async def test_the_first_byte_is_the_arrival() -> None:
    """A request is stamped by its first byte, however late the rest of its head comes."""
    wire = Wire(Limit(1, 100))
    data = request("/a")
    wire.send(data[:1])
    wire.now = 99
    assert statuses(wire.send(data[1:])) == [200]
    wire.now = 100
    assert statuses(wire.send(request("/b"))) == [200]


async def test_a_429_says_when() -> None:
    """Retry-After is in whole seconds, rounded up."""
    wire = Wire(Limit(1, MINUTE))
    wire.send(request("/a"))
    wire.now = 1
    wire.send(request("/b"))
    assert b"\r\nRetry-After: 60\r\n" in wire.sent
    wire.now = MINUTE - 1
    wire.send(request("/c"))
    assert b"\r\nRetry-After: 1\r\n" in wire.sent


@pytest.mark.parametrize(
    ("key_in", "data"),
    [
        ("header:X-Key", request("/a?b=1", f"x-kEY: {SECRET}", key="")),
        ("bearer", request("/a?b=1", f"Authorization: bearer {SECRET}", key="")),
        ("query:key", request(f"/a?key={SECRET}&b=1", key="")),
        ("query:the key", request(f"/a?b=1&the%20key=%63{SECRET[1:]}", key="")),
    ],
)
async def test_the_key_is_found_where_it_should_be(key_in: str, data: bytes) -> None:
    """A key is read from a header, a bearer token or the query, and isn't part of the call's name."""
    wire = Wire(key_in=parse_key_in(key_in))
    assert statuses(wire.send(data + data)) == [200, 200]
    assert wire.judge.report().repeats == (("GET /a?b=1", (1, 1)),)


@pytest.mark.parametrize("headers", [[], [f"Authorization: Basic {SECRET}"], [f"Authorization: {SECRET}"]])
async def test_a_key_elsewhere_is_unknown(headers: list[str]) -> None:
    """Without a bearer token, a request to a judge that expects one has an unknown key."""
    wire = Wire(key_in=parse_key_in("bearer"))
    assert statuses(wire.send(request("/", *headers))) == [401]


async def test_call_and_attempt_are_read() -> None:
    """X-Call-Id names the call, X-Attempt its attempt; one that is no number counts as the first."""
    wire = Wire()
    for target, attempt in [("/a", "2"), ("/b", "3"), ("/c", "x"), ("/d", "9" * 5000)]:
        wire.send(request(target, "X-Call-Id: call-1", f"X-Attempt: {attempt}"))
    assert wire.judge.report().repeats == (("call-1", (2, 3, 1, 1)),)


async def test_control_endpoints_are_not_recorded() -> None:
    """Report, live and reset answer JSON and leave no arrival; another method or path is refused."""
    wire = Wire(Limit(1, MINUTE))
    wire.send(request("/a") + request("/b") + request("/c", key="wrong"))
    live = {"arrivals": 3, "unknown_arrivals": 1, "in_flight": 0, "keys": {"alpha": [1, 1]}}
    assert wire.send(request("/_judge/live")) == [(200, live)]
    [(status, told)] = wire.send(request("/_judge/report", key=""))
    assert (status, told["arrivals"]) == (200, 3)
    assert statuses(wire.send(request("/_judge/reset") + request("/_judge/nothing"))) == [405, 404]
    assert statuses(wire.send(request("/_judge/reset", method="POST"))) == [200]
    assert wire.judge.report().arrivals == 0


async def test_head_has_no_body() -> None:
    """HEAD is answered with the head that GET would get, and nothing behind it."""
    wire = Wire()
    wire.connection.data_received(request("/a", method="HEAD"))
    assert wire.sent.startswith(b"HTTP/1.1 200 ")
    assert wire.sent.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        request("/a", "Connection: close"),
        request("/a", "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
        request("/a", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
        request("x:1", method="CONNECT"),
    ],
)
async def test_a_last_answer_says_so(data: bytes) -> None:
    """Where the connection won't be used again the answer says close, and what comes behind is ignored."""
    wire = Wire()
    assert statuses(wire.send(data + request("/b"))) == [200]
    assert b"Connection: close\r\n" in wire.sent
    assert wire.half_closed
    assert wire.send(request("/c")) == []
    assert wire.judge.report().arrivals == 1


@pytest.mark.looptime
async def test_bad_http_is_refused() -> None:
    """What isn't HTTP gets a 400, is no arrival, and is cut off a moment later."""
    wire = Wire()
    assert statuses(wire.send(b"\x16\x03\x01\x02\x00 hello")) == [400]
    assert (wire.half_closed, wire.aborted) == (True, False)
    await asyncio.sleep(2)
    assert wire.aborted
    assert wire.judge.report().arrivals == 0


@pytest.mark.parametrize("length", [f"Content-Length: {BODY_CAP + 1}", "Transfer-Encoding: chunked"])
async def test_a_huge_body_is_refused(length: str) -> None:
    """A body above the cap gets a 413 as soon as it is too large; the request did arrive."""
    wire = Wire()
    begin = b"%x\r\n" % (BODY_CAP + 1) if "chunked" in length else b""
    assert wire.send(request("/a", length, method="POST") + begin + bytes(BODY_CAP)) == []
    assert statuses(wire.send(bytes(1))) == [413]
    assert wire.send(bytes(99)) == []
    assert wire.judge.report().arrivals == 1


async def test_a_huge_head_is_refused() -> None:
    """A head that doesn't end is refused above its cap; large bodies before it don't count."""
    wire = Wire()
    body = bytes(HEAD_CAP + 1)
    data = request("/a", f"Content-Length: {len(body)}", method="POST") + body
    assert statuses(wire.send(data + b"GET /b HTTP/1.1\r\nA: ")) == [200]
    assert wire.send(b"b" * HEAD_CAP) == []
    assert statuses(wire.send(b"b")) == [431]


@pytest.mark.looptime
async def test_latency_keeps_the_order() -> None:
    """Answers take a time within the range, leave in the order of the requests, and are in flight until then."""
    wire = Wire(Limit(2, MINUTE), latency_ns=(10_000_000, 50_000_000))
    assert wire.send(b"".join(request(f"/{at}") for at in range(4))) == []
    assert wire.judge.in_flight == 4
    await asyncio.sleep(0.009)
    assert wire.answers() == []
    await asyncio.sleep(0.042)
    assert statuses(wire.answers()) == [200, 200, 429, 429]
    assert wire.judge.in_flight == 0


@pytest.mark.looptime
async def test_nothing_overtakes_a_waiting_answer() -> None:
    """A control request or bad HTTP behind a call isn't answered before the call is."""
    wire = Wire(latency_ns=(10_000_000, 10_000_000))
    assert wire.send(request("/a", key="wrong") + request("/_judge/nothing") + b"bad HTTP\r\n\r\n") == []
    await asyncio.sleep(0.02)
    assert statuses(wire.answers()) == [401, 404, 400]


@pytest.mark.looptime
async def test_a_lost_connection_is_no_longer_in_flight() -> None:
    """When a client goes, its waiting answers go with it."""
    wire = Wire(latency_ns=(10_000_000, 10_000_000))
    wire.send(request("/a") + request("/b"))
    wire.connection.connection_lost(None)
    assert wire.judge.in_flight == 0
    await asyncio.sleep(1)
    assert wire.sent == b""
    assert wire.judge.in_flight == 0


@pytest.mark.looptime
async def test_a_half_closed_client_gets_its_answer() -> None:
    """A client that sends its end early still gets the answers that it waits for."""
    wire = Wire(latency_ns=(10_000_000, 10_000_000))
    wire.send(request("/a"))
    assert wire.connection.eof_received()
    await asyncio.sleep(0.02)
    assert statuses(wire.answers()) == [200]
    assert wire.half_closed


@pytest.mark.looptime
async def test_a_client_that_reads_nothing_is_not_read() -> None:
    """Too many waiting answers, or a full transport, stop the reading until there is room again."""
    wire = Wire(latency_ns=(10_000_000, 10_000_000))
    seen = []
    wire.send(request("/a") * PIPELINE_CAP)
    seen.append(wire.paused)
    await asyncio.sleep(0.02)
    seen.append(wire.paused)
    wire.connection.pause_writing()
    seen.append(wire.paused)
    wire.connection.resume_writing()
    seen.append(wire.paused)
    assert seen == [True, False, True, False]


def test_lag_is_the_worst_lateness() -> None:
    """Lag is how far the loop fell behind its next tick at worst, a stall that still lasts included."""
    wire = Wire()
    wire.now = TICK_NS + 5
    assert wire.judge.report().max_lag_ns == 5
    wire.judge.lag.reset()
    assert wire.judge.report().max_lag_ns == 0
