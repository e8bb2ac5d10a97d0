"""The sections on shared budgets: what they compute, and that they don't believe a judge that was late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from string import Template

import pytest

from apiflux_grpc.client import Result
from apiflux_grpc.core.lease.words import Cap
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.report import KeyReport, LimitReport, Report
from bench.__main__ import SECTIONS
from bench.shared.fleet import Crowd, Size, simulate
from bench.shared.house import JITTER, TRIES, Void, check, valid
from bench.shared.replicas import KEYS, LIFE, LIMIT, use_of
from bench.write import TEMPLATE, page

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_fleet_keeps_every_limit_and_uses_what_they_allow() -> None:
    """Before and after half of its replicas die, and the figures say so."""
    size = Size(6, 8, Cap(SECOND, 20), users=4, cycles=2)
    seen = simulate(size)
    assert seen.worst <= 1.0
    assert seen.use >= 0.97
    assert seen.use_after >= 0.97
    assert 0 <= seen.back_after < size.cycle / SECOND
    assert seen.rounds_per_second == pytest.approx(seen.rounds_per_call * seen.calls_per_second)


def test_a_fleet_of_which_nobody_lives_is_allowed_nothing() -> None:
    """A key counts for use only while somebody lives that wants it."""
    crowd = Crowd(Size(2, 2, Cap(SECOND, 10)))
    assert crowd.allowed(10 * SECOND) > 0
    for replica in crowd.fleet.replicas:
        crowd.fleet.crash(replica)
    assert crowd.allowed(10 * SECOND) == 0


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_use_is_of_what_window_jitter_and_lease_allow(factor: float) -> None:
    """A key whose windows of calls are T + J + L apart has a use of 1; one for which it takes twice as long, a half."""
    apart = factor * (LIMIT.per_ns / SECOND + JITTER + LIFE)
    results = [
        result(key, cycle * apart + place / 1e6) for key in KEYS for cycle in range(3) for place in range(LIMIT.max)
    ]
    assert use_of(results) == pytest.approx(1 / factor)


def result(key: str, at: float) -> Result:
    """One that came at this second."""
    return Result(0, "", None, None, key, 1, 0.0, 0.0, BEGAN + timedelta(seconds=at), "")


def report(lag: float = 0.0, accepted: int = 10, resent: int = 0) -> Report:
    """What a judge says that was late by some seconds."""
    keys = (KeyReport("key-1", accepted, 0, (LimitReport(10, SECOND, 10),)),)
    return Report(keys, resent=resent, max_lag_ns=round(lag * SECOND))


def test_a_late_judge_is_not_believed() -> None:
    """Late by more than half of `arrival_jitter` is void; calls that don't add up are an error."""
    check(report(JITTER / 2), 10)
    with pytest.raises(Void, match="126 ms late"):
        check(report(0.126), 10)
    for wrong in (report(accepted=9), report(resent=1)):
        with pytest.raises(RuntimeError, match="of 10 calls"):
            check(wrong, 10)


@pytest.mark.parametrize("void", range(TRIES + 1))
async def test_a_void_run_is_repeated_and_never_passed(void: int) -> None:
    """Until one is valid, some times at most."""
    runs = 0

    async def run() -> str:
        nonlocal runs
        runs += 1
        if runs <= void:
            raise Void("late")
        return "valid"

    if void < TRIES:
        assert await valid(run) == "valid"
        assert runs == void + 1
    else:
        with pytest.raises(Void):
            await valid(run)
        assert runs == TRIES


def test_every_section_has_a_place_on_the_page() -> None:
    """What `make bench` measures is shown, also if it wasn't measured."""
    places = Template(TEMPLATE.read_text(encoding="utf-8")).get_identifiers()
    assert set(SECTIONS) <= set(places)
    assert page([]).count("Not measured") == len(SECTIONS) + 1
