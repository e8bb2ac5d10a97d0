"""The script is core/lease/serve.py in Lua: whatever happens to a fleet, both serve each round the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
import redis
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apiflux_grpc.adapters.lease_redis.script import script
from apiflux_grpc.core.lease.words import CALLS, COST, Amounts, Cap, Reply, Round
from apiflux_grpc.core.units import MILLISECOND, SECOND
from tests.adapters.lease_redis.servers import RedisServer, program
from tests.adapters.lease_redis.twin import TwinStore
from tests.core.lease.conversation import Steps, converse, slot_steps, steps
from tests.core.lease.fleet import Calls, Fleet
from tests.core.lease.test_lease_machine import LeaseMachine

BUCKET: Final = Cap(SECOND, 10, CALLS, 5)
BIG: Final = st.integers(0, 10**12)


class TwinMachine(LeaseMachine):
    """The fleet of core/lease, with a store that compares."""

    client: redis.Redis

    def make_store(self, clock: Any) -> TwinStore:
        return TwinStore(clock, self.client)


@pytest.fixture(scope="module", autouse=True)
def _redis() -> Iterator[None]:
    with RedisServer(program()) as server:
        TwinMachine.client = server.client
        yield


TestTwin: Any = TwinMachine.TestCase
TestTwin.settings = settings(max_examples=12, stateful_step_count=30, print_blob=True)
TestTwin.pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


@settings(max_examples=60)
@given(st.one_of(steps(), slot_steps()))
def test_whatever_is_said_both_serve_it_the_same(steps: Steps) -> None:
    """Each reply is equal, and so is the entry after it."""
    check_both(steps)


@pytest.mark.slow
@pytest.mark.timeout(300)
@settings(max_examples=300)
@given(st.one_of(steps(), slot_steps()))
def test_whatever_is_said_both_serve_it_the_same_for_longer(steps: Steps) -> None:
    """The same of more."""
    check_both(steps)


def check_both(steps: Steps) -> None:
    now = [0]
    twin = TwinStore(lambda: now[0], TwinMachine.client)

    def both(round: Round, clock: int, run: str) -> Reply:
        now[0], twin.run_id = clock, run
        return twin.serve(round)

    converse(steps, both)


def test_a_fleet_is_served_the_same() -> None:
    """Some seconds of four replicas that share two limits of calls and one of cost, and of a crash and a failover."""
    fleet = Fleet(1, make_store=lambda clock: TwinStore(clock, TwinMachine.client))
    fleet.calls = Calls(cost=(1, 4), part=(0.5, 1.5))
    caps = [Cap(SECOND, 9), Cap(SECOND, 20, COST), Cap(5 * SECOND, 30)]
    for _ in range(4):
        fleet.add(caps, jitter=20 * MILLISECOND, want=1000)
    fleet.run(10 * SECOND)
    fleet.crash(fleet.replicas[0])
    fleet.run(500 * MILLISECOND)
    fleet.store.fail_over(fleet.store.saved())
    fleet.run(500 * MILLISECOND)
    assert fleet.store.rounds > 100


@pytest.mark.parametrize("next_caps", [(BUCKET,), (Cap(2 * SECOND, 10, CALLS, 5), BUCKET)])
def test_a_server_that_follows_one_that_left_is_served_the_same(next_caps: tuple[Cap, ...]) -> None:
    """Its limits are those of a bucket that is known, and others besides."""
    now = [1000 * SECOND]
    twin = TwinStore(lambda: now[0], TwinMachine.client)
    first = Round("key", "a", 1, (BUCKET,), 400 * MILLISECOND, 0, trust=True)
    reply = twin.serve(first)
    now[0] += 3 * SECOND
    twin.serve(first._replace(number=2, epoch=reply.epoch, told=reply.now, floor=now[0], leaves=True))
    now[0] += SECOND
    second = twin.serve(first._replace(incarnation="b", caps=next_caps, want=Amounts(3)))
    assert second.granted.calls == (3 if next_caps == (BUCKET,) else 0)


@example(a=10**12 - 1, b=10**12 - 1, c=10**12)  # as a double it is a whole number, and 1 less
@given(a=BIG, b=BIG, c=st.integers(1, 10**12))
@settings(max_examples=100)
def test_a_part_is_exact(a: int, b: int, c: int) -> None:
    """a * b / c, rounded up, of all amounts that a limit may have, whatever a double holds."""
    text, _, _ = script().text.partition("local function fair(")
    ask = text + "return string.format('%.0f', part_of(tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])))"
    found = TwinMachine.client.eval(ask, 0, *map(str, (a, b, c)))
    assert isinstance(found, bytes)
    exact = -(-a * b // c)
    assert int(found) == (exact if exact < 1 << 53 else pytest.approx(exact))
