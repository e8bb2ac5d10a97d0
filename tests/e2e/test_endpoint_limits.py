"""An upstream that limits one endpoint apart: what is kept of that, and what everybody else has of it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from apiflux_grpc.client import Call, Client, Info, KeyLimit
from apiflux_grpc.testing.served import ServedProcess
from tests.e2e.pairs import CANARY, JITTER, pool_of, until

ALLOWED = {f"{CANARY}-kept": 3, f"{CANARY}-lower": 2}  # searches an hour, by key
OTHERS = [Call(f"/other/{number}") for number in range(40)]
SEARCHES = [Call(f"/search/{number}") for number in range(5)]


class _Handler(BaseHTTPRequestHandler):
    """Answers a key's first searches and everything else, and says what is left of the searches."""

    protocol_version = "HTTP/1.1"
    lock = threading.Lock()
    came: dict[str, int]  # searches, by key
    refused: list[str]

    def do_GET(self) -> None:
        key, status = self.headers["X-API-Key"], 200
        if self.path.startswith("/search/"):
            with self.lock:
                self.came[key] = self.came.get(key, 0) + 1
                left = ALLOWED[key] - self.came[key]
                if left < 0:
                    self.refused.append(self.path)
                    status = 429
        self.send_response(status)
        if self.path.startswith("/search/"):
            self.send_header("RateLimit-Policy", '"search";q=3;w=3600')
            self.send_header("RateLimit", f'"search";r={max(0, left)}')
        if status == 429:
            self.send_header("Retry-After", "600")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    # Forty calls come at once. Of five, which is the default, the rest would dial again after 1, 3, 7, 15 and 31 s.
    request_queue_size = 500


@contextlib.contextmanager
def limited_endpoint() -> Iterator[tuple[str, list[str]]]:
    """Its URL, and the searches that it refused."""
    refused: list[str] = []
    with _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"came": {}, "refused": refused})) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", refused
        finally:
            server.shutdown()
            thread.join()


def config(url: str) -> str:
    limits = '{ max = 1000, per = "10s" }, { max = 3, per = "1h", paths = ["/search/"] }'
    head = f'base_url = "{url}"\narrival_jitter = "{JITTER}"\nlimits = [{limits}]\n'
    return "".join(
        f'[pools.{name}]\n{head}keys = [{{ label = "{name}", secret = "{CANARY}-{name}" }}]\n'
        for name in ("kept", "lower")
    )


async def first(client: Client, pool: str, count: int) -> tuple[set[str], Info]:
    """The paths of the first so many results of a batch with the searches in front, all of them well; how it stands
    then, and the rest is let go of."""
    calls = [*SEARCHES, *OTHERS]
    paths = set[str]()
    infos: list[Info] = []
    async with client.process(calls, pool=pool) as stream:
        async for result in stream:
            assert result.ok, result
            paths.add(calls[result.index].path)
            if len(paths) == count:
                break

        async def only_searches_wait() -> bool:
            infos.append(await client.info())
            return not any(one.in_flight for one in infos[-1].pools)

        await until(only_searches_wait)
    return paths, infos[-1]


async def test_a_used_up_endpoint_is_left_alone_and_holds_back_no_other() -> None:
    """Its limit configured: no search is refused. Its limit lower than configured: one round of refusals, and all
    other calls go on; who asks is told why the searches wait."""
    with limited_endpoint() as (url, refused), ServedProcess(config(url), {}) as served:
        async with Client(served.target) as client:
            paths, info = await first(client, "kept", 43)
            pool = pool_of(info, "kept")
            assert {call.path for call in OTHERS} < paths
            assert (len(paths), pool.waiting, refused, pool.held_by) == (43, 2, [], ())
            assert pool.keys[0].limits == (KeyLimit(1000, 10.0, "calls"), KeyLimit(3, 3600.0, "calls", ("/search/",)))

            paths, info = await first(client, "lower", 42)
            pool = pool_of(info, "lower")
            assert {call.path for call in OTHERS} < paths
            assert (len(paths), pool.waiting, len(refused)) == (42, 3, 1)
            assert "429 with Retry-After: 600 s, for /search/ only" in [one.reason for one in pool.held_by]
        (line,) = (line for line in served.stderr.splitlines() if "key blocked" in line)
        assert "paths=/search/" in line
        assert CANARY not in served.stderr
