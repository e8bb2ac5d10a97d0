"""The words for why calls wait."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apiflux_grpc.core import held
from apiflux_grpc.core.model import Counts, Limit
from apiflux_grpc.core.units import MILLISECOND, SECOND

TEN_SECONDS = Limit(100, 10 * SECOND)
TOKENS = Limit(200_000, 60 * SECOND, Counts.COST)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (held.limited(429, 12 * SECOND, "Retry-After"), "429 with Retry-After: 12 s"),
        (held.limited(403, 7_990 * MILLISECOND, "retry-after-ms"), "403 with retry-after-ms: 7.99 s"),
        (held.limited(429, 31 * 86_400 * SECOND, "a reset"), "429 with a reset: 2678400 s"),
        (held.limited(429, None, ""), "429 with no usable wait"),
        (held.rejected(401), "rejected with 401"),
        (held.failing("connection refused", 7 * SECOND + 1), "upstream failing: connection refused; next try in 8 s"),
        (held.failing("connection refused", None), "upstream failing: connection refused"),
        (held.others(40, TEN_SECONDS), "others use 40 of 100 per 10 s"),
        (held.others(9, TOKENS), "others use 9 of 200000 cost per 60 s"),
        (held.others(9, replace(TEN_SECONDS, paths=("/search/",))), "others use 9 of 100 per 10 s for /search/"),
        (held.lower(50, TEN_SECONDS), "the upstream allows 50 per 10 s, below the configured 100"),
        (held.cut(70, TEN_SECONDS), "refused though it kept 100 per 10 s: 70 are used for a while"),
        (held.nothing_left("x-ratelimit-"), "nothing left of x-ratelimit-remaining"),
        (held.nothing_left("x-ratelimit-requests"), "nothing left of x-ratelimit-requests"),
        (held.nothing_left("n" * 1000), f"nothing left of {'n' * 64}"),
        (held.spent(TEN_SECONDS, ("a",), 0), "100/10s of a"),
        (held.spent(TOKENS, ("a", "b"), 0), "200000 cost/60s of 2 keys"),
        (
            held.spent(replace(TEN_SECONDS, paths=("/search/",)), ("a", "b"), 1),
            "100/10s for /search/ of 2 keys together",
        ),
        (held.spent(TEN_SECONDS, ("a", "b", "c", "d"), 2), "100/10s of 4 keys in 2 groups"),
        (held.spent(TEN_SECONDS, ("a",), 1), "100/10s of a"),
        (held.backoff(1), "the next attempt of a call"),
        (held.backoff(7), "the next attempt of 7 calls"),
        (held.probed("rejected with 401"), "rejected with 401; one call probes"),
    ],
)
def test_a_reason_in_words(reason: str, words: str) -> None:
    """Short, with the figures as the upstream told them or as they are configured."""
    assert reason == words
