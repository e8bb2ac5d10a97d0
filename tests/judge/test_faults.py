"""The judge's faults: their names, who suffers them, what they put on the wire, and what the report says of it."""

import asyncio
import io
import json
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import client as http
from typing import Any, TypeVar

import pytest

from apiflux_grpc.judge.answers import PIPELINE_CAP
from apiflux_grpc.judge.chance import Faults, scripted
from apiflux_grpc.judge.connection import Connection
from apiflux_grpc.judge.faults import (
    ELSEWHERE,
    Chance,
    Fault,
    Rejection,
    parse_chances,
    parse_fault,
    parse_rejections,
    parse_script,
)
from apiflux_grpc.judge.judge import Judge
from apiflux_grpc.judge.ledger import Ledger, Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.judge.report import Report
from apiflux_grpc.judge.showing import print_report
from apiflux_grpc.judge.wire import GARBAGE

try:
    import uvloop
except ImportError:  # it is an extra
    LOOPS = [asyncio.new_event_loop]
else:
    LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]

SECRET = "canary-0b9e"
BETA = "canary-c7d1"
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
RST = struct.pack("ii", 1, 0)
T = TypeVar("T")

# --- Faults from text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("500", Fault("500")),
        ("503;retry-after=2", Fault("503", retry_after=2)),
        (" 429 ; retry-date=-2 ", Fault("429", retry_after=-2, as_date=True)),
        ("ok", Fault("ok")),
        ("hang", Fault("hang")),
        ("redirect", Fault("redirect", to=ELSEWHERE)),
        ("redirect;to=https://other.example:8443/a?b=c", Fault("redirect", to="https://other.example:8443/a?b=c")),
        ("cut;size=10", Fault("cut", size=10)),
        ("slow;size=3;every=20ms", Fault("slow", size=3, every_ns=20_000_000)),
        ("huge;size=2MiB", Fault("huge", size=2 << 20)),
    ],
)
def test_a_fault_is_read(text: str, fault: Fault) -> None:
    """Every documented form of a fault has one exact meaning."""
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        *("", "200", "600", "430", "teapot", "500;", "500;retry-after", "500;retry-after=2s", "500;retry-after=-1"),
        *("500;size=1", "hang;size=1", "cut;every=1s", "huge;size=0", "huge;size=1MB", "slow;every=1"),
        *("redirect;to=other.example", "redirect;to=http://a b", "redirect;to=http://a\r\nX: y", "429;retry-date=soon"),
    ],
)
def test_a_bad_fault_is_named(text: str) -> None:
    """A fault that can't be read is refused with its text and what was expected."""
    with pytest.raises(ValueError, match="expected") as refused:
        parse_fault(text)
    assert repr(text) in str(refused.value)


