"""Limits: what is read of them, and warnings for one that has no effect or slows calls down."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from apiflux_grpc.core.bucket import largest, shape
from apiflux_grpc.core.model import Counts, Kind, Limit
from apiflux_grpc.core.units import LONGEST, MOST, SECOND
from tests.settings.writing import GOOD, SHARED, faults, loaded


def test_limits_are_the_pool_s_or_each_key_s(tmp_path: Path) -> None:
    """A pool says its limits, if need be that there are none; forgetting them is a fault."""
    without = GOOD.replace('limits = [{ max = 10, per = "1s" }]\n', "")
    assert faults(tmp_path, without) == [
        "pools.default.limits: is missing; set it here or for each key (`limits = []` means none)"
    ]
    none = loaded(tmp_path, GOOD.replace('{ max = 10, per = "1s" }', ""))
    assert none.pools[0].pool.keys[0].limits == ()
    each = loaded(tmp_path, without + 'limits = [{ max = 3, per = "1s" }]\n')
    assert each.pools[0].pool.keys[0].limits == (Limit(3, SECOND),)


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ('kind = "bucket"', Limit(10, SECOND, kind=Kind.BUCKET)),
        ('kind = "bucket", burst = 1', Limit(10, SECOND, kind=Kind.BUCKET, burst=1)),
        ('kind = "bucket", burst = 316224000', Limit(10, SECOND, kind=Kind.BUCKET, burst=316_224_000)),
        ('kind = "bucket", burst = 50, counts = "cost"', Limit(10, SECOND, Counts.COST, Kind.BUCKET, 50)),
        ('kind = "window", burst = 10', Limit(10, SECOND, burst=10)),
    ],
)
def test_a_bucket(tmp_path: Path, words: str, limit: Limit) -> None:
    """A bucket counts calls or cost; its burst may be above max, and is max by default."""
    text = GOOD.replace('per = "1s"', f'per = "1s", {words}')
    (key,) = loaded(tmp_path, text).pools[0].pool.keys
    assert key.limits == (limit,)
    assert limit.depth == (limit.burst or limit.max)


def test_a_bucket_needs_some_jitter(tmp_path: Path) -> None:
    """A bucket's call that isn't written within half the jitter isn't sent; a window, or the simulator, needs none."""
    bucket = GOOD.replace('per = "1s"', 'per = "1s", kind = "bucket"')
    shared = SHARED.replace(" }", ', kind = "bucket" }')
    group = f'groups = [{{ keys = ["a"], {shared} }}]\nlimits ='
    for text in (bucket, GOOD.replace("limits =", group, 1)):
        for jitter in ("0s", "1999us"):
            (fault,) = faults(tmp_path, text.replace("base_url", f'arrival_jitter = "{jitter}"\nbase_url'))
            assert fault.startswith("pools.default.arrival_jitter: must be at least 2ms if a limit is a bucket")
        loaded(tmp_path, text.replace("base_url", 'arrival_jitter = "2ms"\nbase_url'))
    none = 'arrival_jitter = "0s"\nlimits ='
    assert loaded(tmp_path, GOOD.replace("limits =", none)).pools[0].pool.arrival_jitter == 0
    simulated = bucket.replace('base_url = "http://127.0.0.1:9000"\n', "")
    assert loaded(tmp_path, simulated.replace("limits =", none)).pools[0].pool.arrival_jitter == 0


@pytest.mark.parametrize(
    ("limits", "warning"),
    [
        (
            '{ max = 2000, per = "1s" }, { max = 1000, per = "60s" }',
            "2000 calls per 1s has no effect, because 1000 calls per 60s is always reached first",
        ),
        (
            '{ max = 5, per = "1s" }, { max = 1000, per = "60s" }',
            "1000 calls per 60s has no effect, because 5 calls per 1s is always reached first",
        ),
        ('{ max = 50, per = "1s" }, { max = 1000, per = "60s" }', None),
        ('{ max = 2000, per = "1s", counts = "cost" }, { max = 1000, per = "60s" }', None),
        # a window and a bucket: the bucket lets burst + per * rate through
        (
            '{ max = 700, per = "60s" }, { max = 10, per = "1s", kind = "bucket", burst = 100 }',
            "700 calls per 60s has no effect, because 10 calls per 1s (a bucket of 100) is always reached first",
        ),
        ('{ max = 699, per = "60s" }, { max = 10, per = "1s", kind = "bucket", burst = 100 }', None),
        (
            '{ max = 100, per = "10s" }, { max = 10, per = "1s", kind = "bucket", burst = 100 }',
            "10 calls per 1s (a bucket of 100) has no effect, because 100 calls per 10s is always reached first",
        ),
        ('{ max = 100, per = "10s" }, { max = 10, per = "1s", kind = "bucket", burst = 99 }', None),
        ('{ max = 100, per = "10s" }, { max = 9, per = "1s", kind = "bucket", burst = 100 }', None),
        # two buckets
        (
            '{ max = 9, per = "1s", kind = "bucket" }, { max = 10, per = "1s", kind = "bucket" }',
            "10 calls per 1s (a bucket of 10) has no effect, "
            "because 9 calls per 1s (a bucket of 9) is always reached first",
        ),
        (
            '{ max = 9, per = "1s", kind = "bucket", burst = 9 }, { max = 9, per = "1s", kind = "bucket" }',
            "9 calls per 1s (a bucket of 9) has no effect, "
            "because 9 calls per 1s (a bucket of 9) is always reached first",
        ),
        (
            '{ max = 9, per = "1s", kind = "bucket", burst = 20 }, { max = 10, per = "1s", kind = "bucket" }',
            None,
        ),
        # of two equal limits one is reported
        (
            '{ max = 9, per = "1s" }, { max = 9, per = "1s", burst = 3 }',
            "9 calls per 1s (bursts of 3) has no effect, because 9 calls per 1s is always reached first",
        ),
    ],
)
def test_a_limit_that_is_never_reached_is_warned_of(tmp_path: Path, limits: str, warning: str | None) -> None:
    """Of two limits that count the same, the one that another always reaches first is named, with that other."""
    settings = loaded(tmp_path, GOOD.replace('{ max = 10, per = "1s" }', limits))
    expected = () if warning is None else (f"{tmp_path / 'c.toml'}: pools.default.limits: {warning}",)
    assert settings.warnings == expected


