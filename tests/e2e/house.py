"""One server for many tests, in front of an upstream in this process that does what a test says.

Rule: nothing here depends on how fast the machine is. An upstream that holds its answers makes a job stand still where
a test wants it, and says when so many calls have come.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import Popen
from typing import Any

from apiflux_grpc.client import SyncClient
from apiflux_grpc.testing.served import ServedProcess, secrets_for
from tests.e2e.commands import Done, run, running
from tests.e2e.forked import Forked, forked

SECRET = "canary-2b7e"
KEYS = {"key-1": SECRET, "key-2": f"{SECRET}-two"}
PATIENCE = 50  # seconds until a test gives up what never comes


class Upstream:
    """Answers by a call's path; `/echo/TYPE` sends the body back as that type. Remembers calls as "METHOD /path"."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arrived: list[str] = []
        self._holds: Callable[[str], bool] = lambda name: False
        self.wait_for_stragglers: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """Forget what came, and answer everything at once."""
        with self._changed:
            self._arrived = []
        self.release()

    def hold(self, holds: Callable[[str], bool] = lambda name: True) -> None:
        """Answer these calls only after `release`, or never; those that are held no longer, now."""
        with self._changed:
            self._holds = holds
            self._changed.notify_all()

    def release(self) -> None:
        """Answer what is held, and whatever comes."""
        with self._changed:
            self._holds = lambda name: False
            self._changed.notify_all()

    @property
    def arrived(self) -> Counter[str]:
        """How often each call came."""
        with self._changed:
            return Counter(self._arrived)

    def wait_for(self, count: int) -> None:
        """Until so many calls came."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._arrived) >= count, PATIENCE), len(self._arrived)

    def came(self, name: str) -> None:
        """For the handler: a call is here. Returns when it may be answered."""
        with self._changed:
            self._arrived.append(name)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._holds(name), PATIENCE)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    upstream: Upstream

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.upstream.came(f"{self.command} {self.path}")
        status, kind = 200, "application/json"
        match self.path.split("/")[1:]:
            case ["echo", kind]:
                kind = {"json": "application/json", "text": "text/plain", "bytes": "application/octet-stream"}[kind]
            case ["type"]:
                body = json.dumps(self.headers.get("Content-Type")).encode()
            case ["status", code]:
                status, body = int(code), b'{"ok":false}'
            case ["once", _]:  # fails the first time
                failed = self.upstream.arrived[f"{self.command} {self.path}"] == 1
                status, body = (500, b"") if failed else (200, b"")
            case ["each", ways, _]:  # one letter for each time that the call comes, as far as they go
                times = self.upstream.arrived[f"{self.command} {self.path}"]
                way = ways[times - 1 : times] or "o"
                if way == "x":  # no answer
                    self.close_connection = True
                    return
                status = {"o": 200, "n": 404, "f": 500}[way]
            case ["key", code]:  # repeats it, and what a terminal would act on
                status, kind = int(code), "text/plain"
                body = f"no such key: {self.headers['X-API-Key']}\x1b[2J".encode()
            case ["lone"]:
                body = rb'{"half of a pair":"\ud83d"}'
            case ["nan"]:
                body = b"[NaN, -Infinity, 1e999]"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_DELETE = do_PATCH = do_GET  # noqa: N815  # names that http.server calls

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 500
    block_on_close = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connections: dict[socket.socket, int] = {}  # whose handler isn't over, with the client's port

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections[request] = client_address[1]
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        del self.connections[request]

    def wait_for_stragglers(self) -> None:
        """Until every call was read of a client that is gone: the machine may be slow to let a handler begin.

        Connections are accepted in their order, so with one of ours all earlier ones were. A handler that may still
        have a call of a client that is gone is one whose connection has something to read, its end included.
        """
        with socket.create_connection(("127.0.0.1", self.server_port)) as ours:
            wait_until(lambda: ours.getsockname()[1] in list(self.connections.values()))
        wait_until(lambda: not any(map(_readable, list(self.connections))))

    def handle_error(self, *_: object) -> None:
        """A client that is gone is no news."""


def _readable(connection: socket.socket) -> bool:
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        pass  # it was reset, or has just been closed: its handler is about to end
    return True


def wait_until(condition: Callable[[], object]) -> None:
    """Until it holds; there is no event for it."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


