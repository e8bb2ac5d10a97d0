"""Where a server keeps its budgets, and what it says if it can't."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from apiflux_grpc import bootstrap
from apiflux_grpc.adapters import mounts
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.settings import PoolSettings, Settings
from apiflux_grpc.settings.types import StateSettings

POOL = Pool("default", (Key("a", "secret", (Limit(10, SECOND),)),))
REAL = PoolSettings(replace(POOL, upstream="http", base_url="http://127.0.0.1:9"), "http://127.0.0.1:9")
SIMULATED = PoolSettings(replace(POOL, name="simulated"))
SHARES = PoolSettings(Pool("shares", (Key("a", "secret", (Limit(10, SECOND),), budget="x"),)))
FORGETFUL = Settings((REAL, SIMULATED, SHARES, replace(SHARES, pool=replace(SHARES.pool, name="too"))))


def kept(directory: Path | None, asked_at: str = "", *, trust: bool = True) -> Settings:
    return replace(FORGETFUL, state=StateSettings(directory, asked_at, trust))


@pytest.mark.parametrize(
    ("asked_at", "with_store"), [("", ["default", "shares", "too"]), ("x", ["default", "simulated", "shares", "too"])]
)
async def test_budgets_are_kept_where_the_start_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, asked_at: str, with_store: list[str]
) -> None:
    """Those of real APIs by themselves, and all if it was asked for."""
    settings = kept(tmp_path / "state", asked_at)
    with caplog.at_level(logging.INFO):
        store = await bootstrap.open_store(settings)
    assert store is not None
    assert caplog.messages == [f"budgets are kept in {tmp_path}/state/budgets.sqlite3"]
    parts = bootstrap.parts_with(settings, store)
    assert [part.pool.name for part in parts if part.store is store] == with_store
    await store.close()


@pytest.mark.parametrize(("trust", "said"), [(True, "nothing was spent"), (False, "everything was spent")])
async def test_memory_is_said_to_be_all_there_is(caplog: pytest.LogCaptureFixture, trust: bool, said: str) -> None:
    """And what counts of the time before. Pools that share have a store of their own."""
    settings = kept(None, trust=trust)
    with caplog.at_level(logging.INFO):
        assert await bootstrap.open_store(settings) is None
    (text,) = caplog.messages
    assert said in text
    real, simulated, shares, too = bootstrap.parts_with(settings, None)
    assert (real.store, simulated.store, shares.store is None, too.store) == (None, None, False, shares.store)
    assert [part.pool.begins_spent for part in (real, simulated)] == [not trust] * 2
    alone = replace(settings, pools=(REAL, SHARES))
    assert [part.store for part in bootstrap.parts_with(alone, None)] == [None, None]
    assert (shares.pool.begins_spent, shares.trust) == (False, trust)


async def test_a_default_that_can_not_be_used_stops_no_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A container's user may have no home that can be written: the server says so, and keeps nothing."""
    (tmp_path / "home").write_text("not a directory")
    assert await bootstrap.open_store(kept(tmp_path / "home" / "state")) is None
    (text,) = caplog.messages
    assert "/home/state/budgets.sqlite3 can't be opened: Not a directory; choose another state_dir" in text
    assert "a restart forgets them" in text


async def test_a_state_dir_that_was_asked_for_and_can_not_be_used_is_a_fault(tmp_path: Path) -> None:
    """With its place, and what to do."""
    (tmp_path / "home").write_text("not a directory")
    with pytest.raises(
        bootstrap.StateUnusable, match=r"^c\.toml: server\.state_dir: .* choose another state_dir than "
    ):
        await bootstrap.open_store(kept(tmp_path / "home" / "state", "c.toml: server.state_dir"))


async def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is made on it; as a default it is only not used."""
    table = tmp_path / "mounts"
    table.write_text(f"22 21 0:5 / {tmp_path} rw,relatime - nfs4 server:/export rw\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    with pytest.raises(bootstrap.StateUnusable, match=r"on a network file system \(nfs4\)"):
        await bootstrap.open_store(kept(tmp_path / "state", "c.toml: server.state_dir"))
    assert await bootstrap.open_store(kept(tmp_path / "state")) is None
    assert not (tmp_path / "state").exists()