@pytest.mark.parametrize(
    ("jitter", "limit", "words"),
    [
        # 1/r + J if the burst is 1
        (
            "20ms",
            'max = 2, per = "1s", burst = 1',
            "leaves 1 of its burst of 1: calls go out at least 520 ms apart, at 96.2%",
        ),
        # 50 a second over 400 ms are 20: one of 21 is left, and nothing is spaced
        ("400ms", 'max = 50, per = "1s", burst = 21', None),
        (
            "401ms",
            'max = 50, per = "1s", burst = 21',
            "leaves 1 of its burst of 21: calls go out at least 20.05 ms apart, at 99.8%",
        ),
        ("2s", 'max = 10, per = "1s"', "leaves 1 of its burst of 10: calls go out at least 210 ms apart, at 47.6%"),
        ("2ms", 'max = 2, per = "1s", burst = 2', None),
        (
            "250ms",
            'max = 90000, per = "60s", counts = "cost", burst = 300',
            "leaves 1 of its burst of 300: no call may cost more, and units of cost go out at least 0.8356 ms apart",
        ),
    ],
)
def test_a_burst_that_jitter_eats_is_warned_of(tmp_path: Path, jitter: str, limit: str, words: str | None) -> None:
    """Where late calls alone could fill a bucket they are spaced; what that costs is said, of groups' limits too."""
    bucket = f'[{{ {limit}, kind = "bucket" }}]'
    own = GOOD.replace('[{ max = 10, per = "1s" }]', f'{bucket}\narrival_jitter = "{jitter}"')
    line = f'arrival_jitter = "{jitter}"\ngroups = [{{ keys = ["a"], limits = {bucket} }}]\nlimits ='
    shared = GOOD.replace("limits =", line, 1)
    for text, place in ((own, "limits[0]"), (shared, "groups[0].limits[0]")):
        warnings = loaded(tmp_path, text).warnings
        if words is None:
            assert warnings == ()
        else:
            (warning,) = warnings
            assert warning.startswith(
                f"{tmp_path / 'c.toml'}: pools.default.{place}: arrival_jitter ({jitter}) {words}"
            )


def test_a_warning_is_about_what_the_pacer_does(tmp_path: Path) -> None:
    """The spacing in the warning is what the core computes."""
    text = GOOD.replace('per = "1s" }]', 'per = "1s", kind = "bucket" }]\narrival_jitter = "2s"')
    settings = loaded(tmp_path, text)
    pool = settings.pools[0].pool
    burst, seconds = shape(pool.keys[0].limits[0], pool.arrival_jitter)
    assert burst == 1
    assert f"{seconds * 1000:.0f} ms apart" in settings.warnings[0]


@hypothesis_settings(max_examples=300)
@given(
    most=st.integers(1, MOST),
    per=st.integers(1, LONGEST),
    burst=st.none() | st.integers(1, MOST),
    kind=st.sampled_from(Kind),
    jitter=st.integers(0, LONGEST),
)
def test_a_call_fits_every_limit_that_is_taken(most: int, per: int, burst: int | None, kind: Kind, jitter: int) -> None:
    """No limit and no jitter that settings take leaves so little that not even a cost of 1 fits."""
    limit = Limit(most, per, kind=kind, burst=burst)
    assert largest(limit, jitter) >= 1
    depth, seconds = shape(limit, jitter)
    assert depth >= 1
    assert 0 < seconds < float("inf")