def test_chances_are_read() -> None:
    """The probability stands behind the last `=`, so that parameters may stand before it."""
    assert parse_chances(["500=0.01", "slow;size=9=0.5"]) == (
        Chance(Fault("500"), 0.01),
        Chance(Fault("slow", size=9, every_ns=SECOND // 10), 0.5),
    )


@pytest.mark.parametrize("text", ["500", "=0.1", "500=", "500=0", "500=1.1", "500=-1", "500=nan", "500=x", "no=0.1"])
def test_a_bad_chance_is_named_by_its_place(text: str) -> None:
    """A chance that can't be read is refused with its position."""
    with pytest.raises(ValueError, match=r"^fault 2: .*expected"):
        parse_chances(["hang=0.1", text])


def test_chances_are_at_most_one_together() -> None:
    """Probabilities that sum up to more than 1 are refused; a sum is taken without its rounding errors."""
    assert len(parse_chances(["500=0.8", *["hang=0.05"] * 4])) == 5
    with pytest.raises(ValueError, match=r"fault 2: expected probabilities of at most 1 together, not 1\.1"):
        parse_chances(["500=0.6", "hang=0.5"])


def test_rejections_are_read() -> None:
    """A rejection is a span since the start or a number of calls, for a label that may contain `=`."""
    texts = ["a=2s..5s", "b=x=0..1m", "a=3"]
    assert parse_rejections(texts, ["a", "b=x"]) == (
        Rejection("a", from_ns=2 * SECOND, until_ns=5 * SECOND),
        Rejection("b=x", until_ns=MINUTE),
        Rejection("a", first=3),
    )


@pytest.mark.parametrize("text", ["", "a", "a=", "b=3", "=3", "a=0", "a=x", "a=5s", "a=5s..2s", "a=..5s", "a=2s.."])
def test_a_bad_rejection_is_named_by_its_place(text: str) -> None:
    """A rejection that can't be read, or of a label that no key has, is refused with its position."""
    with pytest.raises(ValueError, match=r"^rejection 2: .*expected LABEL="):
        parse_rejections(["a=1", text], ["a"])


def test_a_rejection_of_no_key_is_refused() -> None:
    """Options that reject a key which isn't configured are a mistake."""
    with pytest.raises(ValueError, match="rejections: 'beta' is the label of no key"):
        JudgeOptions({"alpha": SECRET}, rejections=(Rejection("beta", first=1),))


# --- Who suffers what -------------------------------------------------------------------------------------------------


def test_a_script_has_a_fault_for_each_arrival() -> None:
    """The nth arrival of a call gets the nth fault, and the last fault is for all that come after."""
    assert [scripted("500, hang,ok", nth).kind for nth in (1, 2, 3, 4)] == ["500", "hang", "ok", "ok"]
    assert parse_script("503;retry-after=1") == (Fault("503", retry_after=1),)


def test_chance_keeps_its_probabilities() -> None:
    """Each fault befalls its share of the arrivals, those of other faults left out."""
    faults = Faults(parse_chances(["500=0.1", "hang=0.02"]))
    drawn = Counter(fault and fault.kind for fault in (faults.drawn(f"call-{at}", 1) for at in range(20_000)))
    assert 1_900 < drawn["500"] < 2_100
    assert 340 < drawn["hang"] < 460
    assert drawn.total() == 20_000
    assert drawn[None] == 20_000 - drawn["500"] - drawn["hang"]


def test_chance_depends_on_seed_call_and_arrival_alone() -> None:
    """The same seed has the same fault for an arrival whatever came before; another seed or arrival another."""
    names = [(f"call-{at}", nth) for at in range(100) for nth in (1, 2)]

    def draw(seed: int, names: list[tuple[str, int]]) -> dict[tuple[str, int], bool]:
        faults = Faults([Chance(Fault("500"), 0.5)], seed=seed)
        return {name: faults.drawn(*name) is not None for name in names}

    assert draw(1, names) == draw(1, names[::-1])
    assert draw(1, names) != draw(2, names)
    firsts, seconds = ([hit for (_, nth), hit in draw(1, names).items() if nth == which] for which in (1, 2))
    assert firsts != seconds
    assert len({*firsts}) == 2
    assert draw(-1, names)  # any integer is a seed


def test_a_certain_fault_is_certain() -> None:
    """With probability 1 every arrival has the fault; with none, no arrival has one."""
    always, never = Faults([Chance(Fault("500"), 1.0)]), Faults()
    assert {always.drawn(str(at), 1) for at in range(1000)} == {Fault("500")}
    assert {never.drawn(str(at), 1) for at in range(10)} == {None}


def test_a_span_is_half_open() -> None:
    """A key is rejected from the first instant of a span, and no longer at its end; other keys aren't."""
    faults = Faults(rejections=parse_rejections(["a=2s..5s", "a=2"], ["a"]))
    assert [faults.rejects("a", 3, at) for at in (2 * SECOND - 1, 2 * SECOND, 5 * SECOND - 1, 5 * SECOND)] == [
        *(False, True, True, False)
    ]
    assert [faults.rejects("a", nth, 0) for nth in (1, 2, 3)] == [True, True, False]
    assert not faults.rejects("b", 1, 3 * SECOND)


# --- The report -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrivals", "resent"),
    [
        ([("500", 0), ("", 0)], 0),
        ([("500", 1), ("hang", 2), ("", 3)], 0),
        ([("", 1), ("", 2)], 1),
        ([("500", 1), ("", 1)], 1),
        ([("500", 0), ("", 0), ("", 0)], 1),
        ([("500", 1), ("", 2), ("500", 3), ("", 4)], 1),
    ],
)
def test_a_retry_is_no_resend(arrivals: list[tuple[str, int]], resent: int) -> None:
    """A call that comes again after a fault, as a new attempt, was retried; any other that comes again was resent."""
    ledger = Ledger({"alpha": SECRET}, [])
    for now, (kind, attempt) in enumerate(arrivals):
        ledger.arrive("call", SECRET, attempt, now)
        if kind:
            ledger.fault("call", SECRET, kind)
    report = ledger.report()
    assert (report.seen_twice, report.resent) == (1, resent)
    assert report.ok == (not resent)


def test_examples_are_of_resent_calls() -> None:
    """A violation names calls that were resent, not those that were retried; without any, examples are retries."""
    ledger = Ledger({"alpha": SECRET}, [])
    for call_id in ("retried", "resent"):
        ledger.arrive(call_id, SECRET, 0, 0)
    ledger.fault("retried", SECRET, "500")
    ledger.arrive("retried", SECRET, 2, 0)
    assert ledger.report().repeats == (("retried", (1, 2)),)
    ledger.arrive("resent", SECRET, 0, 0)
    assert ledger.report().violations == ["1 call arrived more than once: 'resent' (attempts 1, 1)."]
    assert ledger.report().seen_twice == 2


def test_arrivals_are_told_by_call() -> None:
    """For each call the judge knows how often it arrived, refused arrivals included, and shows no secret."""
    ledger = Ledger({"alpha": SECRET}, [Limit(2, MINUTE)])
    for call_id, key in [("a", SECRET), ("a", SECRET), ("a", SECRET), ("b", "wrong"), (SECRET, SECRET)]:
        ledger.arrive(call_id, key, 1, 0)
    assert ledger.calls() == {"a": 3, "b": 1, "<alpha>": 1}
    ledger.reset()
    assert ledger.calls() == {}


def test_a_report_with_faults_survives_json() -> None:
    """Faults are told by key and kind, summed up, and printed."""
    ledger = Ledger({"alpha": SECRET, "beta": "b"}, [])
    for key, kind in [(SECRET, "500"), (SECRET, "hang"), ("b", "500")]:
        ledger.arrive("call", key, 0, 0)
        ledger.fault("call", key, kind)
    ledger.arrive("call", "b", 0, 0)
    ledger.arrive("call", "b", 0, 0)
    report = ledger.report()
    assert [key.faults for key in report.keys] == [{"500": 1, "hang": 1}, {"500": 1}]
    assert report.faults == {"500": 2, "hang": 1}
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert (report.resent, report.to_json()["faults"]) == (1, {"500": 2, "hang": 1})
    file = io.StringIO()
    print_report(report, file)
    assert "2 500, 1 hang" in file.getvalue()


# --- On a transport in memory -----------------------------------------------------------------------------------------


class Wire(asyncio.Transport):
    """A connection to a judge in memory; the judge's clock is `now`, its date half a second past 10^9."""

    def __init__(self, *limits: Limit, **options: Any) -> None:
        super().__init__()
        self.now = 0
        self.sent = bytearray()
        self.half_closed = self.aborted = False
        self.options: list[tuple[int, int, bytes]] = []
        keys = {"alpha": SECRET, "beta": BETA}
        self.judge = Judge(JudgeOptions(keys, limits, **options), lambda: self.now, lambda: 1e9 + 0.5)
        self.connection = Connection(self.judge)
        self.connection.connection_made(self)

    async def send(self, data: bytes) -> list[tuple[int, bytes]]:
        """The answers, status and body, that came by the time nothing more happens within 20 ms."""
        self.sent.clear()
        self.connection.data_received(data)
        await asyncio.sleep(0.02)
        return answers(bytes(self.sent))

    async def ask(self, method: str, what: str) -> tuple[int, Any]:
        [(status, body)] = await self.send(request(f"/_judge/{what}", method=method))
        return status, json.loads(body)

    @property
    def faults(self) -> dict[str, int]:
        return self.judge.report().faults

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def setsockopt(self, level: int, name: int, value: bytes) -> None:
        self.options.append((level, name, value))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.aborted
        self.sent += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            self.connection.connection_lost(None)

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def answers(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split()[0])
        found.append((int(head.split()[1]), data[:size]))
        data = data[size:]
    return found


def request(target: str = "/", fault: str = "", *headers: str, method: str = "GET", key: str = SECRET) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: x", f"X-API-Key: {key}", *headers]
    return "\r\n".join([*lines, *([f"X-Judge-Fault: {fault}"] if fault else []), "", ""]).encode()


def statuses(answers: list[tuple[int, bytes]]) -> list[int]:
    return [status for status, _ in answers]


@pytest.mark.looptime
@pytest.mark.parametrize("status", [401, 429, 500, 503])
@pytest.mark.parametrize(
    ("parameter", "field"),
    [
        ("", b""),
        (";retry-after=2", b"\r\nRetry-After: 2\r\n"),
        (";retry-date=2", b"\r\nRetry-After: Sun, 09 Sep 2001 01:46:43 GMT\r\n"),
        (";retry-date=-2", b"\r\nRetry-After: Sun, 09 Sep 2001 01:46:39 GMT\r\n"),
    ],
)
async def test_a_status(status: int, parameter: str, field: bytes) -> None:
    """A status is answered whole, with Retry-After only as asked for, and the connection goes on."""
    wire = Wire()
    assert statuses(await wire.send(request("/a", f"{status}{parameter}"))) == [status]
    assert field in wire.sent
    assert (b"Retry-After" in wire.sent) == bool(field)
    assert statuses(await wire.send(request("/b"))) == [200]
    assert wire.faults == {str(status): 1}


@pytest.mark.looptime
async def test_a_redirect() -> None:
    """A redirect is a 302 to the address that was given, or else to another host."""
    wire = Wire()
    assert statuses(await wire.send(request("/a", "redirect;to=http://127.0.0.2:8/x"))) == [302]
    assert b"\r\nLocation: http://127.0.0.2:8/x\r\n" in wire.sent
    await wire.send(request("/b", "redirect"))
    assert f"\r\nLocation: {ELSEWHERE}\r\n".encode() in wire.sent


@pytest.mark.looptime
async def test_a_hang() -> None:
    """A call that hangs gets no byte and is in flight until its client goes; what comes behind it is recorded."""
    wire = Wire()
    assert await wire.send(request("/a") + request("/b", "hang") + request("/c")) == [(200, b'{"ok":true}')]
    await asyncio.sleep(3600)
    assert (len(answers(bytes(wire.sent))), wire.judge.in_flight, wire.judge.report().arrivals) == (1, 2, 3)
    assert not wire.connection.eof_received()  # so the transport closes
    wire.abort()
    assert wire.judge.in_flight == 0
    assert not wire.judge.connections


@pytest.mark.looptime
async def test_a_hang_whose_client_has_gone() -> None:
    """A hang that begins when its client has sent its end doesn't keep the connection; what is before is answered."""
    wire = Wire(latency_ns=(SECOND, SECOND))
    wire.connection.data_received(request("/a") + request("/b", "hang"))
    assert wire.connection.eof_received()
    await asyncio.sleep(2)
    assert statuses(answers(bytes(wire.sent))) == [200]
    assert wire.aborted
    assert wire.judge.in_flight == 0


@pytest.mark.looptime
async def test_a_hang_that_is_flooded_ends() -> None:
    """A client that sends without end behind a hang is cut off: it could not be read any more."""
    wire = Wire()
    seen = []
    for data in (request("/a", "hang") + request("/b") * (PIPELINE_CAP - 1), request("/c")):
        await wire.send(data)
        seen.append(wire.aborted)
    assert seen == [False, True]
    assert wire.judge.in_flight == 0


@pytest.mark.looptime
async def test_a_slow_body() -> None:
    """A slow body comes byte by byte and is whole in the end; what is behind it waits."""
    wire = Wire()
    wire.connection.data_received(request("/a", "slow;size=5;every=1s"))
    await asyncio.sleep(0.5)
    wire.connection.data_received(request("/b"))
    begin = len(wire.sent)
    seen = []
    for _ in range(6):
        await asyncio.sleep(1)
        seen.append(len(wire.sent) - begin)
    assert seen[:4] == [1, 2, 3, 4]
    assert answers(bytes(wire.sent)) == [(200, b"xxxxx"), (200, b'{"ok":true}')]
    assert wire.judge.in_flight == 0


@pytest.mark.looptime
async def test_a_huge_body() -> None:
    """A huge body isn't written faster than it is read, and is whole in the end."""
    wire = Wire()
    wire.connection.data_received(request("/a", "huge;size=1000001"))
    wire.connection.pause_writing()
    await asyncio.sleep(1)
    stalled = len(wire.sent)
    assert stalled < 200
    wire.connection.resume_writing()
    await asyncio.sleep(1)
    [(status, body)] = answers(bytes(wire.sent))
    assert (status, len(body)) == (200, 1_000_001)
    assert (wire.judge.in_flight, wire.half_closed) == (0, False)


@pytest.mark.looptime
async def test_the_last_answer_of_a_connection_may_be_a_fault() -> None:
    """Where the client asks for close, a status or a whole body says so and the connection ends behind it."""
    for fault in ("500", "slow;size=2", "huge;size=2"):
        wire = Wire()
        await wire.send(request("/a", fault, "Connection: close") + request("/b"))
        await asyncio.sleep(0.5)
        assert b"\r\nConnection: close\r\n" in wire.sent
        assert len(answers(bytes(wire.sent))) == 1
        assert wire.half_closed


@pytest.mark.looptime
@pytest.mark.parametrize("fault", ["cut", "cut-chunked", "cut-reset", "slow", "huge"])
async def test_head_has_no_body(fault: str) -> None:
    """HEAD gets the head that GET would get and nothing behind it; the connection goes on."""
    wire = Wire()
    wire.connection.data_received(request("/a", fault, method="HEAD"))
    await asyncio.sleep(0.2)
    assert wire.sent.endswith(b"\r\n\r\n")
    assert wire.sent.count(b"\r\n\r\n") == 1
    assert statuses(await wire.send(request("/b"))) == [200]


@pytest.mark.looptime
async def test_faults_keep_the_order() -> None:
    """Faults take the judge's latency, leave in the order of the requests, and nothing comes behind a cut."""
    wire = Wire(latency_ns=(10_000_000, 50_000_000))
    data = [request("/a"), request("/b", "500"), request("/c", "slow;size=9;every=1ms"), request("/d", key="wrong")]
    wire.connection.data_received(b"".join([*data, request("/e", "cut;size=10"), request("/f")]))
    await asyncio.sleep(0.2)
    whole, _, cut = bytes(wire.sent).rpartition(b"HTTP/1.1 ")
    assert statuses(answers(whole)) == [200, 500, 200, 401]
    assert cut.endswith(b"\r\n\r\nxxxxx")
    assert wire.half_closed
    assert (wire.judge.in_flight, wire.judge.report().arrivals) == (0, 5)


@pytest.mark.looptime
async def test_a_reset_takes_nothing_but_the_fault() -> None:
    """A reset sets the linger time to nothing and aborts; it leaves nothing in flight."""
    wire = Wire()
    await wire.send(request("/a", "reset"))
    assert wire.options == [(socket.SOL_SOCKET, socket.SO_LINGER, RST)]
    assert (wire.aborted, bytes(wire.sent), wire.judge.in_flight) == (True, b"", 0)


@pytest.mark.looptime
@pytest.mark.parametrize("fault", ["hang", "slow", "huge", "cut-reset", "reset-in-head", "500"])
@pytest.mark.parametrize("moment", [0.0, 0.005, 0.15])
async def test_a_client_may_vanish_at_any_moment(fault: str, moment: float) -> None:
    """When a client goes, its fault goes with it: nothing is written, nothing is in flight, no timer counts twice."""
    wire = Wire(latency_ns=(2_000_000, 2_000_000))
    wire.connection.data_received(request("/a", fault) + request("/b") * 3)
    await asyncio.sleep(moment)
    wire.abort()
    await asyncio.sleep(10)
    assert wire.judge.in_flight == 0
    assert not wire.judge.connections


# --- By header, by rejection, by chance -------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_a_script_is_counted_per_call() -> None:
    """Each call has its own place in its list of faults; header lines are one list."""
    wire = Wire()
    seen = [
        (await wire.send(request("/", "500", f"X-Call-Id: {call}", "X-Judge-Fault: 503,429")))[0][0]
        for call in ("a", "a", "b", "a", "b", "a")
    ]
    assert seen == [503, 429, 503, 500, 429, 500]
    assert wire.faults == {"503": 2, "429": 2, "500": 2}


@pytest.mark.looptime
async def test_only_what_was_accepted_suffers() -> None:
    """An arrival over its limit or with an unknown key gets its honest answer, and keeps its place in the list."""
    wire = Wire(Limit(1, MINUTE), faults=(Chance(Fault("503"), 1.0),))
    assert statuses(await wire.send(request("/a", "500,418", key="wrong"))) == [401]
    assert statuses(await wire.send(request("/a", "500,418"))) == [500]
    assert statuses(await wire.send(request("/a", "500,418"))) == [429]
    wire.now = MINUTE
    assert statuses(await wire.send(request("/a", "500,418"))) == [418]
    report = wire.judge.report()
    assert (report.arrivals, report.accepted, report.rejected, report.unknown_arrivals) == (4, 2, 1, 1)
    assert report.faults == {"500": 1, "418": 1}


@pytest.mark.looptime
async def test_what_decides() -> None:
    """The call's header goes before a rejection, a rejection before chance; `ok` is no fault and none is counted."""
    wire = Wire(faults=(Chance(Fault("503"), 1.0),), rejections=(Rejection("alpha", first=9),))
    assert statuses(await wire.send(request("/a", "500") + request("/b") + request("/c", key=BETA))) == [500, 401, 503]
    assert statuses(await wire.send(request("/d", "ok") + request("/e", "ok", key=BETA))) == [200, 200]
    assert [key.faults for key in wire.judge.report().keys] == [{"500": 1, "401": 1}, {"503": 1}]


@pytest.mark.looptime
async def test_chance_is_drawn_for_each_arrival() -> None:
    """By chance some arrivals fail and others don't, the same ones with the same seed."""

    async def run(seed: int) -> list[int]:
        wire = Wire(faults=parse_chances(["500=0.3"]), seed=seed)
        return statuses(await wire.send(b"".join(request(f"/{at}") for at in range(100))))

    first = await run(7)
    assert 15 < first.count(500) < 45
    assert first.count(200) == 100 - first.count(500)
    assert await run(7) == first
    assert await run(8) != first


@pytest.mark.looptime
async def test_a_key_is_rejected_for_a_while() -> None:
    """A key's span is counted from the judge's start, by the arrival's stamp; a reset starts it again."""
    wire = Wire(rejections=parse_rejections(["alpha=2s..5s", "beta=1"], ["alpha", "beta"]))
    seen = []
    for now in (0, 2, 4, 5):
        wire.now = now * SECOND
        seen += statuses(await wire.send(request(f"/{now}") + request(f"/b{now}", key=BETA)))
    assert seen == [200, 401, 401, 200, 401, 200, 200, 200]
    assert (await wire.ask("POST", "reset"))[0] == 200
    wire.now = 7 * SECOND
    assert statuses(await wire.send(request("/") + request("/b", key=BETA))) == [401, 401]


@pytest.mark.looptime
async def test_a_key_is_rejected_on_command() -> None:
    """A key is rejected from one command until the other, or a reset; nobody commands over a key there isn't."""
    wire = Wire()
    assert [(await wire.ask("POST", f"reject/{label}"))[0] for label in ("%61lpha", "gamma", "")] == [200, 404, 404]
    assert [(await wire.ask(*what))[0] for what in (("GET", "accept/alpha"), ("POST", "reset/x"))] == [405, 404]
    assert statuses(await wire.send(request("/a") + request("/b", key=BETA))) == [401, 200]
    await wire.ask("POST", "accept/alpha")
    assert statuses(await wire.send(request("/c"))) == [200]
    await wire.ask("POST", "reject/beta")
    assert await wire.ask("GET", "calls") == (200, {"GET /a": 1, "GET /b": 1, "GET /c": 1})
    await wire.ask("POST", "reset")
    assert statuses(await wire.send(request("/d", key=BETA))) == [200]


@pytest.mark.looptime
async def test_a_bad_script_is_said() -> None:
    """A header that can't be read gets a 400 that names it, and counts as that; the judge goes on."""
    wire = Wire()
    [(status, body)] = await wire.send(request("/a", "500,teapot"))
    assert (status, wire.faults) == (400, {"400": 1})
    assert b"X-Judge-Fault: 'teapot' is no fault" in body


@pytest.mark.looptime
async def test_a_fault_is_counted_once_its_request_is_whole() -> None:
    """A request that never ends did arrive, but nothing was done to it."""
    wire = Wire()
    data = request("/a", "500", "Content-Length: 2", method="POST")
    assert await wire.send(data + b"x") == []
    assert (wire.judge.report().accepted, wire.faults) == (1, {})
    assert statuses(await wire.send(b"x")) == [500]
    assert wire.faults == {"500": 1}


@pytest.mark.looptime
async def test_a_faulted_call_occupies_its_window() -> None:
    """A call that suffered a fault has arrived: it is accepted, and there is room again only after it."""
    wire = Wire(Limit(2, MINUTE))
    assert statuses(await wire.send(request("/a", "500") + request("/b", "429") + request("/c"))) == [500, 429, 429]
    report = wire.judge.report()
    assert (report.accepted, report.rejected, report.worst) == (2, 1, 1.5)


# --- On real sockets --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[tuple[Judge, int]]:
    """A judge and its port. In the end nothing of it is left, and no callback has failed."""
    failed: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failed.append(context))
    judge = Judge(JudgeOptions({"alpha": SECRET}, **options))
    server = await loop.create_server(partial(Connection, judge), "127.0.0.1", 0)
    try:
        yield judge, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in [*judge.connections]:
            connection.abort()
        await until(lambda: not judge.connections)
        await server.wait_closed()
        assert (judge.in_flight, failed) == (0, [])


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  # nobody tells a test of it
        await asyncio.sleep(0.001)


