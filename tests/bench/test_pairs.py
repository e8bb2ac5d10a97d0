"""`make pairs` without its servers: the interval, and which trees it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import ROOT
from bench.pairs import check, interval, tree_of


@pytest.mark.parametrize(("count", "ends"), [(6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (12, (3, 10)), (20, (6, 15))])
def test_the_interval_is_the_sign_tests(count: int, ends: tuple[int, int]) -> None:
    """Its ends are the ratios that tables of the sign test name for 95 %, whatever order the pairs came in."""
    assert interval([float(place) for place in range(count, 0, -1)]) == ends


def test_too_few_pairs_have_no_interval() -> None:
    """Below six pairs no interval has 95 %, and none is made up."""
    with pytest.raises(ValueError, match="6 pairs"):
        interval([1.0] * 5)


def test_a_tree_is_a_checkout_or_a_commit(tmp_path: Path) -> None:
    """What is neither is an error that says so, and so is a folder that Python wouldn't import from."""
    assert tree_of(str(ROOT)) == ROOT
    with pytest.raises(ValueError, match="'no-such-tree' is neither a checkout nor a commit"):
        tree_of("no-such-tree")
    with pytest.raises(ValueError, match="is not what would run"):
        check(tmp_path)
