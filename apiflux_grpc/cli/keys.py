"""`apiflux keys`: the keys of running servers; `thaw` is for their store.

Rule: what changes something names its keys, or says --all: a word that was forgotten pauses nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from apiflux_grpc.cli.options import ConfigOption, TargetsOption
from apiflux_grpc.cli.reach import (
    CaFileOption,
    CertFileOption,
    KeyFileOption,
    PlaintextTokenOption,
    TlsOption,
    TokenFileOption,
    tls_options,
    token_of,
)
from apiflux_grpc.cli.signals import CUT_SHORT, SIGNALS
from apiflux_grpc.cli.streams import say
from apiflux_grpc.cli.thaw import thaw
from apiflux_grpc.core.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.client.admin import Admin, Changed

HERE = ["localhost:50051"]


class Action(StrEnum):
    list = "list"
    pause = "pause"
    resume = "resume"
    rotate = "rotate"
    thaw = "thaw"


def keys(
    action: Annotated[Action, typer.Argument(help="What to do.")],
    labels: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="The keys, by their labels.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All keys: of --pool, else of every pool.")] = False,
    pool: Annotated[
        str | None, typer.Option(metavar="NAME", help="The pool of the keys; default: every pool that has such keys.")
    ] = None,
    target: TargetsOption = HERE,
    ca_file: CaFileOption = None,
    cert_file: CertFileOption = None,
    key_file: KeyFileOption = None,
    tls: TlsOption = False,
    token_file: TokenFileOption = None,
    plaintext_token: PlaintextTokenOption = False,
    config: ConfigOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="With thaw: don't ask.")] = False,
) -> None:
    """Show, pause, resume or rotate the keys of a running server, or open one that is frozen.

    `list` shows each key, what it can do now and what holds it back. `pause` lets no call get these keys, and `resume`
    lets calls get them again; calls that can go with no other key wait meanwhile. `rotate` reads secrets again from
    their files, which a server does by itself within two seconds of a change. These ask the server at --target, each of
    several; a server with callers wants the token of an admin.

    `thaw KEY` opens, in the store of --config, a key that waits because the store has forgotten what was spent of it.
    It is for those who know that nothing was spent meanwhile, or accept the risk: calls that the store doesn't remember
    count no more, so the key may exceed its limits at the API. It opens the key's own limits, those of its group, and
    those with paths. Servers need not be restarted: they hear of it within a second.
    """
    chosen = labels or []
    if chosen and every:
        raise typer.BadParameter("conflicts with the names of keys; give one of them", param_hint="--all")
    if action is Action.thaw:
        if len(chosen) != 1:
            raise typer.BadParameter("name one key", param_hint="KEY")
        thaw(chosen[0], config, pool, yes=yes)
    if not chosen and not every and action is not Action.list:
        raise typer.BadParameter(f"name the keys to {action.value}, or give --all", param_hint="KEY")
    secure = tls_options(tls, ca_file, cert_file, key_file)
    token = token_of(token_file, target, secure=secure is not None, over_plaintext=plaintext_token, refused=2)
    from apiflux_grpc.client import ApifluxError, Unavailable
    from apiflux_grpc.client.admin import Admin

    SIGNALS.raise_interrupts()
    try:
        with Admin(target, tls=secure, token=token, plaintext_token=plaintext_token) as admin:
            raise typer.Exit(_DO[action](admin, chosen, pool or ""))
    except Unavailable as error:
        say(f"{', '.join(target)}: {error}; is the server running there?")
        raise typer.Exit(CUT_SHORT) from None
    except (ApifluxError, OSError, ValueError) as error:
        say(str(error))
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(CUT_SHORT) from None


def _list(admin: Admin, chosen: list[str], pool: str) -> int:
    from rich.console import Console
    from rich.table import Table

    rows = list(admin.list(chosen, pool=pool))
    servers = len({row.target for row in rows})
    table = Table(*(["server"] if servers > 1 else []), "pool", "key", "state", "headroom", "in flight", "held back by")
    for column in table.columns[-3:-1]:
        column.justify = "right"
    for target, name, key in rows:
        held = "; ".join(one.reason for one in key.held_by)
        at = [target] if servers > 1 else []
        table.add_row(*at, name, key.label, key.state or "?", f"{key.headroom:.0%}", f"{key.in_flight:,}", held)
    Console(markup=False, highlight=False, emoji=False).print(table)
    return 0


def _pause(admin: Admin, chosen: list[str], pool: str) -> int:
    return _told(admin.pause(chosen, pool=pool), "paused", "resume")


def _resume(admin: Admin, chosen: list[str], pool: str) -> int:
    return _told(admin.resume(chosen, pool=pool), "resumed", "pause")


def _told(answers: Iterable[Changed], done: str, back: str) -> int:
    for target, count, kept in answers:
        print(f"{target}: {counted(count, 'key')} {done}" if count else f"{target}: all of them were {done} before")
        if not kept and count:
            say(f"{target} has no state_dir to keep this in: it ends when the server does, or by `apiflux keys {back}`")
    return 0


def _rotate(admin: Admin, chosen: list[str], pool: str) -> int:
    code = 0
    for target, changed, same, fixed, failed in admin.rotate(chosen, pool=pool):
        for place in changed:
            print(f"{target}: {place} has another secret")
        for place in same:
            print(f"{target}: {place} has the same secret as before")
        for place in fixed:
            print(f"{target}: {place} has its secret in no file: change it where it is, and restart the server")
        for place in failed:
            print(f"{target}: {place} goes on with the old secret: its file can't be used, the server's log says why")
        code = 2 if failed or fixed else code
    return code


_DO = {Action.list: _list, Action.pause: _pause, Action.resume: _resume, Action.rotate: _rotate}
