"""What is put together from settings: each pool gets the upstream that it asks for, with every setting of it."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from apiflux_grpc import bootstrap
from apiflux_grpc.adapters.http_settings import HttpSettings
from apiflux_grpc.adapters.upstream_aiohttp import AiohttpUpstream
from apiflux_grpc.adapters.upstream_http import HttpUpstream
from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.settings import load

if TYPE_CHECKING:
    from pathlib import Path

POOL = """
[pools.default]
base_url = "http://127.0.0.1:9000"
limits = []
keys = [{ secret = "canary-5b1" }]
"""


def upstream_of(folder: Path, *lines: str) -> partial[Any]:
    """What makes the upstream of POOL with more lines in its table."""
    file = folder / "c.toml"
    file.write_text(POOL + "\n".join(lines))
    (pool,) = load(file, environ={}).pools
    made = bootstrap.parts_of(pool).make_upstream
    assert isinstance(made, partial)
    return made


def test_a_pool_that_says_nothing_has_the_sender_s_own_defaults(tmp_path: Path) -> None:
    """Defaults of the settings and of the sender are the same, but for the name that it sends."""
    made = upstream_of(tmp_path)
    (http,) = made.args
    assert made.func is HttpUpstream
    assert http == HttpSettings(base_url="http://127.0.0.1:9000", user_agent=http.user_agent)
    assert http.user_agent.startswith("apiflux/")


def test_a_pool_with_a_proxy_is_sent_by_aiohttp(tmp_path: Path) -> None:
    """Our own sender can't go through a proxy."""
    made = upstream_of(tmp_path, 'egress_proxy = "http://127.0.0.1:3128"')
    (http,) = made.args
    assert (made.func, http.egress_proxy) == (AiohttpUpstream, "http://127.0.0.1:3128")


def test_a_pool_without_a_url_is_the_simulator() -> None:
    """Without any configuration nothing leaves the machine."""
    (pool,) = load(None, environ={}).pools
    made = bootstrap.parts_of(pool).make_upstream
    assert isinstance(made, partial)
    assert (made.func, made.args) == (SimulatedUpstream, (pool.latency, pool.error_rate))


def test_what_a_server_does_not_need_is_not_imported() -> None:
    """A server without a proxy starts without aiohttp, and the settings are there without pydantic."""
    code = "import sys; import apiflux_grpc.settings; import {}; print([name in sys.modules for name in {}])"
    found = subprocess.run(
        [sys.executable, "-c", code.format("apiflux_grpc.bootstrap", ["aiohttp", "pydantic"])],
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout == "[False, False]\n"


async def test_one_clock_for_engine_and_upstreams(tmp_path: Path) -> None:
    """BOOTTIME where the system has it: what one says of an instant the other compares, and leases end in sleep too."""
    made = upstream_of(tmp_path)
    assert made.keywords["clock"] is bootstrap.CLOCK
    assert bootstrap.make_server(load(None, environ={})).engine.clock is bootstrap.CLOCK
    if hasattr(time, "CLOCK_BOOTTIME"):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        assert before <= bootstrap.CLOCK() <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
