"""A file for OpenAI's Batch API with limits of calls and of tokens, against a judge that speaks as OpenAI does."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiflux_grpc.core.units import SECOND
from bench.openai import limits, lines, plan, rehearse


@pytest.mark.slow
def test_no_window_is_exceeded_by_calls_or_tokens(tmp_path: Path) -> None:
    """The judge counts the tokens that each answer says, refuses nothing, and every line has its result once."""
    made = rehearse(tmp_path, 300, limits(20, 8_000, SECOND), seed=1)
    assert (made.report.rejected, made.report.unknown_arrivals, made.report.seen_twice) == (0, 0, 0)
    assert made.report.arrivals == 300
    assert made.report.worst <= 1
    ids = [result["custom_id"] for result in made.results]
    assert sorted(ids) == sorted(line["custom_id"] for line in lines(300, 1))
    assert all(result["error"] is None and result["response"]["request_id"] for result in made.results)
    usages = [result["response"]["body"]["usage"]["total_tokens"] for result in made.results]
    counted = [max(limit.ratio for limit in key.limits if limit.counts == "cost") for key in made.report.keys]
    assert sum(usages) > 5 * 8_000  # so tokens bound it, too
    assert max(counted) > 0.5
    assert plan(tmp_path) > 1  # virtual seconds: the same file, read by the same rules
