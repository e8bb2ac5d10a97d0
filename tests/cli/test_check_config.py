"""What `apiflux check-config` says of HTTP is what the core decides."""

from __future__ import annotations

import re

from apiflux_grpc.cli.check_config import HTTP_MEANINGS
from apiflux_grpc.core.headers import NO_HEADERS, Headers
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.verdict import Verdicts


def meaning(status: int, headers: Headers = NO_HEADERS) -> str:
    return Verdicts(((200, 299),)).of(Answer(status, headers, b"", 0), (), None).means.value


def test_the_rows_of_http_are_those_of_the_verdicts() -> None:
    """Each status means what its row says, and one that no row names what the last one says."""
    *rows, (others, last) = HTTP_MEANINGS
    named: dict[int, str] = {}
    for answers, means in rows:
        for low, high in re.findall(r"(\d{3})(?:-(\d{3}))?", answers.partition("; ")[0]):
            named |= dict.fromkeys(range(int(low), int(high or low) + 1), means)
    assert others == "all others"
    seen = {status: meaning(status) for status in range(100, 600) if not 200 <= status < 300}
    assert {status: means for status, means in seen.items() if means != named.get(status, last)} == {}
    assert rows[0][0].partition("; ")[2].startswith("403 with Retry-After")
    assert meaning(403, Headers.of({"Retry-After": "1"})) == rows[0][1]
