"""Against nginx's `limit_req`: bucket limits that say what it does use its rates and its bursts and draw no 429.

nginx's clock can't be moved, so these tests take real time, and a probe says whether the machine was quick enough for
what they ask. Not proved here: what a 429 does to a key.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apiflux_grpc.testing.served import ServedProcess
from bench.nginx import (
    BURST,
    INSTALL,
    KEYS,
    RATE,
    SLOW_RATE,
    Arrival,
    Nginx,
    config,
    drive,
    limit,
    nginx_path,
    secrets,
    steady_share,
)

JITTER = 0.020
ASKED = 500  # at once, of a limiter that takes 21


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    if nginx_path() is None:
        (pytest.fail if os.environ.get("APIFLUX_CI") == "1" else pytest.skip)(INSTALL)
    with Nginx(tmp_path) as nginx:
        yield nginx


class Probe:
    """How late this machine lets nginx be: the longest that a call outside all limits has taken, in seconds.

    arrival_jitter is a promise about the way to the upstream. If the machine itself breaks it, a 429 says nothing, and
    neither does a rate that wasn't used.
    """

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.longest = 0.0

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while not self._over.wait(0.003):
            start = time.monotonic()
            self._connection.request("GET", "/free/x")
            self._connection.getresponse().read()
            self.longest = max(self.longest, time.monotonic() - start)


def accepted(arrivals: list[Arrival]) -> Counter[str]:
    return Counter(arrival.secret for arrival in arrivals if arrival.status == 200)


def check_all_accepted(arrivals: list[Arrival], pool: str, calls: int) -> None:
    """Each call arrived once and was accepted, and each key took its part."""
    assert Counter(arrival.status for arrival in arrivals) == {200: calls}
    assert {arrival.path for arrival in arrivals} == {f"/{pool}/{number}" for number in range(calls)}
    assert set(accepted(arrivals)) == set(KEYS.values())


Runs = list[list[Arrival]]  # what arrived of each batch


def run(
    nginx: Nginx, pool: str, bucket: str, batches: list[int], used: Callable[[Runs], bool], pause: float = 0.0
) -> Runs:
    """What arrived of each batch, one after the other.

    Again, if a 429 was drawn or the rates weren't `used`, and the machine was too slow for the jitter.
    """
    for _ in range(3):
        every = []
        with ServedProcess(config(nginx.port, {pool: bucket}), secrets()) as served, Probe(nginx.port) as probe:
            for number, calls in enumerate(batches):
                time.sleep(pause if number else 0)
                said = asyncio.run(drive(served.target, pool, calls))
                every.append(nginx.arrivals(calls))
                assert sum(said.values()) == calls
        drawn = any(arrival.status == 429 for arrivals in every for arrival in arrivals)
        if (not drawn and used(every)) or probe.longest < JITTER / 2:
            return every
        time.sleep(1 / SLOW_RATE + BURST / RATE)  # the zone forgets
    pytest.skip(f"this machine keeps a call waiting for {probe.longest * 1000:.0f} ms, above the jitter")


@pytest.mark.parametrize(("pool", "rate", "burst"), [("burst", RATE, BURST), ("slow", SLOW_RATE, 0)])
def test_what_nginx_does(nginx: Nginx, pool: str, rate: int, burst: int) -> None:
    """`burst=B nodelay` lets B + 1 pass at once, then the rate; without burst one. Keys are counted apart."""
    for secret in KEYS.values():
        request = f"GET /{pool}/x HTTP/1.1\r\nHost: h\r\nX-API-Key: {secret}\r\n"
        with socket.create_connection(("127.0.0.1", nginx.port), timeout=10) as connection:
            connection.sendall(f"{request}\r\n".encode() * (ASKED - 1) + f"{request}Connection: close\r\n\r\n".encode())
            while connection.recv(1 << 16):
                pass
        arrivals = nginx.arrivals(ASKED)
        assert len(arrivals) == ASKED
        passed = accepted(arrivals)
        took = arrivals[-1].at - arrivals[0].at
        assert burst + 1 <= passed[secret] <= burst + 1 + rate * (took + 0.001)


@pytest.mark.slow
def test_a_burst_at_the_full_rate_draws_no_429(nginx: Nginx) -> None:
    """Over cold connections, over warm ones, and out of idleness: the burst, then the rate, on each of two keys."""
    batches = [240, 100]

    def used(every: Runs) -> bool:
        start = every[1][0].at
        at_once = sum(arrival.at < start + 0.1 for arrival in every[1])
        return at_once > BURST and steady_share(every[0], RATE, BURST) > 0.8

    every = run(nginx, "burst", limit(RATE, BURST), batches, used, pause=0.7)
    for arrivals, calls in zip(every, batches, strict=True):
        check_all_accepted(arrivals, "burst", calls)
    assert used(every)


@pytest.mark.slow
def test_no_burst_draws_no_429(nginx: Nginx) -> None:
    """If nginx takes one call at a time, calls are spaced by its interval and the jitter."""

    def used(every: Runs) -> bool:
        return steady_share(every[0], SLOW_RATE, 0) > 0.6  # one call that came too late to be sent is a sixth

    (arrivals,) = run(nginx, "slow", limit(SLOW_RATE, 0), [14], used)
    check_all_accepted(arrivals, "slow", 14)
    assert used([arrivals])


@pytest.mark.slow
def test_a_limit_that_says_too_much_draws_429s(nginx: Nginx) -> None:
    """The control: at twice nginx's rate some calls are refused, and its log shows it."""
    with ServedProcess(config(nginx.port, {"burst": limit(2 * RATE, BURST)}), secrets()) as served:
        asyncio.run(drive(served.target, "burst", 120))
    assert any(arrival.status == 429 for arrival in nginx.arrivals(120))