async def exchange(port: int, data: bytes) -> tuple[bytes, str]:
    """What comes back, and how the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    got = b""
    end = "FIN"
    try:
        while chunk := await reader.read(1 << 16):
            got += chunk
    except ConnectionResetError:
        end = "RST"
    writer.close()
    with suppress(ConnectionResetError):
        await writer.wait_closed()
    return got, end


def run(loop: Callable[[], asyncio.AbstractEventLoop], main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(main)


HEAD_BEGUN = rb"HTTP/1\.1 200 OK\r\nContent-Ty"
HEAD = rb"HTTP/1\.1 200 OK\r\nContent-Type: application/octet-stream\r\n"


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("fault", "expected", "end"),
    [
        ("reset", b"", "RST"),
        ("reset-in-head", HEAD_BEGUN, "RST"),
        ("close", b"", "FIN"),
        ("garbage", re.escape(GARBAGE), "FIN"),
        ("cut;size=10", HEAD + rb"Content-Length: 10\r\n\r\nx{5}", "FIN"),
        ("cut-reset;size=10", HEAD + rb"Content-Length: 10\r\n\r\nx{5}", "RST"),
        ("cut-chunked;size=100000", HEAD + rb"Transfer-Encoding: chunked\r\n\r\n186a0\r\nx{100000}\r\n", "FIN"),
        ("slow;size=5;every=1ms", HEAD + rb"Content-Length: 5\r\nConnection: close\r\n\r\nxxxxx", "FIN"),
        ("huge;size=3MiB", HEAD + rb"Content-Length: 3145728\r\nConnection: close\r\n\r\n(?:x{1024}){3072}", "FIN"),
    ],
)
def test_how_a_connection_ends(
    loop: Callable[[], asyncio.AbstractEventLoop], fault: str, expected: bytes, end: str
) -> None:
    """Each fault puts exactly its bytes on the wire and ends by FIN or RST as it should, on either event loop."""
    last = () if "cut" in fault else ("Connection: close",)

    async def main() -> tuple[bytes, str]:
        async with served() as (judge, port):
            told = await exchange(port, request("/a", fault, *last))
            assert judge.report().faults == {fault.partition(";")[0]: 1}
            return told

    got, ended = run(loop, main())
    assert re.fullmatch(expected, got)
    assert ended == end


@pytest.mark.parametrize("loop", LOOPS)
def test_clients_that_vanish_leave_nothing(
    loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that go by FIN or RST in the middle of any fault leave no connection and nothing in flight."""
    monkeypatch.setattr("apiflux_grpc.judge.answers.LINGER", 0.02)
    faults = ("hang", "slow", "huge", "cut", "reset-in-head", "garbage", "close", "500", "ok")

    async def main() -> None:
        async with served(latency_ns=(0, 2_000_000)) as (judge, port):
            for reset in (False, True):
                for at, fault in enumerate(faults * 5):
                    client = socket.create_connection(("127.0.0.1", port))
                    client.sendall(request(f"/{at}", fault, f"X-Call-Id: {reset} {at}"))
                    if at % 2:
                        await until(partial(judge.ledger.accepted_of, f"{reset} {at}"))
                    if reset:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
                    client.close()
            await until(lambda: not judge.connections and not judge.in_flight)
            assert (await exchange(port, request("/", "500", "Connection: close")))[0].startswith(b"HTTP/1.1 500 ")

    run(loop, main())


