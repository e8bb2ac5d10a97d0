"""What an administrator says of keys: done at once, kept over restarts, followed by all servers with the same files."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest

from apiflux_grpc.core.callers import Access, Caller, Role, digest_of
from apiflux_grpc.core.errors import KeyNotFound, NotKept, PoolNotFound
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.server.administration import Administration, SecretFile
from apiflux_grpc.server.paused import PausedFile
from apiflux_grpc.settings.secret_file import read_secret
from apiflux_grpc.testing import FakeUpstream, SilentObserver
from apiflux_grpc.v1 import admin_pb2 as pb
from apiflux_grpc.v1 import admin_pb2_grpc
from apiflux_grpc.v1 import apiflux_pb2 as flux
from tests.server.serving import connected, serving

LIMITS = (Limit(1000, SECOND),)
POOLS = {
    "one": Pool("one", (Key("a", "canary-a", LIMITS), Key("b", "canary-b", LIMITS))),
    "two": Pool("two", (Key("a", "canary-2", LIMITS),)),
}


def put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    put(path, b"canary-a\n")
    return path


@asynccontextmanager
async def administered(
    directory: Path | None = None, files: Mapping[tuple[str, str], Path] | None = None
) -> AsyncIterator[tuple[Engine, Administration]]:
    engine = Engine([PoolParts(pool, FakeUpstream, None) for pool in POOLS.values()], SilentObserver())
    watched = {place: SecretFile(path, partial(read_secret, path)) for place, path in (files or {}).items()}
    administration = Administration(engine, directory, watched)
    await engine.start(own_thread=False)
    await administration.begin()
    try:
        yield engine, administration
    finally:
        await administration.close()
        await engine.stop()


async def paused_of(engine: Engine) -> list[str]:
    state = await engine.look()
    assert state is not None
    return [f"{name}/{key.label}" for name, pool in state.pools.items() for key in pool.keys if key.state == "paused"]


@pytest.mark.parametrize(
    ("pool", "labels", "chosen"),
    [
        ("", [], [("one", "a"), ("one", "b"), ("two", "a")]),
        ("one", [], [("one", "a"), ("one", "b")]),
        ("", ["a"], [("one", "a"), ("two", "a")]),
        ("one", ["b"], [("one", "b")]),
    ],
)
async def test_keys_are_chosen_by_pool_and_label(pool: str, labels: list[str], chosen: list[tuple[str, str]]) -> None:
    """What isn't said means all."""
    async with administered() as (_, administration):
        assert administration.choose(pool, labels) == chosen


async def test_what_is_not_there_is_named() -> None:
    """And what is there is told, but no pool that this caller doesn't see."""
    async with administered() as (_, administration):
        with pytest.raises(KeyNotFound, match=r"^there is no key 'c'; there are a, b, a$"):
            administration.choose("", ["a", "c"])
        with pytest.raises(PoolNotFound, match=r"'two'; use one of one$"):
            administration.choose("two", [], Access(Role.ADMIN, pools=frozenset({"one"})))
        assert administration.choose("", ["a"], Access(Role.ADMIN, pools=frozenset({"two"}))) == [("two", "a")]


async def test_a_pause_counts_what_it_changed_and_holds_until_it_is_resumed() -> None:
    """Paused twice is paused once."""
    async with administered() as (engine, administration):
        assert await administration.pause([("one", "a")], paused=True) == 1
        assert await administration.pause([("one", "a"), ("one", "b")], paused=True) == 1
        assert await paused_of(engine) == ["one/a", "one/b"]
        assert await administration.pause([("one", "a"), ("two", "a")], paused=False) == 1
        assert await paused_of(engine) == ["one/b"]
        assert not administration.is_kept


async def test_a_pause_holds_over_a_restart_before_any_call_comes(tmp_path: Path) -> None:
    """It is written down; a directory is made for it."""
    async with administered(tmp_path / "state") as (_, administration):
        assert administration.is_kept
        await administration.pause([("one", "a")], paused=True)
    async with administered(tmp_path / "state") as (engine, administration):
        assert await paused_of(engine) == ["one/a"]
        assert await administration.pause([("one", "a")], paused=False) == 1
    async with administered(tmp_path / "state") as (engine, _):
        assert await paused_of(engine) == []


async def test_another_server_with_the_same_directory_follows(tmp_path: Path) -> None:
    """At its next look; neither takes back what the other said."""
    async with administered(tmp_path) as (engine, one), administered(tmp_path) as (other_engine, other):
        await one.pause([("one", "a")], paused=True)
        await other.pause([("two", "a")], paused=True)
        await one.look()
        for each in (engine, other_engine):
            assert await paused_of(each) == ["one/a", "two/a"]


async def test_keys_of_other_servers_stay_paused(tmp_path: Path) -> None:
    """A file may name pools that only another server has."""
    put(tmp_path / "paused.json", b'{"paused": {"theirs": ["x"], "one": ["gone"]}}')
    async with administered(tmp_path) as (engine, administration):
        assert await paused_of(engine) == []
        await administration.pause([("one", "b")], paused=True)
    assert PausedFile(tmp_path).read() == {("theirs", "x"), ("one", "gone"), ("one", "b")}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"paused": 1}', '{"paused": {"one": 3}}', '{"pause": {}}'])
