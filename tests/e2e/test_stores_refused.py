"""`apiflux serve` with a store of budgets that can't be used: it ends before it serves, and says what to do.

Rule: exit code 2 and one line that names the setting; what is there stays as it is, and no password is shown.
"""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from apiflux_grpc.adapters import mounts
from apiflux_grpc.adapters.lease_redis.client import RIGHTS
from apiflux_grpc.adapters.state_file import FORMAT, open_file
from apiflux_grpc.core.lease.codec import LAYOUT
from tests.adapters.lease_redis.proxy import Proxy
from tests.adapters.lease_redis.servers import RedisServer, program
from tests.e2e.commands import run
from tests.e2e.pairs import CANARY

PASSWORD: Final = f"{CANARY}-redis"
POOL: Final = (
    '[pools.default]\nbase_url = "http://127.0.0.1:1"\nlimits = [{ max = 1, per = "1s" }]\n'
    f'keys = [{{ label = "a", secret = "{CANARY}" }}]\n'
)


def refusal(folder: Path, head: str, *, most: int | None = None) -> str:
    """What a server says that doesn't start."""
    (folder / "c.toml").write_text(head + POOL)
    done = run("serve", "--bind", "127.0.0.1:0", "--config", "c.toml", cwd=folder, most=most)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert CANARY not in done.stderr
    return done.stderr


# -- a Redis -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One with a password."""
    with RedisServer(program(), "--requirepass", PASSWORD, password=PASSWORD) as server:
        yield server


def ask(redis: RedisServer, *command: object) -> None:
    client: Any = redis.client
    client.execute_command(*command)


def evicts(redis: RedisServer) -> None:
    redis.client.config_set("maxmemory-policy", "allkeys-lru")


def has_a_poor_user(redis: RedisServer) -> None:
    ask(redis, "ACL", "SETUSER", "poor", "on", f">{PASSWORD}", "~apiflux:*", "+get", "+info")


def is_newer(redis: RedisServer) -> None:
    redis.client.set("apiflux:layout", LAYOUT + 1)


@pytest.mark.parametrize(
    ("login", "spoil", "says"),
    [
        ("", None, "refuses the user or the password that its URL has"),
        (f":{CANARY}-wrong@", None, "refuses the user or the password that its URL has"),
        (
            f"poor:{PASSWORD}@",
            has_a_poor_user,
            f"doesn't let its user do all that is needed: ACL SETUSER it with {RIGHTS}",
        ),
        (f":{PASSWORD}@", evicts, "set maxmemory-policy to noeviction"),
        (f":{PASSWORD}@", is_newer, f"has budgets of layout {LAYOUT + 1}"),
    ],
)
def test_a_redis_that_can_not_be_used_keeps_a_server_from_starting(
    tmp_path: Path, redis: RedisServer, login: str, spoil: Callable[[RedisServer], None] | None, says: str
) -> None:
    """Wrong password, too few rights, a policy that evicts, budgets of a newer version."""
    redis.client.config_set("maxmemory-policy", "noeviction")
    redis.flush()
    if spoil is not None:
        spoil(redis)
    before = redis.client.keys("*")
    said = refusal(tmp_path, f'[budget]\nredis = "redis://{login}127.0.0.1:{redis.port}"\n')
    assert f"c.toml: budget.redis: redis://127.0.0.1:{redis.port}" in said
    assert says in said
    assert redis.client.keys("*") == before