@pytest.mark.parametrize("loop", LOOPS)
def test_it_closes_with_hung_connections_open(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A judge ends at once while clients wait on hung and slow calls, and they see the end."""

    async def main() -> list[object]:
        async with served() as (judge, port):
            clients = [
                asyncio.create_task(exchange(port, request(f"/{at}", fault)))
                for at, fault in enumerate(["hang", "slow;every=1h"] * 5)
            ]
            await until(lambda: judge.in_flight == 10)
        return [end in ("FIN", "RST") for _, end in await asyncio.gather(*clients)]

    assert run(loop, main()) == [True] * 10


def test_a_real_client_meets_faults() -> None:
    """An HTTP client notices each fault, and a judge's process tells it all, then ends well with a call that hangs."""
    options = JudgeOptions(
        {"alpha": SECRET, "beta": BETA},
        faults=parse_chances(["503;retry-after=1=1"]),
        rejections=(Rejection("beta", 1),),
    )
    seen: list[object] = []

    def call(fault: str = "", key: str = SECRET, *, timeout: float = 10) -> None:
        connection = http.HTTPConnection("127.0.0.1", judge.port, timeout=timeout)
        headers = {
            "X-API-Key": key,
            "X-Call-Id": fault or f"without {key == BETA}",
            **({"X-Judge-Fault": fault} if fault else {}),
        }
        try:
            connection.request("GET", "/", headers=headers)
            answer = connection.getresponse()
            answer.read()
            seen.append(answer.status)
        except (http.HTTPException, OSError) as error:
            seen.append(type(error))
        finally:
            connection.close()

    with JudgeProcess(options) as judge:
        for fault in ("", "ok", "500,ok", "500,ok", "reset", "close", "garbage", "cut", "cut-chunked"):
            call(fault)
        call(key=BETA)
        judge.reject("beta")
        call(key=BETA)
        judge.accept("beta")
        call(key=BETA)
        call("hang", timeout=0.05)
        expected: list[object] = [503, 200, 500, 200, ConnectionResetError, http.RemoteDisconnected]
        assert seen[:6] == expected
        assert seen[6:] == [http.BadStatusLine, http.IncompleteRead, http.IncompleteRead, 401, 401, 503, TimeoutError]
        report = judge.report()
        kinds = {"500", "503", "401", "reset", "close", "garbage", "cut", "cut-chunked", "hang"}
        assert {*report.faults} == kinds
        assert (report.accepted, sum(report.faults.values())) == (13, 11)
        assert (report.seen_twice, report.resent, report.ok) == (2, 0, True)
        calls = judge.calls()
        assert (calls["500,ok"], calls["without True"], len(calls)) == (2, 3, 10)
        hung = socket.create_connection(("127.0.0.1", judge.port))
        hung.sendall(request("/", "hang"))
        while not judge.live().in_flight:
            pass
    with hung:
        assert judge.returncode == 0
        with suppress(ConnectionResetError):
            assert hung.recv(1) == b""


def test_everything_reaches_a_process() -> None:
    """All that the options say of faults reaches the judge's process unchanged."""
    from apiflux_grpc.judge.process import from_line, to_line

    texts = ["slow;size=2;every=1ms=0.5", "503;retry-date=1=0.25", "redirect;to=http://x/=0.1"]
    options = JudgeOptions(
        {"a": "1"}, (Limit(1, 2),), faults=parse_chances(texts), rejections=parse_rejections(["a=1s..2s"], "a"), seed=5
    )
    assert from_line(to_line(options, 3)) == (options, 3)
