"""The section of what upstreams say: its pools are what their limits need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from apiflux_grpc.core.model import Kind
from apiflux_grpc.settings import load
from apiflux_grpc.testing.served import secrets_for
from bench.upstreams import KEYS, KINDS, config

if TYPE_CHECKING:
    from pathlib import Path

    from apiflux_grpc.judge.limits import Limit


@pytest.mark.parametrize("limit", KINDS, ids=lambda limit: limit.kind)
def test_a_pool_keeps_its_upstreams_limit(limit: Limit, tmp_path: Path) -> None:
    """A bucket is kept by a bucket of its depth, every window by a sliding one; the keys are those of the judge."""
    path = tmp_path / "apiflux.toml"
    path.write_text(config("http://127.0.0.1:9", limit, KEYS, 'timeout = "60s"'), encoding="utf-8")
    [settings] = load(path, environ=secrets_for(KEYS)).pools
    assert [key.label for key in settings.pool.keys] == [*KEYS]
    [kept] = settings.pool.keys[0].limits
    kind = Kind.BUCKET if limit.kind == "bucket" else Kind.WINDOW
    assert (kept.max, kept.per, kept.kind, kept.burst or kept.max) == (limit.max, limit.per_ns, kind, limit.most)
