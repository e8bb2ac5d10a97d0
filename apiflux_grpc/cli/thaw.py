"""`apiflux keys thaw`: what is frozen in a store is opened there, whatever servers are running."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from apiflux_grpc.cli.options import load_settings, run_cancellable
from apiflux_grpc.cli.signals import CUT_SHORT
from apiflux_grpc.cli.streams import say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.settings import Settings


def thaw(label: str, config: Path | None, pool: str | None, *, yes: bool) -> None:
    """Open a key that waits because its store has forgotten what was spent of it. Raises Exit."""
    from apiflux_grpc.core.budget_names import names_of

    settings = load_settings(config, allow_plaintext=True)
    found = _pool_of(settings, label, pool)
    budgets = names_of(found, label)
    if not budgets:
        say(f"key {label} of pool {found.name} has no limits, so nothing of it is frozen")
        raise typer.Exit(2)
    if not yes:
        say(f"This opens, in the store of pool {found.name}: {'; '.join(budgets.values())}.")
        say("Calls that the store doesn't remember count no more: the key may exceed its limits at the API.")
        if not sys.stdin.isatty():
            say("nobody can be asked, as standard input is no terminal: give --yes to open it")
            raise typer.Exit(2)
        if not typer.confirm("Open it?", err=True):
            raise typer.Exit(CUT_SHORT)
    raise typer.Exit(run_cancellable(_thaw(settings, found, budgets)))


def _pool_of(settings: Settings, label: str, name: str | None) -> Pool:
    pools = [one.pool for one in settings.pools]
    if name is not None:
        pools = [one for one in pools if one.name == name]
        if not pools:
            names = ", ".join(one.pool.name for one in settings.pools)
            raise typer.BadParameter(f"no pool is called {name!r}; there are {names}", param_hint="--pool")
    having = [one for one in pools if any(key.label == label for key in one.keys)]
    if not having:
        labels = ", ".join(key.label for one in pools for key in one.keys)
        raise typer.BadParameter(f"no key is called {label!r}; there are {labels}", param_hint="LABEL")
    if len(having) > 1:
        names = ", ".join(one.name for one in having)
        raise typer.BadParameter(f"which one? The pools {names} have such a key", param_hint="--pool")
    return having[0]


async def _thaw(settings: Settings, pool: Pool, budgets: Mapping[str, str]) -> int:
    import secrets

    from apiflux_grpc import bootstrap
    from apiflux_grpc.core.lease.words import Round

    try:
        store = await bootstrap.open_store(settings)
    except bootstrap.StateUnusable as error:
        say(str(error))
        return 2
    try:
        kept = store is not None and [one.store for one in bootstrap.parts_with(settings, store) if one.pool == pool]
        if store is None or kept != [store]:
            say(
                f"pool {pool.name} keeps its budgets in no store, so none of them is frozen: `[server] state_dir` or "
                "`[budget] redis` names one"
            )
            return 2
        me = f"thaw-{secrets.token_hex(16)}"
        rounds = [Round(name, me, 1, (), 0, 0, leaves=True, thaw=True) for name in budgets]
        replies = await store.exchange(rounds)
    except ConnectionError as error:
        say(str(error))
        return 2
    finally:
        if store is not None:
            await store.close()
    for whose, reply in zip(budgets.values(), replies, strict=True):
        if reply is None:
            print(f"{whose}: no answer; repeat the command")
        elif not reply.epoch:
            print(f"{whose}: unknown to the store; if a server waits for it, repeat the command once it has asked")
        elif not reply.opens:
            print(f"{whose}: wasn't frozen, or opens by itself within seconds")
        else:
            print(f"{whose}: opened")
    return 2 if None in replies else 0