async def test_a_file_that_is_broken_is_named_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """What was paused stays so, the log says once what to do, and a change is refused rather than written over it."""
    async with administered(tmp_path) as (engine, administration):
        await administration.pause([("one", "a")], paused=True)
        put(tmp_path / "paused.json", text.encode())
        for _ in range(3):
            await administration.look()
        assert await paused_of(engine) == ["one/a"]
        (line,) = (record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
        assert line.startswith(f"{tmp_path / 'paused.json'} isn't")
        assert "correct it, or remove it" in line
        with pytest.raises(NotKept, match="correct it"):
            await administration.pause([("one", "b")], paused=True)
        assert await paused_of(engine) == ["one/a"]


async def test_a_pause_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    """Else it would end with the next restart, and nobody would know."""
    put(tmp_path / "state", b"no directory")
    async with administered(tmp_path / "state") as (engine, administration):
        with pytest.raises(NotKept, match=r"paused\.json can't be written: "):
            await administration.pause([("one", "a")], paused=True)
        assert await paused_of(engine) == []


async def test_a_secret_counts_once_its_file_has_been_the_same_for_two_looks(secret: Path) -> None:
    """Who writes a file may be in the middle of it."""
    async with administered(files={("one", "a"): secret}) as (engine, administration):
        put(secret, b"half")
        await administration.look()
        put(secret, b"canary-whole\n")
        await administration.look()
        assert engine.pools["one"].keys[0].secret == "canary-a"
        await administration.look()
        assert engine.pools["one"].keys[0].secret == "canary-whole"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"canary line\nanother", "has a control character or one outside ASCII, which a header can't carry"),
        (None, "can't be read: No such file or directory"),
    ],
)
async def test_a_secret_that_cannot_be_sent_changes_nothing(
    secret: Path, caplog: pytest.LogCaptureFixture, content: bytes | None, why: str
) -> None:
    """The key goes on with the old one; the log says so once, without the secret."""
    async with administered(files={("one", "a"): secret}) as (engine, administration):
        put(secret, content)
        for _ in range(4):
            await administration.look()
        assert engine.pools["one"].keys[0].secret == "canary-a"
        (line,) = [vars(record) for record in caplog.records if record.levelno == logging.ERROR]
        assert "canary" not in repr(line)
        assert (line["pool"], line["key"]) == ("one", "a")
        assert line["why"].endswith(why)
        put(secret, b"canary-new")
        await administration.look()
        await administration.look()
        assert engine.pools["one"].keys[0].secret == "canary-new"


async def test_a_rotation_tells_what_became_of_each_key(secret: Path) -> None:
    """At once, without a second look."""
    async with administered(files={("one", "a"): secret}) as (_, administration):
        everything = administration.choose("", [])
        others = [("one", "b"), ("two", "a")]
        assert await administration.rotate(everything) == ([], [("one", "a")], others, [])
        put(secret, b"canary-new")
        assert await administration.rotate(everything) == ([("one", "a")], [], others, [])
        put(secret, b"")
        assert await administration.rotate(everything) == ([], [], others, [("one", "a")])


async def test_the_service_lists_pauses_and_resumes() -> None:
    """What is told of a key has no secret; a key that is paused says so, and why calls wait."""
    async with serving() as server, connected(server) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        assert await stub.PauseKeys(pb.PauseKeysRequest()) == pb.PauseKeysResponse(kept=False, changed=1)
        (row,) = (await stub.ListKeys(pb.ListKeysRequest(pool="default"))).keys
        assert (row.pool, row.key.label, row.key.state) == ("default", "key-1", flux.KEY_STATE_PAUSED)
        assert [held.reason for held in row.key.held_by] == ["paused by an administrator"]
        assert "canary" not in str(row)
        assert await stub.ResumeKeys(pb.ResumeKeysRequest(keys=["key-1"])) == pb.ResumeKeysResponse(changed=1)
        (row,) = (await stub.ListKeys(pb.ListKeysRequest())).keys
        assert row.key.state == flux.KEY_STATE_USABLE
        assert await stub.RotateKeys(pb.RotateKeysRequest()) == pb.RotateKeysResponse(fixed=["default/key-1"])


@pytest.mark.parametrize(("role", "code"), [(Role.CALLER, "PERMISSION_DENIED"), (Role.ADMIN, "OK")])
async def test_only_an_admin_changes_keys(role: Role, code: str) -> None:
    """Who may send calls may look at keys, and no more."""
    callers = [Caller("somebody", Access(role), (digest_of("token"),))]
    async with serving(callers=callers) as server, connected(server) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        metadata = (("authorization", "Bearer token"),)
        assert len((await stub.ListKeys(pb.ListKeysRequest(), metadata=metadata)).keys) == 1
        call = stub.PauseKeys(pb.PauseKeysRequest(), metadata=metadata)
        assert (await call.code()).name == code


async def test_an_admin_of_other_pools_finds_none() -> None:
    """A pool that somebody doesn't see doesn't exist for them."""
    access = Access(Role.ADMIN, pools=frozenset({"theirs"}))
    callers = [Caller("somebody", access, (digest_of("token"),))]
    async with serving(callers=callers) as server, connected(server) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        call = stub.PauseKeys(pb.PauseKeysRequest(), metadata=(("authorization", "Bearer token"),))
        assert await call.code() is grpc.StatusCode.NOT_FOUND
