"""Limits with paths, as they are written: which calls they count, and what can't be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import SECOND
from tests.settings.writing import GOOD, faults, loaded

MAIN = '{ max = 100, per = "60s" }'


def with_limits(*limits: str, more: str = "") -> str:
    """GOOD with these limits, and more lines in its pool."""
    before, _, after = GOOD.partition("limits =")
    return f"{before}{more}\nlimits = [{', '.join(limits)}]\n{after.partition(chr(10))[2]}"


def searching(paths: str, max: int = 30) -> str:
    return f'{{ max = {max}, per = "60s", paths = [{paths}] }}'


@pytest.mark.parametrize("paths", ['"/search/"', '"/%73earch/"', '"/search/", "/search/"'])
def test_paths_are_kept_decoded_once_each(tmp_path: Path, paths: str) -> None:
    """What calls are compared with is what the upstream reads."""
    (pool,) = loaded(tmp_path, with_limits(MAIN, searching(paths))).pools
    assert pool.pool.keys[0].limits[1] == Limit(30, 60 * SECOND, paths=("/search/",))
    assert str(pool.pool.keys[0].limits[1]) == "30 calls per 60s for /search/"


def test_the_order_of_paths_makes_no_other_limit(tmp_path: Path) -> None:
    """Two limits of the same paths count the same calls, however they are written."""
    (pool,) = loaded(tmp_path, with_limits(searching('"/a/", "/b/"'), searching('"/b/", "/a/"', 1))).pools
    assert {limit.paths for limit in pool.pool.keys[0].limits} == {("/a/", "/b/")}


@pytest.mark.parametrize(
    ("paths", "fault"),
    [
        ("", "pools.default.limits[1].paths: is empty, so it would count no call; leave it out to count all"),
        ('"search/"', 'pools.default.limits[1].paths[0]: must begin with "/" and have only characters of a path'),
        ('"/a", "/b?c"', 'pools.default.limits[1].paths[1]: must begin with "/" and have only characters of a path'),
    ],
)
def test_paths_that_no_call_can_have_are_faults(tmp_path: Path, paths: str, fault: str) -> None:
    """With their place."""
    assert faults(tmp_path, with_limits(MAIN, searching(paths))) == [fault]


def test_calls_meet_at_most_eight_kinds_of_limits(tmp_path: Path) -> None:
    """A key is ranked once for each."""
    eight = [searching(f'"/{name}/"') for name in "abcdefgh"]
    assert loaded(tmp_path, with_limits(MAIN, *eight)).warnings == ()
    text = "pools.default.limits: their paths make 9 kinds of calls that meet different limits; use at most 8"
    assert faults(tmp_path, with_limits(MAIN, *eight, searching('"/i/"'))) == [text]


@pytest.mark.parametrize(
    ("limits", "idle"),
    [
        ((MAIN, searching('"/a/"', 100)), True),  # no more than all calls may
        ((MAIN, searching('"/a/"', 30)), False),
        ((searching('"/a/"', 30), '{ max = 100, per = "60s" }'), False),  # other calls reach the wider limit
        ((searching('"/a/"', 30), searching('"/a/b/"', 50)), True),
        ((searching('"/a/"', 30), searching('"/b/"', 50)), False),
        ((searching('"/a/b/"', 30), searching('"/a/"', 50)), False),
    ],
)
def test_a_limit_without_effect_is_one_all_of_whose_calls_meet_a_tighter_one(
    tmp_path: Path, limits: tuple[str, ...], idle: bool
) -> None:
    """Limits of other calls don't make it so."""
    warnings = loaded(tmp_path, with_limits(*limits)).warnings
    assert any("has no effect" in str(warning) for warning in warnings) == idle


@pytest.mark.parametrize(
    ("allowed", "warned"), [('"/v1/"', True), ('"/search/x/"', False), ('"/"', False), ('"/se%61rch/"', False)]
)
def test_a_path_that_no_call_may_have_is_warned_of(tmp_path: Path, allowed: str, warned: bool) -> None:
    """allow_paths refuses them all."""
    text = with_limits(MAIN, searching('"/search/"'), more=f"allow_paths = [{allowed}]")
    warnings = [str(warning) for warning in loaded(tmp_path, text).warnings]
    assert any("/search/ counts no call, because allow_paths" in warning for warning in warnings) == warned
