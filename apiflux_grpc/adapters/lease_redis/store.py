"""A LeaseStore in Redis or Valkey.

Rule: the rounds of an exchange go out together, one command each, and every command is sent once. What was sent is
never cancelled, also if whoever asked is. However the server fails, it is a ConnectionError, or a None for the rounds
that it concerns; nobody knows then whether they were served, and asking again gets the reply.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from apiflux_grpc.adapters.lease_redis.checks import advice_on, fault_of
from apiflux_grpc.adapters.lease_redis.client import RedisStoreError, client_of, close, errors, fault_in
from apiflux_grpc.adapters.lease_redis.script import script
from apiflux_grpc.adapters.lease_redis.words import reply_of, told
from apiflux_grpc.core.lease.codec import LAYOUT
from apiflux_grpc.core.lease.terms import LEAST_LIFE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.adapters.lease_redis.script import Script
    from apiflux_grpc.core.lease.words import Reply, Round
    from apiflux_grpc.core.redis_url import RedisUrl

PREFIX: Final = "apiflux:budget:"
# It also runs all that a round does, so that a user without the right to is found at the start.
_LAYOUT: Final = """
redis.call('TIME')
redis.call('INFO', 'server')
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
"""


class RedisLeaseStore:
    """`place` is of the server. Raises RedisStoreError without redis-py."""

    least_life = LEAST_LIFE
    is_near = False

    def __init__(self, place: RedisUrl, serve: Script | None = None) -> None:
        """`serve`: another script than ours, for tests."""
        self.place = place
        self._serve = serve or script()
        try:
            self._client = client_of(place)
        except RedisStoreError as error:
            raise RedisStoreError(f"{place} {error}") from None
        self._is_checked = False  # since the server was gone last
        self._open: set[asyncio.Task[Any]] = set()

    async def check(self) -> list[str]:
        """Whether it may hold budgets, now instead of with the first exchange, and on a connection of its own: any loop
        may ask. Returns what to advise.

        Raises RedisStoreError: it can't hold budgets; ConnectionError: it is gone.
        """
        client = client_of(self.place)
        try:
            advice = await self._checked(client)
            found = await client.eval(_LAYOUT, 1, "apiflux:layout", LAYOUT)
        except errors() as error:
            fault = fault_in(error)
            if fault:
                raise RedisStoreError(f"{self.place} {fault}") from error
            raise self._gone(error) from error
        finally:
            await close(client)
        if int(found) != LAYOUT:
            raise RedisStoreError(f"{self.place} {_layout_fault(found.decode())}")
        return advice

    async def exchange(self, rounds: Sequence[Round]) -> list[Reply | None]:
        """See LeaseStore."""
        if not rounds:
            return []
        task = asyncio.create_task(self._exchange(rounds))
        self._open.add(task)
        task.add_done_callback(self._over)
        return await asyncio.shield(task)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._open.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may have been cancelled

    async def close(self) -> None:
        """Close its connections; what was sent is answered first, or given up."""
        if self._open:
            await asyncio.wait(self._open)
        await close(self._client)

    # -- one exchange -------------------------------------------------------------------------

    async def _checked(self, client: Any) -> list[str]:
        infos = [await client.info()] if self.place.kind != "cluster" else await _infos(client)
        for info in infos:
            fault = fault_of(info, self.place.kind)
            if fault:
                raise RedisStoreError(f"{self.place} {fault}")
        return sorted({advice for info in infos if (advice := advice_on(info))})

    async def _exchange(self, rounds: Sequence[Round]) -> list[Reply | None]:
        try:
            if not self._is_checked:
                await self._checked(self._client)
                self._is_checked = True
            results = await self._asked(rounds)
        except RedisStoreError as error:
            raise ConnectionError(str(error)) from error
        except errors() as error:
            await self._forget()
            raise self._gone(error) from error
        failed = [one for one in results if isinstance(one, BaseException)]
        if failed:
            await self._forget()
        if len(failed) == len(results):
            raise self._gone(failed[0]) from failed[0]
        return [None if isinstance(one, BaseException) else reply_of(one) for one in results]

    async def _asked(self, rounds: Sequence[Round]) -> list[Any]:
        """The script's words to each round, or an error."""
        from redis.exceptions import NoScriptError

        text, sha = self._serve
        asks = [(PREFIX + round.budget, told(round)) for round in rounds]
        results = await self._sent([("EVALSHA", sha, 1, *ask) for ask in asks])
        # Those weren't served. The whole text is what the server then remembers.
        unknown = [place for place, one in enumerate(results) if isinstance(one, NoScriptError)]
        if unknown:
            again = await self._sent([("EVAL", text, 1, *asks[place]) for place in unknown])
            for place, one in zip(unknown, again, strict=True):
                results[place] = one
        return results

    async def _sent(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers, or errors: together on one connection for each server."""
        if self.place.kind != "cluster":
            return await self._pipelined(commands)
        await self._client.initialize()
        nodes: dict[str, list[int]] = {}
        for place, command in enumerate(commands):
            nodes.setdefault(self._client.get_node_from_key(command[3]).name, []).append(place)
        parts = await asyncio.gather(
            *(self._pipelined([commands[place] for place in places]) for places in nodes.values()),
            return_exceptions=True,
        )
        results: list[Any] = [None] * len(commands)
        for places, part in zip(nodes.values(), parts, strict=True):
            for number, place in enumerate(places):
                results[place] = part if isinstance(part, BaseException) else part[number]
        return results

    async def _pipelined(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        results: list[Any] = await pipe.execute(raise_on_error=False)
        return results

    async def _forget(self) -> None:
        """Whatever comes next is asked on new connections, of a server that is checked again."""
        self._is_checked = False
        with suppress(*errors()):
            if self.place.kind == "cluster":
                await self._client.nodes_manager.initialize()
            else:
                await self._client.connection_pool.disconnect(inuse_connections=False)

    def _gone(self, error: BaseException) -> ConnectionError:
        said = str(error).removesuffix(".")
        if said.startswith("APIFLUX_LAYOUT "):
            return ConnectionError(f"{self.place} {_layout_fault(said.split()[1])}")
        # A server without TLS may leave a greeting in it unanswered.
        hint = ", or doesn't speak TLS" if self.place.tls and "Timeout" in said else ""
        return ConnectionError(f"{self.place} {fault_in(error) or f'is gone{hint}: {said or type(error).__name__}'}")

    def __repr__(self) -> str:
        return f"<RedisLeaseStore {self.place}>"


async def _infos(cluster: Any) -> list[dict[str, Any]]:
    await cluster.initialize()
    found = await cluster.info(target_nodes=cluster.PRIMARIES)
    # One node's is given as it is.
    return [found] if "redis_version" in found else [*found.values()]


def _layout_fault(found: str) -> str:
    return (
        f"has budgets of layout {found}, and this version of APIFlux reads {LAYOUT}: run one version everywhere, or "
        "name another database, as in redis://HOST:PORT/1"
    )
