"""Redis Cluster and Sentinel, made of real servers on ports of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from apiflux_grpc.core.lease.words import Amounts
from tests.adapters.lease_redis.rounds import FIRST, answered, next_of, one, store_at
from tests.adapters.lease_redis.sentinels import wait_until, watched
from tests.adapters.lease_redis.servers import RedisServer

SLOTS = 16384
KEY = "apiflux:budget:key"

Begin = Callable[..., RedisServer]


@pytest.fixture
def cluster(begin: Begin) -> list[RedisServer]:
    """Three nodes, each with a third of the slots."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "500", "--cluster-require-full-coverage", "no")
    nodes = [begin(*options) for _ in range(3)]
    for number, node in enumerate(nodes):
        ask: Any = node.client.execute_command
        ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        ask("CLUSTER", "ADDSLOTS", *range(SLOTS * number // 3, SLOTS * (number + 1) // 3))
        if number:
            ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)

    def agree(node: RedisServer) -> bool:
        told: Any = node.client.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
        info: Any = node.client.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
        return len(told) == 3 and "cluster_state:ok" in str(info)

    wait_until(lambda: all(map(agree, nodes)))
    return nodes


@pytest.mark.slow
async def test_budgets_are_spread_over_a_cluster(cluster: list[RedisServer]) -> None:
    """One exchange asks every node once; without one of them the budgets of the others go on, and its own are None."""
    rounds = [FIRST._replace(budget=f"budget {number}") for number in range(30)]
    async with store_at(f"redis+cluster://127.0.0.1:{cluster[0].port},127.0.0.1:{cluster[1].port}") as store:
        assert await store.check() == []
        replies = await store.exchange(rounds)
        assert [reply.granted for reply in replies if reply] == [Amounts(1)] * 30
        keys = [{str(key) for key in node.client.keys("*:budget:*")} for node in cluster]
        assert all(keys)
        assert sum(map(len, keys)) == 30
        cluster[2].kill()
        replies = await store.exchange([round._replace(incarnation="b") for round in rounds])
        lost = {
            str(f"apiflux:budget:{round.budget}".encode())
            for round, reply in zip(rounds, replies, strict=True)
            if reply is None
        }
        assert lost == keys[2]
        assert all(reply.granted == Amounts(1) for reply in replies if reply)


@pytest.fixture
def sentinels() -> Iterator[list[RedisServer]]:
    """A primary, a replica of it, and three Sentinels."""
    with watched() as servers:
        yield servers


@pytest.mark.slow
@pytest.mark.timeout(180)  # on a machine that stops for two seconds Sentinels wait for thirty
async def test_a_failover_that_loses_what_was_acknowledged_freezes_the_budget(sentinels: list[RedisServer]) -> None:
    """Rule 8: the replica that takes over never heard of a grant, and nobody overspends for it: it has another run."""
    primary, replica, *watchers = sentinels
    where = ",".join(f"127.0.0.1:{one.port}" for one in watchers)
    async with store_at(f"redis+sentinel://{where}/main") as store:
        (advice,) = await store.check()
        assert "min-replicas-to-write" in advice
        reply = await one(store, FIRST)
        assert primary.client.wait(1, 1000) == 1
        known = replica.client.dump(KEY)
        assert known is not None
        lost = await one(store, after := next_of(FIRST, reply, want=Amounts(9)))
        assert lost.granted == Amounts(9)
        primary.kill()
        # As if the link between them had been too slow. Its run tells, whatever it knows.
        replica.client.restore(KEY, 0, known, replace=True)
        again = await answered(store, next_of(after, lost))
        assert again.epoch != reply.epoch
        assert again.granted == Amounts()
        assert again.opens > 75e9, "T + L + J + failover_lag"
        other = await one(store, FIRST._replace(incarnation="b", want=Amounts(10)))
        assert (other.epoch, other.granted) == (again.epoch, Amounts())
