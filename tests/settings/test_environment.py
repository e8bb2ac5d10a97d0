"""The variables: what each says, its faults, and the pool `default` that they make."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiflux_grpc.core.model import HeaderKey, Limit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.settings import load
from tests.settings.writing import CANARY, env_faults

ROOT = Path(__file__).parents[2]


def test_nothing_has_to_be_configured() -> None:
    """Without any configuration: pool `default`, three keys, 1,000 calls a minute each, on the simulator."""
    settings = load(None, environ={})
    (pool,) = settings.pools
    assert [(key.label, key.secret) for key in pool.pool.keys] == [
        ("key-1", "key1"),
        ("key-2", "key2"),
        ("key-3", "key3"),
    ]
    assert {key.limits for key in pool.pool.keys} == {(Limit(1000, 60 * SECOND),)}
    assert (pool.pool.name, pool.base_url, pool.pool.upstream, pool.pool.allow_repeat) == (
        "default",
        "",
        "simulated",
        True,
    )
    assert (settings.host, settings.port, settings.mode, settings.repeat_count) == ("127.0.0.1", 50051, "test", 50)
    assert (settings.batch_size, settings.concurrent_requests, settings.request_timeout) == (100, 100, 60 * SECOND)
    assert (settings.max_batches, settings.max_queued_calls, settings.max_queued_bytes) == (2_000, 2_000_000, 1 << 30)
    assert (settings.max_batch_calls, settings.max_batch_bytes, settings.grace) == (50_000, 32 << 20, 15 * SECOND)
    assert (pool.latency, settings.reflection, settings.warnings) == ((10 * MILLISECOND, 50 * MILLISECOND), True, ())


@pytest.mark.parametrize(
    ("environ", "name", "value"),
    [
        ({"PORT": "0"}, "port", 0),
        ({"TEST_REQUESTS_COUNT": "7"}, "repeat_count", 7),
        ({"TEST_REQUESTS_COUNT": "7", "TEST_MODE": "false"}, "repeat_count", 2000),
        ({"PROD_REQUESTS_COUNT": "8", "TEST_MODE": "false"}, "repeat_count", 8),
        ({"BATCH_SIZE": "10"}, "batch_size", 10),
        ({"CONCURRENT_REQUESTS": "5"}, "concurrent_requests", 5),
        ({"REQUEST_TIMEOUT": "1500"}, "request_timeout", 1500 * MILLISECOND),
        ({"PORT": "", "BATCH_SIZE": ""}, "port", 50051),
        *(({"TEST_MODE": word}, "mode", "test") for word in ("true", "1", "yes", "on", "TRUE")),
        *(({"TEST_MODE": word}, "mode", "production") for word in ("false", "0", "no", "off", "Off")),
    ],
)
def test_each_variable_sets_one_thing(environ: dict[str, str], name: str, value: object) -> None:
    """Each variable sets its one setting; an empty one sets nothing."""
    assert getattr(load(None, environ=environ), name) == value


def test_the_simulator_s_latency_is_that_of_the_mode() -> None:
    """Each mode has a latency of its own, in milliseconds."""
    times = {"TEST_MIN_LATENCY": "1", "TEST_MAX_LATENCY": "2", "PROD_MIN_LATENCY": "3", "PROD_MAX_LATENCY": "4"}
    assert load(None, environ=times).pools[0].latency == (MILLISECOND, 2 * MILLISECOND)
    times["TEST_MODE"] = "0"
    assert load(None, environ=times).pools[0].latency == (3 * MILLISECOND, 4 * MILLISECOND)
    default = load(None, environ={"TEST_MODE": "0"}).pools[0].latency
    assert default == (500 * MILLISECOND, 3000 * MILLISECOND)


def test_upstream_url_makes_the_default_pool_a_real_one() -> None:
    """With UPSTREAM_URL the pool `default` calls it, the key in X-API-Key, and synthetic load is off."""
    environ = {"UPSTREAM_URL": "http://127.0.0.1:9000/v1/", "API_KEYS": " a , b ", "RATE_LIMIT": "5"}
    settings = load(None, environ=environ)
    (pool,) = settings.pools
    assert pool.base_url == pool.pool.base_url == "http://127.0.0.1:9000/v1"
    assert (pool.pool.key_in, pool.pool.upstream, pool.pool.allow_repeat) == (HeaderKey("X-API-Key"), "http", False)
    assert [(key.secret, key.limits) for key in pool.pool.keys] == [
        ("a", (Limit(5, 60 * SECOND),)),
        ("b", (Limit(5, 60 * SECOND),)),
    ]
    assert settings.warnings == ()


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({"PORT": "65536"}, "PORT: must be at most 65535"),
        ({"PORT": "-1"}, "PORT: must be at least 0"),
        ({"PORT": CANARY}, "PORT: must be a whole number"),
        ({"PORT": "1_0"}, "PORT: must be a whole number"),
        ({"PORT": "²"}, "PORT: must be a whole number"),
        ({"PORT": "9" * 5000}, "PORT: must be a whole number"),
        ({"TEST_MODE": CANARY}, "TEST_MODE: must be true or false"),
        ({"RATE_LIMIT": "0"}, "RATE_LIMIT: must be at least 1"),
        ({"BATCH_SIZE": "1.5"}, "BATCH_SIZE: must be a whole number"),
        ({"REQUEST_TIMEOUT": "0"}, "REQUEST_TIMEOUT: must be at least 1"),
        ({"CONCURRENT_REQUESTS": "x"}, "CONCURRENT_REQUESTS: must be a whole number"),
        (
            {"TEST_MIN_LATENCY": "9", "TEST_MAX_LATENCY": "8"},
            "TEST_MAX_LATENCY: TEST_MIN_LATENCY must be at most TEST_MAX_LATENCY",
        ),
        ({"PROD_MIN_LATENCY": "9000"}, "PROD_MIN_LATENCY: PROD_MIN_LATENCY must be at most PROD_MAX_LATENCY"),
        (
            {"TEST_REQUESTS_COUNT": "50001"},
            "TEST_REQUESTS_COUNT: the default repeat count (50001) must be at most max_batch_calls (50000)",
        ),
        ({"UPSTREAM_URL": f"http://me:{CANARY}@host"}, "UPSTREAM_URL: must not have user info"),
        ({"API_KEYS": f"a,,{CANARY}"}, "API_KEYS: entry 2 is empty"),
        ({"API_KEYS": f"{CANARY},{CANARY}"}, "API_KEYS: entry 2 is the same as entry 1"),
        ({"API_KEYS": f"{CANARY}ä"}, "API_KEYS: entry 1 has a control character or one outside ASCII"),
        ({"API_KEYS": f"{CANARY},key-1"}, "API_KEYS: entry 2 reads like a label"),
    ],
)
def test_a_fault_of_the_environment_has_its_name(environ: dict[str, str], fault: str) -> None:
    """A variable that can't be used is named, and its value isn't shown."""
    (only,) = env_faults(**environ)
    assert only.startswith(fault)


def test_the_example_of_dotenv_loads_clean() -> None:
    """.env.example can be copied to .env as it is, and says the defaults but for BATCH_SIZE."""
    settings = load(None, environ={}, dotenv=ROOT / ".env.example")
    assert (settings.batch_size, settings.warnings) == (10, ())
    assert settings.pools == load(None, environ={}).pools


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    """Windows editors put one at the start of .env; the first variable counts all the same."""
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfRATE_LIMIT=7\r\nPORT=8\r\n")
    settings = load(None, environ={}, dotenv=tmp_path / ".env")
    assert {key.limits for key in settings.pools[0].pool.keys} == {(Limit(7, 60 * SECOND),)}
    assert settings.port == 8


def test_no_simulator_beside_the_pools_of_a_file(tmp_path: Path) -> None:
    """A call whose pool was forgotten must not get a made-up success; UPSTREAM_URL alone adds a pool to a file's."""
    file = tmp_path / "apiflux.toml"
    file.write_text(
        '[pools.maps]\nbase_url = "https://maps.example"\nlimits = [{ max = 5, per = "1s" }]\n'
        'keys = [{ label = "a", secret = "sk-0123456789abcdef" }]\n'
    )
    assert [pool.pool.name for pool in load(file, environ={}).pools] == ["maps"]
    assert [pool.pool.name for pool in load(file, environ={"API_KEYS": "sk-other-key", "RATE_LIMIT": "7"}).pools] == [
        "maps"
    ]
    with_url = load(file, environ={"UPSTREAM_URL": "https://own.example", "API_KEYS": "sk-other-key"})
    assert [(pool.pool.name, pool.base_url) for pool in with_url.pools] == [
        ("default", "https://own.example"),
        ("maps", "https://maps.example"),
    ]
    file.write_text("[server]\nmode = 'test'\n")
    assert [pool.pool.upstream for pool in load(file, environ={}).pools] == ["simulated"]