@contextlib.contextmanager
def upstream_served() -> Iterator[tuple[Upstream, str]]:
    """An upstream and its URL."""
    upstream = Upstream()
    handler = type("Handler", (_Handler,), {"upstream": upstream})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            upstream.wait_for_stragglers = server.wait_for_stragglers
            yield upstream, f"http://127.0.0.1:{server.server_port}"
        finally:
            upstream.release()
            server.shutdown()
            thread.join()


def pool(name: str, url: str = "", *, limits: str = "", extra: str = "") -> str:
    """The TOML of a pool with KEYS; without a URL it is on the simulator."""
    keys = ", ".join(
        f'{{ label = "{label}", secret_env = "STRESS_SECRET_{place}", budget = "{name}-{label}" }}'
        for place, label in enumerate(KEYS)
    )
    base = f'base_url = "{url}"\n' if url else ""
    return f"[pools.{name}]\n{base}limits = [{limits}]\nkeys = [{keys}]\n{extra}\n"


LARGE = '{ max = 1000000, per = "1h", counts = "cost" }'
ONCE = "retry = { max_attempts = 1 }"
TWENTY = ("sigint", "sigterm", "timeout", "ordered", "notes", "failing")  # pools that may send 20 calls, each once


class House:
    """The server at `target`, or several, with the same pools, and their upstream."""

    def __init__(self, upstream: Upstream, clients: list[SyncClient], target: str) -> None:
        self.upstream = upstream
        self.target = target
        self._clients = clients

    def rest(self) -> None:
        """Let everything go that still runs, and wait until nothing does: it isn't the next test's."""
        self.upstream.release()
        wait_until(self._is_idle)
        for client in self._clients:
            client.info()  # answered by a later turn of the engine: what it cancelled is closed by now
        self.upstream.wait_for_stragglers()

    def _is_idle(self) -> bool:
        infos = [client.info() for client in self._clients]
        return not any(info.open_batches or any(pool.in_flight for pool in info.pools) for info in infos)

    def process(self, *args: str | Path, cwd: Path, **options: object) -> Done:
        """`apiflux process` against it, in this process; options as of `run`."""
        return run("process", "--target", self.target, *args, cwd=cwd, **options)  # type: ignore[arg-type]

    def processing(
        self, *args: str | Path, cwd: Path, stdin: int | None = None
    ) -> contextlib.AbstractContextManager[Popen[str]]:
        """The same in a process of its own."""
        return running("process", "--target", self.target, *args, cwd=cwd, stdin=stdin)

    def forking(self, *args: str | Path, cwd: Path, stdin: str) -> contextlib.AbstractContextManager[Forked]:
        """The same without the start of an interpreter."""
        return forked("process", "--target", self.target, *args, cwd=cwd, stdin=stdin)


@contextlib.contextmanager
def house(servers: int = 1) -> Iterator[House]:
    """Pools: `default`; `once`, without retries; `counted`, with 404 as a success; `versioned`, below /v1; `twice`,
    whose POSTs may run twice; `simulated`; `impatient`; `priced`, by max_tokens; `told`, whose
    answers tell what they cost, and keys; those of TWENTY."""
    with upstream_served() as (upstream, url):
        pools = [
            pool("default", url),
            pool("once", url, extra=ONCE),
            pool("counted", url, extra=f'success = ["200", "404"]\n{ONCE}'),
            pool("versioned", f"{url}/v1"),
            pool("twice", url, extra='idempotent = [{ methods = ["POST"], paths = ["/n/"] }]'),
            pool("simulated"),
            pool("impatient", url, extra='patience = "1s"\nmax_in_flight = 5'),
            pool("priced", url, extra='cost = { json = "max_tokens", at_least = 1 }'),
            pool("told", url, limits=LARGE, extra='cost_from = { json = "spent" }\nmask_secrets = false'),
            *(pool(name, url, limits='{ max = 10, per = "1h" }') for name in TWENTY),
        ]
        environ = secrets_for(KEYS) | {"TEST_MIN_LATENCY": "0", "TEST_MAX_LATENCY": "1"}
        with contextlib.ExitStack() as stack:
            config = "\n".join(pools)
            targets = [stack.enter_context(ServedProcess(config, environ)).target for _ in range(servers)]
            clients = [stack.enter_context(SyncClient(target)) for target in targets]
            yield House(upstream, clients, ",".join(targets))
