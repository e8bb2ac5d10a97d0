"""How the files that this process may open are shared out: each connection is one.

Rule: callers can't take those that calls need. Connections to the upstream may be 80 % of all, and connections of
callers a third of what the process leaves; both at once are more than there are, and then calls and callers wait.
"""

from __future__ import annotations

import resource
from typing import Final

from apiflux_grpc.core.units import MOST
from apiflux_grpc.server.defaults import MOST_CONNECTIONS

OWN: Final = 32  # files of the process itself: two loops, gRPC, a store, the log
LEAST_CALLERS: Final = 8


def for_upstream() -> int:
    """The most connections of a pool."""
    files = _files()
    return MOST if files is None else max(1, files * 4 // 5)


def for_callers() -> int:
    """The most connections of callers, unless the configuration says another number."""
    files = _files()
    return MOST_CONNECTIONS if files is None else max(LEAST_CALLERS, min((files - OWN) // 3, MOST_CONNECTIONS))


def most_for_callers() -> int:
    """The most that the configuration may say."""
    files = _files()
    return MOST if files is None else max(1, files - OWN)


def _files() -> int | None:
    """How many may be open; None: any number."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
