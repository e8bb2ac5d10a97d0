"""`apiflux keys thaw` opens what its store holds frozen, and says of each budget what became of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest
import typer
from typer.testing import CliRunner, Result

from apiflux_grpc import bootstrap
from apiflux_grpc.cli.keys import keys
from apiflux_grpc.core.lease.words import Amounts, Cap, Reply, Round
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.engine.ports import LeaseStore
from apiflux_grpc.settings import load
from tests.adapters.lease_redis.servers import RedisServer, program

DAY: Final = Cap(86_400 * SECOND, 10)
FIRST: Final = Round("p/one", "server", 1, (DAY,), 5 * SECOND, 250 * MILLISECOND, want=Amounts(3))

POOL: Final = """
[pools.p]
base_url = "http://127.0.0.1:9"
keys = [{ label = "one", secret = "x" }, { label = "two", secret = "y" }]
limits = [{ max = 10, per = "24h" }]
groups = [{ keys = ["one", "two"], limits = [{ max = 15, per = "24h" }] }]
"""

app = typer.Typer()
app.command()(keys)


def thaw(file: Path, *args: str) -> Result:
    """What the command says."""
    return CliRunner().invoke(app, ["thaw", "--config", str(file), *args])


def configured(folder: Path, head: str) -> Path:
    """A configuration that begins so."""
    file = folder / "apiflux.toml"
    file.write_text(head + POOL)
    return file


def heard(file: Path, *rounds: Round) -> list[Reply]:
    """What the store of this configuration replies to a server, each round with the terms of the last reply."""

    async def replies() -> list[Reply]:
        store = await bootstrap.open_store(load(file, environ={}))
        assert store is not None
        try:
            return [await one(store, round) for round in rounds]
        finally:
            await store.close()

    async def one(store: LeaseStore, round: Round) -> Reply:
        (reply,) = await store.exchange([round])
        assert reply is not None
        return reply

    return asyncio.run(replies())


def after(reply: Reply) -> Round:
    """The server's next round."""
    return FIRST._replace(number=reply.number + 1, epoch=reply.epoch, told=reply.now, floor=reply.now)


def opened(file: Path) -> None:
    """A server waits for a key of which the store knows nothing; then somebody opens it, and it is granted at once."""
    (reply,) = heard(file, FIRST._replace(number=7, epoch="before the loss"))
    assert (reply.granted.calls, reply.opens >= DAY.per) == (0, True)
    done = thaw(file, "one", "--yes")
    assert done.stdout.splitlines() == [
        "key one: opened",
        "group one + two: unknown to the store; if a server waits for it, repeat the command once it has asked",
    ]
    assert done.exit_code == 0
    (reply,) = heard(file, after(reply))
    assert (reply.granted.calls, reply.roster) == (3, frozenset(["server"]))
    assert thaw(file, "one", "--yes").stdout.startswith("key one: wasn't frozen, or opens")


def test_a_key_whose_state_file_was_lost_is_opened(tmp_path: Path) -> None:
    """The file is deleted under a server that remembers it."""
    file = configured(tmp_path, '[server]\nstate_dir = "state"\n')
    (reply,) = heard(file, FIRST._replace(trust=True))
    assert reply.granted.calls == 3
    for one in (tmp_path / "state").iterdir():
        one.unlink()
    opened(file)


def test_a_key_whose_redis_has_forgotten_it_is_opened(tmp_path: Path) -> None:
    """By the same command, over the same store that the servers have."""
    with RedisServer(program()) as server:
        opened(configured(tmp_path, f'[budget]\nredis = "{server.url}"\n'))


def test_nothing_is_opened_unasked(tmp_path: Path) -> None:
    """Without a terminal it says what it would open, what that risks, and that --yes is missing."""
    file = configured(tmp_path, '[server]\nstate_dir = "state"\n')
    refused = thaw(file, "one")
    assert refused.exit_code == 2
    for said in ("key one; group one + two", "may exceed its limits", "--yes"):
        assert said in refused.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("head", "args", "said"),
    [
        ('[server]\nstate_dir = "state"\n', ["three"], "no key is called 'three'; there are one, two"),
        ('[server]\nstate_dir = "state"\n', ["one", "--pool", "q"], "no pool is called 'q'; there are p"),
        ('[server]\nstate_dir = ""\n', ["one"], "keeps its budgets in no store"),
        ('[budget]\nredis = "redis://127.0.0.1:1"\n', ["one"], "127.0.0.1:1"),
    ],
)
def test_what_can_not_be_opened_is_said(tmp_path: Path, head: str, args: list[str], said: str) -> None:
    """An unknown key or pool, a pool without a store, a store that is gone: each ends with 2."""
    refused = thaw(configured(tmp_path, head), *args, "--yes")
    assert refused.exit_code == 2
    words = refused.stderr.replace("│", " ").split()
    assert said in " ".join(words)
