"""The servers of a job in words: all of them as one, and what becomes of each.

Rule: of several servers, one that is lost costs no call, so it is a line and no more; what it means if all are lost,
progress.py says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.client import Overloaded
from apiflux_grpc.client.same_pool import OtherPool
from apiflux_grpc.core.units import SECOND, spoken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.client import ApifluxError

_NAMED: Final = 3  # servers


def all_of(targets: Sequence[str], word: str = "and") -> str:
    """`a:1`, `a:1 and b:1`, `a:1, b:1 and 8 others`."""
    names = list(targets)
    if len(names) > _NAMED:
        names[_NAMED - 1 :] = [f"{len(names) - _NAMED + 1} others"]
    return f" {word} ".join(filter(None, (", ".join(names[:-1]), names[-1])))


class Servers:
    """What is said of each, once: `say` takes a line, and `clock` counts seconds."""

    def __init__(self, say: Callable[[str], object], clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock
        self._lost_at: dict[str, float] = {}
        self._targets: Callable[[], Sequence[str]] = tuple

    def are(self, targets: Callable[[], Sequence[str]]) -> None:
        """All that there are at a time: those that a name has can't be counted beforehand."""
        self._targets = targets

    def changed(self, target: str, error: ApifluxError | None) -> None:
        """One of several isn't there, or is there again."""
        since = self._lost_at.pop(target, None)
        if error is None:
            if since is not None:
                self._say(f"{target} is there after {spoken(round((self._clock() - since) * SECOND))}")
            return
        self._lost_at[target] = self._clock() if since is None else since
        if since is None or isinstance(error, OtherPool):
            others = any(one != target and one not in self._lost_at for one in self._targets())
            self._say(_what(target, error) + "; the others go on" * others)


def _what(target: str, error: ApifluxError) -> str:
    if isinstance(error, OtherPool):
        return f"{target} is left out: {error.message}"
    if isinstance(error, Overloaded):
        return f"{target} takes no more for now ({error})"
    return f"{target} {'is shutting down' if error.reason == 'DRAINING' else f'is not there ({error})'}"
