"""Which arrival gets which fault.

The rule: only an arrival that the ledger accepted gets a fault; one over a limit, or with an unknown key, gets its
honest 429 or 401. The first of these that applies decides:

1. X-Judge-Fault of the call: a list of faults, one per accepted arrival of the call, the last of them for all further
   ones. `500,500,ok` fails twice; `hang` hangs every time; `ok` means no fault, whatever else is set. A header
   that can't be read gets a 400 that says so.
2. A rejected key: a 401 on command; by a span of time since the judge's start, or for its first calls, a 401 or the
   fault that is said there.
3. Chance. The draw depends on seed, call and arrival alone, so the same calls meet the same faults in any order.

Pure: the same question always has the same answer. It deliberately doesn't know connections or clocks.
"""

from collections import defaultdict
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from apiflux_grpc.judge.faults import Chance, Fault, Rejection, parse_script

REJECTED: Final = Fault("401")


class Faults:
    """The rejected keys and the chances of a judge."""

    def __init__(self, chances: Iterable[Chance] = (), rejections: Iterable[Rejection] = (), seed: int = 0) -> None:
        self._chances = tuple(chances)
        self._rejections: dict[str, list[Rejection]] = defaultdict(list)
        for rejection in rejections:
            self._rejections[rejection.label].append(rejection)
        self._seed = (seed % 2**64).to_bytes(8, "big")
        self.any = bool(self._chances or self._rejections)

    def rejection(self, label: str, nth: int, since_ns: int) -> Fault | None:
        """What the nth accepted arrival of a key, `since_ns` after the start, gets for a rejection; None: nothing."""
        for each in self._rejections.get(label, ()):
            if nth <= each.first or each.from_ns <= since_ns < each.until_ns:
                return each.fault
        return None

    def drawn(self, call_id: str, nth: int) -> Fault | None:
        """The fault that chance gives the nth accepted arrival of a call; None: it is answered as usual."""
        if not self._chances:
            return None
        name = f"{nth} {call_id}".encode(errors="backslashreplace")
        draw = int.from_bytes(blake2b(name, digest_size=8, key=self._seed).digest(), "big") / 2**64
        for fault, probability in self._chances:
            if draw < probability:
                return fault
            draw -= probability
        return None


def scripted(script: str, nth: int) -> Fault:
    """The fault that X-Judge-Fault has for the nth accepted arrival of a call. Raises ValueError."""
    faults = parse_script(script)
    return faults[min(nth, len(faults)) - 1]
