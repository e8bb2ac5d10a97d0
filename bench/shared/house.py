"""What the sections on shared budgets have in common: a Redis, configurations, and a judge whose word can be taken.

Rule: every run ends by asking the judge, and one in which the judge itself was late is void: it is run again.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.report import Report
from apiflux_grpc.testing.served import config_for
from bench.figures import Figure
from tests.adapters.lease_redis.servers import INSTALL, RedisServer, found

Answer = TypeVar("Answer")

JITTER: Final = 0.25  # seconds: arrival_jitter, unless a pool sets another
TRIES: Final = 3  # of a run, until the judge was never late


class Void(Exception):
    """The judge's own loop was so late that what it says of windows is worth nothing."""


def redis() -> RedisServer:
    """A Redis that keeps nothing, to be entered. Raises RuntimeError if this machine has none."""
    for path in found().values():
        return RedisServer(path)
    raise RuntimeError(INSTALL)


def config(url: str, limits: tuple[Limit, ...], keys: Mapping[str, str], head: str = "", extra: str = "") -> str:
    """The pool in front of this judge; `head` is TOML before it, such as where budgets are kept."""
    return f"{head}\n{config_for(url, limits, list(keys), extra)}"


def over(url: str) -> str:
    """The head of a configuration whose budgets are in this Redis."""
    return f'[budget]\nredis = "{url}"'


def check(report: Report, calls: int, jitter: float = JITTER) -> None:
    """Raises Void, and RuntimeError if not every call was made once; a window is left to whoever shows it."""
    if report.max_lag_ns > jitter / 2 * 1e9:
        raise Void(f"the judge was {report.max_lag_ns / 1e6:.0f} ms late")
    if report.accepted + report.rejected != calls or report.resent or report.unknown_arrivals:
        raise RuntimeError(f"the judge: {report.accepted} of {calls} calls, {report.violations}")


async def valid(run: Callable[[], Awaitable[Answer]]) -> Answer:
    """What a run came to in which the judge wasn't late. Raises Void if there is none."""
    for left in reversed(range(TRIES)):
        try:
            return await run()
        except Void as error:
            if not left:
                raise
            print(f"once more: {error}", file=sys.stderr)
    raise AssertionError


def worst(samples: list[float], case: str = "") -> Figure:
    """What the judge saw of the limits."""
    return Figure("worst window / limit", samples, target=1.0, case=case, must=True)
