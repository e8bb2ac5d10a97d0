"""Replicas that share the calls in flight of one key, on virtual time, with the real protocol.

Rule: the world keeps true time; each clock only follows it. The judge counts calls from their sending to their end, and
knows nothing of slots. Of a process that is gone or stopped calls have ended when their timeout is over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.lease.slotledger import SlotLedger
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.testing.lease_store import FakeLeaseStore
from tests.core.lease.fleet import Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from apiflux_grpc.core.lease.words import Reply, Round

RESEND: Final = 100 * MILLISECOND


@dataclass
class Server:
    """One process. Its clock reads `base + rate * true time`; `want` calls always wait, at most."""

    name: str
    ledger: SlotLedger
    base: int
    ppm: int
    want: int
    alive: bool = True
    stopped: bool = False
    cut_off: bool = False  # nothing that it sends arrives, and what is on its way to it does
    done: int = 0
    flying: dict[int, int] = field(default_factory=dict)  # its calls in flight, and by when each has ended for certain
    later: list[Callable[[], None]] = field(default_factory=list)
    woken: int = -1

    def clock(self, now: int) -> int:
        return self.base + now + now * self.ppm // 1_000_000


class SlotFleet:
    """`run` lets time pass; everything else happens now. `most` is the lowest bound."""

    def __init__(
        self, seed: int, most: int, *, timeout: int = SECOND, store_ppm: int = 0, steady: bool = False
    ) -> None:
        self.luck = Random(seed)
        self.now = 0
        self.most = most
        self.timeout = timeout
        self.network = Network()
        self.length = (5 * MILLISECOND, 50 * MILLISECOND)  # of a call
        self.store = FakeLeaseStore(
            lambda: 1_000_000 * SECOND + self.now + self.now * store_ppm // 1_000_000, steady=steady
        )
        self.servers: list[Server] = []
        self.used = 0  # slots times ns
        self.worst = 0
        self._calls = count()
        self._in_flight = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()

    def at(self, when: int, what: Callable[[], None]) -> None:
        heappush(self._events, (max(when, self.now), next(self._order), what))

    def run(self, length: int) -> None:
        end = self.now + length
        while self._events and self._events[0][0] <= end:
            when, _, what = heappop(self._events)
            self._pass(when)
            what()
        self._pass(end)

    def _pass(self, when: int) -> None:
        self.used += (when - self.now) * self._in_flight
        self.now = when

    # -- servers ------------------------------------------------------------------------------

    def add(
        self, want: int = 0, *, most: int | None = None, ppm: int = 0, trust: bool = True, timeout: int = 0
    ) -> Server:
        name = f"server-{len(self.servers)}"
        ledger = SlotLedger("key", name, self.most if most is None else most, timeout or self.timeout, trust=trust)
        server = Server(name, ledger, self.luck.randint(0, 10**15), ppm, want)
        self.servers.append(server)
        self.step(server)
        return server

    def living(self) -> list[Server]:
        return [server for server in self.servers if server.alive]

    def demand(self, server: Server, want: int) -> None:
        server.want = want
        self.step(server)

    def crash(self, server: Server) -> None:
        server.alive = False

    def leave(self, server: Server) -> None:
        """An orderly end: its calls have ended."""
        server.want = 0
        for call in [*server.flying]:
            self._end(server, call)
        round = server.ledger.leave(server.clock(self.now))
        if round is not None:
            self._send(server, round)
        server.alive = False

    def stop(self, server: Server) -> None:
        server.stopped = True

    def go_on(self, server: Server) -> None:
        server.stopped = False
        later, server.later = server.later, []
        for what in later:
            what()
        self.step(server)

    def does(self, server: Server, what: Callable[[], None]) -> Callable[[], None]:
        """`what`, by this process: not while it is stopped, never when it is dead."""

        def act() -> None:
            if server.stopped:
                server.later.append(act)
            elif server.alive:
                what()

        return act

    def step(self, server: Server) -> None:
        """Begin what may begin, and ask for more."""
        if server.stopped or not server.alive:
            return
        clock, ledger = server.clock(self.now), server.ledger
        if ledger.forgotten:
            ledger.begin(f"{ledger.incarnation}+")
        while server.want and ledger.room(clock):
            ledger.take()
            server.want -= 1
            self._begin(server)
        if server.want:
            ledger.lacks = True
        round = ledger.next_round(clock, server.want)
        if round is not None:
            self._send(server, round)
            return
        at = ledger.wake_at(clock, server.want)
        when = self.now + max(1000, (at - clock) * 10_006 // 10_000)
        if at < 1 << 61 and not self.now < server.woken <= when:
            server.woken = when
            self.at(when, self.does(server, lambda: self._wake(server, when)))

    def _wake(self, server: Server, when: int) -> None:
        if server.woken == when:
            server.woken = -1
            self.step(server)

    def _begin(self, server: Server) -> None:
        call = next(self._calls)
        self._in_flight += 1
        # By the slowest clock that there may be.
        server.flying[call] = self.now + server.ledger.timeout * 1001 // 1000
        self.worst = max(self.worst, self._in_flight)
        length = min(self.luck.randint(*self.length), server.ledger.timeout)
        self.at(self.now + length, self.does(server, lambda: self._answered(server, call)))
        self.at(server.flying[call], lambda: self._timed_out(server, call))

    def _answered(self, server: Server, call: int) -> None:
        self._end(server, call)
        server.ledger.over()
        server.done += 1
        self.step(server)

    def _end(self, server: Server, call: int) -> None:
        if server.flying.pop(call, None) is not None:
            self._in_flight -= 1

    def _timed_out(self, server: Server, call: int) -> None:
        if server.stopped or not server.alive:
            self._end(server, call)

    # -- the network --------------------------------------------------------------------------

    def _send(self, server: Server, round: Round) -> None:
        for passage in () if server.cut_off else self.network.passages(self.luck):
            self.at(self.now + passage, lambda: self._serve(server, round))

        def resend() -> None:
            under_way = server.ledger.under_way
            if under_way is not None and under_way.number == round.number:
                self._send(server, server.ledger.again(server.clock(self.now)))

        self.at(self.now + RESEND, self.does(server, resend))

    def _serve(self, server: Server, round: Round) -> None:
        if self.store.gone:
            return
        reply = self.store.serve(round)
        for passage in self.network.passages(self.luck):
            self.at(self.now + passage, self.does(server, lambda: self._hear(server, reply)))

    def _hear(self, server: Server, reply: Reply) -> None:
        server.ledger.heard(reply, server.clock(self.now))
        self.step(server)

    # -- what holds ---------------------------------------------------------------------------

    def use(self, length: int) -> float:
        """The part of all slots that is used within so long."""
        before = self.used
        self.run(length)
        return (self.used - before) / (self.most * length)

    def check(self) -> None:
        assert self.worst <= self.most, f"{self.worst} calls in flight, bound {self.most}"
