"""Only an accepted arrival gets a fault: by the call's header, by a rejected key, by chance, in this order."""

import pytest

from apiflux_grpc.judge.faults import (
    Chance,
    Fault,
    Rejection,
    parse_chances,
    parse_rejections,
)
from apiflux_grpc.judge.limits import Limit
from tests.judge.wires import BETA, MINUTE, SECOND, Wire, request, statuses


@pytest.mark.looptime
async def test_a_script_is_counted_per_call() -> None:
    """Each call has its own place in its list of faults; header lines are one list."""
    wire = Wire()
    seen = [
        (await wire.exchange(request("/", f"X-Call-Id: {call}", "X-Judge-Fault: 503,429", fault="500")))[0][0]
        for call in ("a", "a", "b", "a", "b", "a")
    ]
    assert seen == [503, 429, 503, 500, 429, 500]
    assert wire.faults == {"503": 2, "429": 2, "500": 2}


@pytest.mark.looptime
async def test_only_what_was_accepted_gets_a_fault() -> None:
    """An arrival over its limit or with an unknown key gets its honest answer, and keeps its place in the list."""
    wire = Wire(Limit(1, MINUTE), faults=(Chance(Fault("503"), 1.0),))
    assert statuses(await wire.exchange(request("/a", fault="500,418", key="wrong"))) == [401]
    assert statuses(await wire.exchange(request("/a", fault="500,418"))) == [500]
    assert statuses(await wire.exchange(request("/a", fault="500,418"))) == [429]
    wire.now = MINUTE
    assert statuses(await wire.exchange(request("/a", fault="500,418"))) == [418]
    report = wire.judge.report()
    assert (report.arrivals, report.accepted, report.rejected, report.unknown_arrivals) == (4, 2, 1, 1)
    assert report.faults == {"500": 1, "418": 1}


@pytest.mark.looptime
async def test_what_decides() -> None:
    """The call's header goes before a rejection, a rejection before chance; `ok` means no fault, none counted."""
    wire = Wire(faults=(Chance(Fault("503"), 1.0),), rejections=(Rejection("alpha", first=9),))
    data = request("/a", fault="500") + request("/b") + request("/c", key=BETA)
    assert statuses(await wire.exchange(data)) == [500, 401, 503]
    assert statuses(await wire.exchange(request("/d", fault="ok") + request("/e", fault="ok", key=BETA))) == [200, 200]
    assert [key.faults for key in wire.judge.report().keys] == [{"500": 1, "401": 1}, {"503": 1}]


@pytest.mark.looptime
async def test_chance_is_drawn_for_each_arrival() -> None:
    """By chance some arrivals fail and others don't, the same ones with the same seed."""

    async def run(seed: int) -> list[int]:
        wire = Wire(faults=parse_chances(["500=0.3"]), seed=seed)
        return statuses(await wire.exchange(b"".join(request(f"/{at}") for at in range(100))))

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
        seen += statuses(await wire.exchange(request(f"/{now}") + request(f"/b{now}", key=BETA)))
    assert seen == [200, 401, 401, 200, 401, 200, 200, 200]
    assert (await wire.ask("POST", "reset"))[0] == 200
    wire.now = 7 * SECOND
    assert statuses(await wire.exchange(request("/") + request("/b", key=BETA))) == [401, 401]


@pytest.mark.looptime
async def test_a_key_is_rejected_on_command() -> None:
    """A key is rejected from one command until the other, or a reset; nobody commands over a key there isn't."""
    wire = Wire()
    assert [(await wire.ask("POST", f"reject/{label}"))[0] for label in ("%61lpha", "gamma", "")] == [200, 404, 404]
    assert [(await wire.ask(*what))[0] for what in (("GET", "accept/alpha"), ("POST", "reset/x"))] == [405, 404]
    assert statuses(await wire.exchange(request("/a") + request("/b", key=BETA))) == [401, 200]
    await wire.ask("POST", "accept/alpha")
    assert statuses(await wire.exchange(request("/c"))) == [200]
    await wire.ask("POST", "reject/beta")
    assert await wire.ask("GET", "calls") == (200, {"GET /a": 1, "GET /b": 1, "GET /c": 1})
    await wire.ask("POST", "reset")
    assert statuses(await wire.exchange(request("/d", key=BETA))) == [200]


@pytest.mark.looptime
async def test_a_bad_script_is_said() -> None:
    """A header that can't be read gets a 400 that names it, and counts as that; the judge goes on."""
    wire = Wire()
    [(status, body)] = await wire.exchange(request("/a", fault="500,teapot"))
    assert (status, wire.faults) == (400, {"400": 1})
    assert b"X-Judge-Fault: 'teapot' is not a fault" in body


@pytest.mark.looptime
async def test_a_fault_is_counted_once_its_request_is_whole() -> None:
    """A request that never ends did arrive, but nothing was done to it."""
    wire = Wire()
    data = request("/a", "Content-Length: 2", fault="500", method="POST")
    assert await wire.exchange(data + b"x") == []
    assert (wire.judge.report().accepted, wire.faults) == (1, {})
    assert statuses(await wire.exchange(b"x")) == [500]
    assert wire.faults == {"500": 1}


@pytest.mark.looptime
async def test_a_faulted_call_occupies_its_window() -> None:
    """A call that got a fault has arrived: it is accepted, and there is room again only after it."""
    wire = Wire(Limit(2, MINUTE))
    data = request("/a", fault="500") + request("/b", fault="429") + request("/c")
    assert statuses(await wire.exchange(data)) == [500, 429, 429]
    report = wire.judge.report()
    assert (report.accepted, report.rejected, report.worst) == (2, 1, 1.5)
