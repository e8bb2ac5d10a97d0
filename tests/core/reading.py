"""The headers of an answer, read for what they tell at one instant."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from apiflux_grpc.core import hints as hints_module
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.hints import Hint
from apiflux_grpc.core.units import SECOND

NOW: Final = datetime(2026, 1, 27, 11, 59, 0, tzinfo=UTC)  # 1769515140
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE


def hints(headers: Mapping[str, str]) -> tuple[list[Hint], int]:
    """What these headers tell now."""
    return hints_module.hints(Headers.of(headers), NOW)


def read(headers: Mapping[str, str]) -> list[Hint]:
    """The hints of headers without a fault."""
    found, malformed = hints(headers)
    assert malformed == 0
    return found
