"""How long a connection may be idle and still carry a call.

Rules
- An upstream that closes an idle connection just as our request is on its way has lost that request, and nobody can
  say whether it was executed. So we stop using a connection before the upstream stops keeping it.
- How long it keeps one it may say (`Keep-Alive: timeout=5`, draft-thomson-hybi-http-timeout). Its clock starts when its
  answer leaves and runs until our request has arrived: the round trip is taken off, and a margin for packets that are
  late and timers that are coarse.
- If it doesn't say, the pool's setting holds.
- A call that may not run twice takes only a connection that has just been used, whatever was said: if its connection is
  closed under it, nothing mends that.
"""

from __future__ import annotations

import re
from typing import Final

from apiflux_grpc.core.units import SECOND

FRESH: Final = SECOND  # "has just been used"
MARGIN: Final = SECOND
LONGEST: Final = 60 * SECOND  # routers on the way forget connections too, and say nothing
_TIMEOUT: Final = re.compile(rb'(?<![^\s,;])timeout *= *"?(\d{1,9})', re.IGNORECASE)


def told(keep_alive: bytes) -> int | None:
    """How long the upstream keeps an idle connection (ns), as this value of Keep-Alive says; None: it doesn't say."""
    seconds = min(map(int, _TIMEOUT.findall(keep_alive)), default=None)
    return None if seconds is None else seconds * SECOND


def usable_for(told: int, round_trip: int) -> int:
    """How long a connection can be used that the upstream keeps for `told`; 0: not again. All in ns."""
    margin = min(MARGIN, told // 2)  # of a short time a part, or there would be none left
    return max(0, min(told - margin - round_trip, LONGEST))


def longest_lately(longest: int, took: int) -> int:
    """The longest round trip, now that one took so long (ns). It fades: a slow one counts for a while, not for ever."""
    return max(took, longest - longest // 64)