@contextmanager
def speaking_tls(redis: RedisServer, context: ssl.SSLContext) -> Iterator[str]:
    """The URL of a proxy of it that does, on a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    proxy = Proxy(redis.port, tls=context)
    try:
        asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result()
        yield proxy.url
        asyncio.run_coroutine_threadsafe(proxy.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize(("name", "is_known"), [("127.0.0.1", False), ("redis.example", True)])
def test_a_redis_with_another_certificate_keeps_a_server_from_starting(
    tmp_path: Path, redis: RedisServer, name: str, is_known: bool
) -> None:
    """One that nobody here trusts, or of another name: no password goes there."""
    known, theirs = trustme.CA(), trustme.CA()
    known.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (known if is_known else theirs).issue_cert(name).configure_cert(context)
    with speaking_tls(redis, context) as url:
        url = url.replace("//", f"//:{PASSWORD}@")
        said = refusal(tmp_path, f'[budget]\nredis = "{url}?ssl_ca_certs={tmp_path / "ca.pem"}"\n')
    assert "has a certificate that isn't trusted, or that is of another name" in said


# -- a directory ---------------------------------------------------------------------------------


def newer(state: Path) -> None:
    open_file(state / "budgets.sqlite3").close()
    with closing(sqlite3.connect(state / "budgets.sqlite3")) as file:
        file.execute(f"PRAGMA user_version = {FORMAT + 1}")


def on_the_network(state: Path) -> None:
    mounts.MOUNTS.write_text(f"22 21 0:5 / {state} rw,relatime - nfs4 server:/export rw\n")


@pytest.mark.parametrize(
    ("spoil", "most", "says"),
    [
        (newer, None, "newer version of APIFlux; upgrade"),
        (on_the_network, None, "on a network file system (nfs4)"),
        (lambda state: state.symlink_to("/sys"), None, "choose another state_dir"),
        (None, 1000, "the disk is full, over a quota, or fails; make room in"),
    ],
    ids=["newer", "network", "read-only", "full"],
)
def test_a_directory_that_can_not_be_used_keeps_a_server_from_starting(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None] | None,
    most: int | None,
    says: str,
) -> None:
    """Of a newer version, on a network file system, where nothing can be written, on a disk that is full."""
    (tmp_path / "mounts").touch()
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mounts")
    if spoil is not None:
        spoil(tmp_path / "state")
    said = refusal(tmp_path, '[server]\nstate_dir = "state"\n', most=most)
    assert "server.state_dir" in said
    assert says in said


# -- before it starts ----------------------------------------------------------------------------


def checked(folder: Path, head: str, *options: str) -> tuple[int, str]:
    """What `check-config` says of it, by its exit code and its line on budgets."""
    (folder / "c.toml").write_text(head + POOL.replace("http://127.0.0.1:1", "").replace('base_url = ""\n', ""))
    done = run("check-config", "c.toml", *options, cwd=folder)
    assert CANARY not in done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith(("c.toml: budget", "c.toml: server"))]
    return done.returncode, "".join(told)


def test_a_probe_says_whether_the_redis_may_hold_budgets(tmp_path: Path, redis: RedisServer) -> None:
    """One line, without the password; and nothing is sent to it if no probe is asked for."""
    redis.client.config_set("maxmemory-policy", "noeviction")
    redis.flush()

    def by(login: str, port: int, *options: str) -> tuple[int, str]:
        return checked(tmp_path, f'[budget]\nredis = "redis://{login}127.0.0.1:{port}"\n', *options)

    before = redis.client.info("stats")["total_connections_received"]
    assert by(f":{PASSWORD}@", redis.port) == (0, "")
    assert redis.client.info("stats")["total_connections_received"] == before
    place = f"c.toml: budget.redis: redis://127.0.0.1:{redis.port} "
    assert by(f":{PASSWORD}@", redis.port, "--probe") == (0, f"{place}answers, and may hold budgets")
    assert by(f":{CANARY}@", redis.port, "--probe") == (3, f"{place}refuses the user or the password that its URL has")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    code, said = by(f":{PASSWORD}@", port, "--probe")
    assert code == 3
    assert said.startswith(f"c.toml: budget.redis: redis://127.0.0.1:{port} is gone: ")


def test_a_probe_says_whether_state_dir_can_be_written(tmp_path: Path) -> None:
    """One line, which says what to do; and nothing is made."""
    there = '[server]\nstate_dir = "state"\n'
    assert checked(tmp_path, there) == (0, "")
    assert checked(tmp_path, there, "--probe") == (0, "c.toml: server.state_dir: state/budgets.sqlite3 can be written")
    assert not (tmp_path / "state").exists()
    code, said = checked(tmp_path, '[server]\nstate_dir = "/sys/apiflux"\n', "--probe")
    assert code == 3
    assert said.endswith("choose another state_dir") or "choose another state_dir than /sys" in said


# -- a key ---------------------------------------------------------------------------------------


def test_a_secret_in_two_pools_without_a_budget_keeps_a_server_from_starting(tmp_path: Path) -> None:
    """Each would spend the whole of its limits; the fault says how to share them or to count apart."""
    said = refusal(tmp_path, POOL.replace("default", "other").replace('"a"', '"b"'))
    assert "has the secret of b in pool other" in said
    assert "set `budget` in both" in said
