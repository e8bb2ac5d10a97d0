"""Section nginx: a limiter that nobody here wrote, and how much of its rates is used without drawing a 429.

`limit_req` with `rate=R` and `burst=B nodelay` is a leaky bucket: each request adds one to an excess that leaks at R
and never goes below 0, and is refused where the excess would be above B. The first request of a key finds it at 0 and
leaves it there, so B + 1 pass at once: R r/s with burst=B is `max = R, per = "1s", kind = "bucket", burst = B + 1`,
and without burst it is `burst = 1`. nginx reads a clock of whole milliseconds, so an arrival counts up to 1 ms before
it was: that millisecond is part of arrival_jitter.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from apiflux_grpc.client import Call, Client
from apiflux_grpc.testing.served import ServedProcess
from bench.figures import Figure

INSTALL = "nginx isn't installed; on Debian: apt-get install nginx-light"
KEYS = {"key-1": "nginx-secret-1", "key-2": "nginx-secret-2"}
RATE, BURST, SLOW_RATE = 50, 20, 2  # the zones of _CONFIG
RUNS = 3

# No `return` here: it answers before limit_req is asked.
_CONFIG = """
daemon off;
master_process off;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path temp;
    proxy_temp_path temp;
    fastcgi_temp_path temp;
    uwsgi_temp_path temp;
    scgi_temp_path temp;
    log_format arrivals "$msec $status $http_x_api_key $request_uri";
    access_log arrivals.log arrivals;
    limit_req_zone $http_x_api_key zone=burst:1m rate={rate}r/s;
    limit_req_zone $http_x_api_key zone=slow:1m rate={slow}r/s;
    limit_req_status 429;
    server {{
        listen 127.0.0.1:{port};
        root files;
        location /burst/ {{
            limit_req zone=burst burst={burst} nodelay;
            try_files /ok.txt =404;
        }}
        location /slow/ {{
            limit_req zone=slow;
            try_files /ok.txt =404;
        }}
        location /free/ {{
            access_log off;
            try_files /ok.txt =404;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Arrival:
    """A request, as nginx logged it. `at` is seconds, in whole milliseconds."""

    at: float
    status: int
    secret: str
    path: str


def nginx_path() -> str | None:
    """Where nginx is; Debian keeps it where ordinary users don't look."""
    return shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


class Nginx:
    """nginx in a process of its own, without root, for as long as the `with` block lasts; its files are in `folder`.

    Raises RuntimeError, with what it said, where it isn't installed or can't start.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read = 0
        self.port = 0

    def __enter__(self) -> Self:
        path = nginx_path()
        if path is None:
            raise RuntimeError(INSTALL)
        (self._folder / "files").mkdir()
        (self._folder / "files" / "ok.txt").write_text("ok\n")
        for _ in range(5):  # somebody else may take the port in between
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
            config = _CONFIG.format(port=self.port, rate=RATE, burst=BURST, slow=SLOW_RATE)
            (self._folder / "nginx.conf").write_text(config)
            command = [path, "-p", str(self._folder), "-c", "nginx.conf", "-e", "error.log"]
            self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
            if self._listens():
                return self
            self.__exit__()
        raise RuntimeError(f"nginx didn't start: {(self._folder / 'error.log').read_text()}")

    def _listens(self) -> bool:
        end = time.monotonic() + 10
        while time.monotonic() < end and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return self._process.poll() is None
        return False

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def arrivals(self, least: int = 0) -> list[Arrival]:
        """What came since the last look, as soon as it is `least`; nginx writes a line after its answer."""
        end = time.monotonic() + 10
        while (text := (self._folder / "arrivals.log").read_text()).count("\n", self._read) < least:
            if time.monotonic() > end:
                break
            time.sleep(0.01)
        new, self._read = text[self._read :], len(text)
        rows = (line.split(" ") for line in new.splitlines())
        return [Arrival(float(at), int(status), secret, path) for at, status, secret, path in rows]


def limit(rate: int, burst: int) -> str:
    """The limit that says what `limit_req` does with this rate per second and this burst."""
    return f'{{ max = {rate}, per = "1s", kind = "bucket", burst = {burst + 1} }}'


def config(port: int, pools: dict[str, str], jitter: str = "20ms") -> str:
    """The TOML of pools in front of nginx's locations: (name of pool and location: limit). A 429 is no success."""
    text = ""
    for name, bucket in pools.items():
        text += f'[pools.{name}]\nbase_url = "http://127.0.0.1:{port}/{name}"\nlimits = [{bucket}]\n'
        text += f'arrival_jitter = "{jitter}"\nretry = {{ max_attempts = 10, on_429 = false }}\n'
        for place, label in enumerate(KEYS):
            text += f'[[pools.{name}.keys]]\nlabel = "{label}"\nsecret_env = "NGINX_SECRET_{place}"\n'
    return text


def secrets() -> dict[str, str]:
    """The environment that goes with `config`."""
    return {f"NGINX_SECRET_{place}": secret for place, secret in enumerate(KEYS.values())}


async def drive(target: str, pool: str, calls: int) -> Counter[str]:
    """So many calls in one batch; what came of them, as words."""
    async with Client(target) as client:
        batch = [Call(f"/{number}") for number in range(calls)]
        results = [result async for result in client.process(batch, pool=pool)]
    return Counter(str(one.error if one.response is None else one.response.status) for one in results)


def steady_share(arrivals: list[Arrival], rate: int, burst: int) -> float:
    """The least share of `rate` that a key used after its first burst, while calls waited for it."""
    shares = []
    for secret in KEYS.values():
        times = [arrival.at for arrival in arrivals if arrival.secret == secret][burst + 1 :]
        shares.append((len(times) - 1) / (times[-1] - times[0]) / rate)
    return min(shares)


async def figures() -> list[Figure]:
    """For each way in which nginx limits, arrival_jitter 20 ms; nothing where there is no nginx."""
    if nginx_path() is None:
        print(f"left out: {INSTALL}", file=sys.stderr)
        return []
    found = []
    with tempfile.TemporaryDirectory() as folder, Nginx(Path(folder)) as nginx:
        pools = {"burst": limit(RATE, BURST), "slow": limit(SLOW_RATE, 0)}
        with ServedProcess(config(nginx.port, pools), secrets()) as served:
            ways = (("burst", RATE, BURST, 600, 0.95), ("slow", SLOW_RATE, 0, 24, None))
            for name, rate, burst, calls, target in ways:
                shares, drawn = [], []
                for _ in range(RUNS):
                    await drive(served.target, name, calls)
                    arrivals = nginx.arrivals(calls)
                    drawn.append(sum(arrival.status == 429 for arrival in arrivals))
                    shares.append(steady_share(arrivals, rate, burst))
                case = f"{rate}/s, burst {burst}"
                found.append(Figure("used of nginx's rate", shares, target=target, better="more", case=case))
                found.append(Figure("429s drawn", drawn, target=0, case=case, must=True))
    return found
