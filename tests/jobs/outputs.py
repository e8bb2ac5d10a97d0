"""An output as an earlier run has left it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.jobs.output import Output


def hand_over(output: Output, calls: Sequence[tuple[int, int]]) -> None:
    """Note these calls, by key and digest, as a run does before it sends them."""
    asyncio.run(output.note(calls))
