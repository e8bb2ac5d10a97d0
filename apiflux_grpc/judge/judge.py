"""The judge's state on its one event loop: the ledger, the rejections on command, and the control endpoints.

The rule: an arrival is judged on the stamp of its first byte. Control requests (/_judge/...) share the port and are
not recorded. It deliberately doesn't know whose client it judges.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Final
from urllib.parse import unquote

from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.apis.known import APIS
from apiflux_grpc.judge.backlog import Backlog, Step
from apiflux_grpc.judge.chance import REJECTED, Faults, scripted
from apiflux_grpc.judge.dialects import DIALECTS
from apiflux_grpc.judge.faults import Fault
from apiflux_grpc.judge.ledger import Ledger
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.report import Live, Report
from apiflux_grpc.judge.speaking import Speaker
from apiflux_grpc.judge.telling import Teller

TICK_NS: Final = 5_000_000
READ_HEADERS: Final = frozenset({b"x-call-id", b"x-attempt", b"x-judge-fault", b"content-length", b"transfer-encoding"})


class _Lag:
    """How late the loop ran at worst: stamps are no better than that. A stall may be told up to one tick too short."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        self._due = self._clock() + TICK_NS
        self._max = 0

    def tick(self) -> None:
        self.read()
        self._due = self._clock() + TICK_NS
        asyncio.get_running_loop().call_later(TICK_NS / SECOND, self.tick)

    def read(self) -> int:
        """The worst so far, in ns; a stall that is just ending is included."""
        self._max = max(self._max, self._clock() - self._due)
        return self._max


class Judge:
    """`clock` gives nanoseconds, `wall` seconds since 1970, for dates; with `soon` there is a backlog.

    Connections write `connections` and `refused` and their answers `in_flight`, each for itself.
    """

    def __init__(
        self,
        options: JudgeOptions,
        clock: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], float] = time.time,
        soon: Callable[[Step], object] | None = None,
    ) -> None:
        self._started = clock()
        api = APIS[options.speak]
        self.ledger = Ledger(options.keys, options.limits, options.others, self._started)
        self.speaker = Speaker(api, wall)
        # A plain answer takes no longer than it would to put it off.
        self.backlog = None if soon is None or self.speaker.plain else Backlog(soon)
        dialect = api.dialect if options.headers is None else DIALECTS[options.headers]
        self.teller = Teller(dialect, options.limits, wall)
        self.lag = _Lag(clock)
        self.clock = clock
        self.wall = wall
        self._labels = frozenset(options.keys)
        self._faults = Faults(options.faults, options.rejections, options.seed)
        self._rejecting: set[str] = set()  # labels, on command
        self.key_in = options.key_in or api.key_in
        self.key_header = b"" if self.key_in.kind == "query" else self.key_in.name.lower().encode()
        self.counts_cost = any(limit.counts == "cost" for limit in options.limits)
        kind, name = options.cost_in or api.cost_in or ("usage", "")
        self.cost_by_usage = kind == "usage"
        self.cost_header = name.lower().encode() if self.counts_cost and kind == "header" else b""
        self.read_headers = READ_HEADERS | self.speaker.headers | {self.key_header, self.cost_header} - {b""}
        self.cost_path = tuple(name.split(".")) if self.counts_cost and kind == "json" else None
        self.refused: Counter[int] = Counter()  # accepted arrivals that the API refuses, by status
        self.in_flight = self.most_in_flight = 0
        self.connections: set[asyncio.Transport] = set()
        self._latency = tuple(ns / SECOND for ns in options.latency_ns)

    def latency(self) -> float:
        """Seconds that the next answer takes."""
        low, high = self._latency
        return low if low == high else random.uniform(low, high)

    def control(self, method: bytes, path: bytes) -> tuple[int, Mapping[str, object]]:
        """Status and body for a request to a control endpoint."""
        _, _, name, *rest = path.split(b"/", 3)
        wanted, act = {
            b"report": (b"GET", self._report),
            b"calls": (b"GET", self._calls),
            b"reset": (b"POST", self._reset),
            b"live": (b"GET", self._live),
        }.get(name, (b"", None))
        label = unquote(b"".join(rest).decode("utf-8", "backslashreplace"))
        if name in (b"reject", b"accept") and label in self._labels:
            wanted, act = b"POST", partial(self._reject, label, name == b"reject")
        elif rest:
            act = None
        if act is None:
            return 404, {"ok": False, "error": "no such control endpoint"}
        if method != wanted:
            return 405, {"ok": False, "error": f"expected {wanted.decode()}"}
        return 200, act()

    def report(self) -> Report:
        self.ledger.pass_to(self.clock())
        return replace(self.ledger.report(self.lag.read()), refused=dict(self.refused))

    def _report(self) -> Mapping[str, object]:
        return self.report().to_json()

    def fault(self, script: bytes, call_id: str, key: str, now: int) -> Fault | None:
        """The fault of the arrival that was accepted last; None: it is answered as usual.

        Raises ValueError for a script that can't be read.
        """
        if not (script or self._rejecting or self._faults.any):
            return None
        nth = self.ledger.accepted_of(call_id)
        if script:
            fault: Fault | None = scripted(script.decode("utf-8", "backslashreplace"), nth)
        else:
            label = self.ledger.label(key)
            nth_of_key = self.ledger.accepted_with(key)
            rejected = self._faults.rejection(label, nth_of_key, now - self._started)
            fault = REJECTED if label in self._rejecting else rejected or self._faults.drawn(call_id, nth)
        return None if fault is None or fault.kind == "ok" else fault

    def _calls(self) -> Mapping[str, object]:
        return self.ledger.calls()

    def _reject(self, label: str, rejects: bool) -> Mapping[str, object]:
        (self._rejecting.add if rejects else self._rejecting.discard)(label)
        return {"ok": True}

    def _reset(self) -> Mapping[str, object]:
        self._started = self.clock()
        self.ledger.reset(self._started)
        self.lag.reset()
        self.refused.clear()
        self.most_in_flight = self.in_flight
        self._rejecting.clear()
        return {"ok": True}

    def _live(self) -> Mapping[str, object]:
        keys = self.ledger.counts()
        unknown = self.ledger.unknown_arrivals
        arrivals = unknown + sum(map(sum, keys.values()))
        return asdict(Live(arrivals, unknown, self.in_flight, keys, self.most_in_flight))
