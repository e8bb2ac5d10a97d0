"""Settings: what each source says, which one wins, every fault at once with its place, and no secret anywhere.

Not proved here: what is built from them.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import resource
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from apiflux_grpc.core.budget import largest, shape
from apiflux_grpc.core.cost import CostHeader, CostJson
from apiflux_grpc.core.model import (
    MILLISECOND,
    RETRY_REASONS,
    SECOND,
    Counts,
    Group,
    HeaderKey,
    Kind,
    Limit,
    Pool,
    QueryKey,
)
from apiflux_grpc.core.outcome import Reason
from apiflux_grpc.core.units import LONGEST, MOST
from apiflux_grpc.settings import PoolSettings, Settings, SettingsError, load

CANARY = "canary-7f3a"
ROOT = Path(__file__).parents[2]

GOOD = f"""
[pools.default]
base_url = "http://127.0.0.1:9000"
limits = [{{ max = 10, per = "1s" }}]
[[pools.default.keys]]
label = "a"
secret = "{CANARY}"
"""
KEY = '\n[[pools.default.keys]]\nlabel = "{}"\nsecret = "{}"\n'


def written(folder: Path, text: str) -> Path:
    file = folder / "c.toml"
    file.write_text(text)
    return file


def told(caught: SettingsError, file: Path | None = None) -> list[str]:
    """The faults as text; the canary is in nothing that could be printed of them."""
    everything = [str(caught), repr(caught), repr(caught.faults), *traceback.format_exception(caught)]
    assert CANARY not in "".join(everything)
    assert str(caught).splitlines() == [str(fault) for fault in caught.faults]
    return [str(fault).removeprefix(f"{file}: ") for fault in caught.faults]


def faults(folder: Path, text: str, **environ: str) -> list[str]:
    file = written(folder, text)
    with pytest.raises(SettingsError) as caught:
        load(file, environ=environ)
    return told(caught.value, file)


def env_faults(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(None, environ=environ)
    return told(caught.value)


def loaded(folder: Path, text: str, **environ: str) -> Settings:
    return load(written(folder, text), environ=environ)


def pool_with(folder: Path, line: str) -> PoolSettings:
    """GOOD's pool with one more line."""
    (pool,) = loaded(folder, GOOD.replace("limits =", f"{line}\nlimits =", 1)).pools
    return pool


# -- the seed's names ----------------------------------------------------------------------------


def test_nothing_at_all_is_the_seed_s_defaults() -> None:
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
def test_the_seed_s_names(environ: dict[str, str], name: str, value: object) -> None:
    """Each name of the seed says what it said there; an empty one says nothing."""
    assert getattr(load(None, environ=environ), name) == value


def test_the_simulator_s_latency_is_that_of_the_mode() -> None:
    """Each mode has a latency of its own, in milliseconds."""
    times = {"TEST_MIN_LATENCY": "1", "TEST_MAX_LATENCY": "2", "PROD_MIN_LATENCY": "3", "PROD_MAX_LATENCY": "4"}
    assert load(None, environ=times).pools[0].latency == (MILLISECOND, 2 * MILLISECOND)
    times["TEST_MODE"] = "0"
    assert load(None, environ=times).pools[0].latency == (3 * MILLISECOND, 4 * MILLISECOND)
    default = load(None, environ={"TEST_MODE": "0"}).pools[0].latency
    assert default == (500 * MILLISECOND, 3000 * MILLISECOND)


def test_upstream_url_makes_the_seed_s_pool_a_real_one() -> None:
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
        ({"TEST_MIN_LATENCY": "9", "TEST_MAX_LATENCY": "8"}, "TEST_MAX_LATENCY: TEST_MIN_LATENCY is above"),
        ({"PROD_MIN_LATENCY": "9000"}, "PROD_MIN_LATENCY: PROD_MIN_LATENCY is above"),
        ({"TEST_REQUESTS_COUNT": "50001"}, "TEST_REQUESTS_COUNT: the default repeat count, 50001, is above"),
        ({"UPSTREAM_URL": f"http://me:{CANARY}@host"}, "UPSTREAM_URL: can't have user info"),
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


# -- .env, and who wins --------------------------------------------------------------------------


def test_flags_win_over_the_environment_over_dotenv_over_toml(tmp_path: Path) -> None:
    """Flags, environment, .env, TOML, in this order."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("PORT=2000\nRATE_LIMIT=7\n")
    file = written(tmp_path, f'[server]\nbind = "127.0.0.1:1000"\nmode = "production"\nbatch_size = 3\n{GOOD}')
    assert load(file, environ={}).port == 1000
    assert load(file, environ={}, dotenv=dotenv).port == 2000
    assert load(file, environ={"PORT": "3000"}, dotenv=dotenv).port == 3000
    assert load(file, environ={"PORT": ""}, dotenv=dotenv).port == 2000
    assert load(file, environ={"PORT": "3000"}, dotenv=dotenv, bind="[::1]:4000").port == 4000
    assert load(file, environ={"PORT": "3000"}, bind="[::1]:4000").host == "::1"
    assert (load(file, environ={}).mode, load(file, environ={"TEST_MODE": "1"}).mode) == ("production", "test")
    assert load(file, environ={"BATCH_SIZE": "4"}).batch_size == 4
    assert load(None, environ={}, dotenv=dotenv).pools[0].pool.keys[0].limits[0].max == 7


def test_a_fault_of_dotenv_names_the_file(tmp_path: Path) -> None:
    """A bad value, and a line that is no assignment, are faults of `.env`; a value that is overridden isn't judged."""
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"RATE_LIMIT={CANARY}\n\nthis is {CANARY}\nPORT=x\n")
    with pytest.raises(SettingsError) as caught:
        load(None, environ={"PORT": "1"}, dotenv=dotenv)
    lines = told(caught.value)
    assert lines == [".env: line 3: is not NAME=value", ".env: RATE_LIMIT: must be a whole number"]


def test_dotenv_is_read_as_it_stands_and_os_environ_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A "$" in a secret stays one, no variable of this process gets in, and none is set."""
    monkeypatch.setenv("HERE", "substituted")
    monkeypatch.setenv("PORT", "1")
    dotenv = tmp_path / ".env"
    dotenv.write_text("API_KEYS=a${HERE}b\nNEW_NAME_OF_OURS=x\n")
    settings = load(None, environ={}, dotenv=dotenv)
    assert (settings.pools[0].pool.keys[0].secret, settings.port) == ("a${HERE}b", 50051)
    assert "NEW_NAME_OF_OURS" not in os.environ


def test_a_dotenv_that_is_not_there_is_as_none(tmp_path: Path) -> None:
    """`.env` is optional; one that can't be read is a fault."""
    assert load(None, environ={}, dotenv=tmp_path / "none").port == 50051
    with pytest.raises(SettingsError, match="can't be read"):
        load(None, environ={}, dotenv=tmp_path)


def test_the_flag_s_fault_is_named() -> None:
    """A bad --bind is a fault of --bind."""
    with pytest.raises(SettingsError) as caught:
        load(None, environ={}, bind=CANARY)
    assert told(caught.value) == ["--bind: has no port; write HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051"]


@pytest.mark.parametrize(
    "bind", ["", ":1", "h:", "h:65536", "::1:1", "[h]:1", "[]:1", "h:²", "h:-1", "h h:1", "[::1:1"]
)
def test_what_is_no_address(bind: str) -> None:
    """HOST:PORT, and nothing that merely looks like it."""
    with pytest.raises(SettingsError, match=r"--bind: (must be|has no port; write) HOST:PORT"):
        load(None, environ={}, bind=bind)


# -- TOML ----------------------------------------------------------------------------------------


def test_the_example_loads_clean() -> None:
    """examples/apiflux.toml has no fault and no warning once its variables exist."""
    settings = load(ROOT / "examples" / "apiflux.toml", environ={"TEAM_A_KEY": "one", "TEAM_B_KEY": "two"})
    assert settings.warnings == ()
    assert [key.label for key in settings.pools[0].pool.keys] == ["team-a", "team-b"]


def test_what_the_example_only_mentions_loads_too(tmp_path: Path) -> None:
    """Whoever uncomments a line of the example gets what its comment says."""
    text = (ROOT / "examples" / "apiflux.toml").read_text()
    text, found = re.subn(r"(?m)^( *)# (?=\{ max|\[\[|keys =|limits =|cost_from =)", r"\1", text)
    assert found == 7
    pool = loaded(tmp_path, text, TEAM_A_KEY="one", TEAM_B_KEY="two").pools[0].pool
    assert [(limit.max, limit.counts, limit.kind, limit.burst) for limit in pool.keys[0].limits] == [
        (1000, Counts.CALLS, Kind.WINDOW, None),
        (90000, Counts.COST, Kind.WINDOW, None),
        (50, Counts.CALLS, Kind.BUCKET, 20),
        (50, Counts.CALLS, Kind.BUCKET, 21),
    ]
    assert pool.groups == (Group(("team-a", "team-b"), (Limit(1200, 60 * SECOND),)),)
    assert pool.cost_from == CostJson(("usage", "total_tokens"))


def test_the_seed_s_file_loads_clean() -> None:
    """.env.example can be copied to .env as it is, and says the defaults but for BATCH_SIZE."""
    settings = load(None, environ={}, dotenv=ROOT / ".env.example")
    assert (settings.batch_size, settings.warnings) == (10, ())
    assert settings.pools == load(None, environ={}).pools


def test_a_pool_s_defaults_are_the_core_s(tmp_path: Path) -> None:
    """What a pool leaves out is as in core.model."""
    (pool,) = loaded(tmp_path, GOOD).pools
    expected = Pool(
        name="default",
        keys=pool.pool.keys,
        key_in=HeaderKey("X-API-Key"),
        upstream="http",
        base_url="http://127.0.0.1:9000",
    )
    assert pool == PoolSettings(expected, "http://127.0.0.1:9000", latency=pool.latency)


def test_everything_that_a_pool_can_say(tmp_path: Path) -> None:
    """Each name of the contract arrives where the rest of the program looks for it."""
    (tmp_path / "key.txt").write_text("from-file\r\n")
    text = """
    [server]
    grace = "2s"
    reflection = false
    cold_start = "trust"
    [pools.p]
    base_url = "http://127.0.0.1:9000/api/"
    key_in = { header = "Authorization", prefix = "Bearer " }
    limits = [{ max = 9, per = "60s" }, { max = 90, per = "60s", counts = "cost" }, { max = 5, per = "1s", burst = 2 }]
    max_in_flight = 4
    timeout = "1.5s"
    arrival_jitter = "2ms"
    patience = "2m"
    cost_from = { header = "X-Cost" }
    retry = { max_attempts = 5, on_429 = false, initial_backoff = "1ms", max_backoff = "1m" }
    max_connections = 10
    allow_repeat = true
    success = ["2xx", "404", "300-302"]
    allow_paths = ["/v1/"]
    egress_proxy = "http://me:canary-7f3a@127.0.0.1:3128"
    mask_secrets = false
    body_cap = 77
    keys = [
      { label = "one", secret_env = "KEY_ONE", limits = [], max_in_flight = 2 },
      { label = "two", secret_file = "key.txt" },
    ]
    groups = [{ keys = ["two", "one"], limits = [{ max = 7, per = "1s", kind = "bucket", burst = 1 }] }]
    """
    settings = loaded(tmp_path, text, KEY_ONE="from-env")
    by_name = {pool.pool.name: pool for pool in settings.pools}
    one, pool = by_name["p"], by_name["p"].pool
    assert (settings.grace, settings.reflection) == (2 * SECOND, False)
    assert (one.base_url, pool.key_in) == ("http://127.0.0.1:9000/api", HeaderKey("Authorization", "Bearer "))
    assert (one.mask_secrets, one.body_cap) == (False, 77)
    assert one.egress_proxy == f"http://me:{CANARY}@127.0.0.1:3128"
    assert (pool.timeout, pool.arrival_jitter, pool.max_connections) == (1_500_000_000, 2 * MILLISECOND, 10)
    assert (pool.allow_repeat, pool.allow_paths) == (True, ("/v1/",))
    assert (pool.patience, pool.cost_from) == (120 * SECOND, CostHeader("x-cost"))
    assert pool.groups == (Group(("two", "one"), (Limit(7, SECOND, kind=Kind.BUCKET, burst=1),)),)
    assert pool.success == ((200, 299), (404, 404), (300, 302))
    assert (pool.retry.max_attempts, pool.retry.initial_backoff) == (5, MILLISECOND)
    assert pool.retry.max_backoff == 60 * SECOND
    assert pool.retry.reasons == RETRY_REASONS - {Reason.HTTP_429}
    limits = (Limit(9, 60 * SECOND), Limit(90, 60 * SECOND, Counts.COST), Limit(5, SECOND, burst=2))
    assert [(key.secret, key.limits, key.max_in_flight) for key in pool.keys] == [
        ("from-env", (), 2),
        ("from-file", limits, 4),
    ]
    assert CANARY not in repr(settings)


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ('kind = "bucket"', Limit(10, SECOND, kind=Kind.BUCKET)),
        ('kind = "bucket", burst = 1', Limit(10, SECOND, kind=Kind.BUCKET, burst=1)),
        ('kind = "bucket", burst = 316224000', Limit(10, SECOND, kind=Kind.BUCKET, burst=316_224_000)),
        ('kind = "bucket", burst = 50, counts = "cost"', Limit(10, SECOND, Counts.COST, Kind.BUCKET, 50)),
        ('kind = "window", burst = 10', Limit(10, SECOND, burst=10)),
    ],
)
def test_a_bucket(tmp_path: Path, words: str, limit: Limit) -> None:
    """A bucket counts calls or cost; its burst may lie above max, and is max where it isn't said."""
    text = GOOD.replace('per = "1s"', f'per = "1s", {words}')
    (key,) = loaded(tmp_path, text).pools[0].pool.keys
    assert key.limits == (limit,)
    assert limit.depth == (limit.burst or limit.max)


@pytest.mark.parametrize(
    ("words", "source"),
    [
        ('json = "usage.total_tokens"', CostJson(("usage", "total_tokens"))),
        ('json = "cost"', CostJson(("cost",))),
        ('header = "X-Cost"', CostHeader("x-cost")),
    ],
)
def test_where_the_cost_stands(tmp_path: Path, words: str, source: CostHeader | CostJson) -> None:
    """A header's name is in lower case, as the engine looks for it; a path is split at its dots."""
    pool = pool_with(tmp_path, f"cost_from = {{ {words} }}").pool
    assert pool.cost_from == source


def test_groups_name_keys_by_their_labels(tmp_path: Path) -> None:
    """Keys of several groups, one without a label of its own, and one in no group."""
    text = GOOD + KEY.format("b", "two") + '\n[[pools.default.keys]]\nsecret = "three"\n' + KEY.format("d", "four")
    for keys in ('"b", "key-3"', '"a"'):
        text += f"\n[[pools.default.groups]]\nkeys = [{keys}]\n{SHARED}\n"
    (pool,) = loaded(tmp_path, text).pools
    limits = (Limit(5, SECOND),)
    assert pool.pool.groups == (Group(("b", "key-3"), limits), Group(("a",), limits))


def test_a_bucket_needs_some_jitter(tmp_path: Path) -> None:
    """A bucket's call that isn't written within half the jitter isn't sent; a window, or the simulator, needs none."""
    bucket = GOOD.replace('per = "1s"', 'per = "1s", kind = "bucket"')
    shared = SHARED.replace(" }", ', kind = "bucket" }')
    group = f'groups = [{{ keys = ["a"], {shared} }}]\nlimits ='
    for text in (bucket, GOOD.replace("limits =", group, 1)):
        for jitter in ("0s", "1999us"):
            (fault,) = faults(tmp_path, text.replace("base_url", f'arrival_jitter = "{jitter}"\nbase_url'))
            assert fault.startswith("pools.default.arrival_jitter: must be at least 2ms beside a bucket")
        loaded(tmp_path, text.replace("base_url", 'arrival_jitter = "2ms"\nbase_url'))
    none = 'arrival_jitter = "0s"\nlimits ='
    assert loaded(tmp_path, GOOD.replace("limits =", none)).pools[0].pool.arrival_jitter == 0
    simulated = bucket.replace('base_url = "http://127.0.0.1:9000"\n', "")
    assert loaded(tmp_path, simulated.replace("limits =", none)).pools[0].pool.arrival_jitter == 0


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ('keys = [{ label = 7, secret = "s" }]', "keys[0].label"),
        ("keys = [7]", "keys[0]"),
        ("keys = 7", "keys"),
        ("kys = []", "kys"),
        ("", "keys"),
    ],
)
def test_a_label_at_fault_makes_no_second_fault(tmp_path: Path, keys: str, place: str) -> None:
    """Where a key's label can't be read, nobody says that a group names a label that isn't there."""
    (fault,) = faults(tmp_path, f'[pools.default]\nlimits = []\n{keys}\ngroups = [{{ keys = ["a"], {SHARED} }}]\n')
    assert fault.startswith(f"pools.default.{place}: ")


def test_a_key_in_the_query(tmp_path: Path) -> None:
    """A pool may put its key into a query parameter instead of a header."""
    pool = pool_with(tmp_path, 'key_in = { query = "api_key" }')
    assert pool.pool.key_in == QueryKey("api_key")


def test_a_pool_without_base_url_is_the_simulator(tmp_path: Path) -> None:
    """Without base_url: simulated, synthetic load allowed, latency of the mode or its own."""
    text = GOOD.replace('base_url = "http://127.0.0.1:9000"\n', "")
    (pool,) = loaded(tmp_path, text).pools
    assert (pool.base_url, pool.pool.upstream, pool.pool.allow_repeat) == ("", "simulated", True)
    assert (pool.latency, pool.error_rate) == ((10 * MILLISECOND, 50 * MILLISECOND), 0.0)
    own = 'simulator = { latency = ["1ms", "2ms"], error_rate = 0.5 }\nlimits ='
    (pool,) = loaded(tmp_path, text.replace("limits =", own)).pools
    assert (pool.latency, pool.error_rate) == ((MILLISECOND, 2 * MILLISECOND), 0.5)


def test_a_secret_of_a_variable_may_stand_in_dotenv(tmp_path: Path) -> None:
    """secret_env looks in the environment, then in `.env`."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("KEY=second\n")
    file = written(tmp_path, GOOD.replace(f'secret = "{CANARY}"', 'secret_env = "KEY"'))
    assert load(file, environ={}, dotenv=dotenv).pools[0].pool.keys[0].secret == "second"
    assert load(file, environ={"KEY": "first"}, dotenv=dotenv).pools[0].pool.keys[0].secret == "first"


def test_limits_are_the_pool_s_or_each_key_s(tmp_path: Path) -> None:
    """A pool says its limits, if need be that there are none; forgetting them is a fault."""
    without = GOOD.replace('limits = [{ max = 10, per = "1s" }]\n', "")
    assert faults(tmp_path, without) == [
        "pools.default.limits: is missing: say the limits here or for each key; `limits = []` means none"
    ]
    none = loaded(tmp_path, GOOD.replace('{ max = 10, per = "1s" }', ""))
    assert none.pools[0].pool.keys[0].limits == ()
    each = loaded(tmp_path, without + 'limits = [{ max = 3, per = "1s" }]\n')
    assert each.pools[0].pool.keys[0].limits == (Limit(3, SECOND),)


SECRET = f'secret = "{CANARY}"'
LIMIT = 'per = "1s"'
LATER = "not supported by this version"
SHARED = 'limits = [{ max = 5, per = "1s" }]'


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        # limits
        ("max = 10", "max = 0", "limits[0].max", "at least 1"),
        ("max = 10", "max = 1.0", "limits[0].max", "whole number"),
        ("max = 10", "max = true", "limits[0].max", "whole number"),
        ("max = 10, ", "", "limits[0].max", "is missing"),
        (', per = "1s"', "", "limits[0].per", "is missing"),
        (LIMIT, 'per = "0s"', "limits[0].per", "must be above 0"),
        (LIMIT, 'per = "soon"', "limits[0].per", "must be a number and one of"),
        (LIMIT, "per = 60", "limits[0].per", "needs a unit"),
        (LIMIT, "per = 1.5", "limits[0].per", "needs a unit"),
        (LIMIT, "per = true", "limits[0].per", "must be a string"),
        (LIMIT, 'per = "9000h"', "limits[0].per", "longer than 366 days"),
        (LIMIT, f"{LIMIT}, burst = 11", "limits[0].burst", "above max (10)"),
        (LIMIT, f"{LIMIT}, burst = 0", "limits[0].burst", "at least 1"),
        (LIMIT, f'{LIMIT}, counts = "bytes"', "limits[0].counts", "'calls' or 'cost'"),
        (LIMIT, f'{LIMIT}, kind = "leaky"', "limits[0].kind", "'window' or 'bucket'"),
        ("[{ max = 10", "[7, { max = 10", "limits[0]", "must be a table"),
        ('[{ max = 10, per = "1s" }]', "7", "limits", "must be a list"),
        # keys
        ('label = "a"', 'label = ""', "keys[0].label", "1 to 64"),
        ('label = "a"', 'label = "a b"', "keys[0].label", "1 to 64"),
        ('label = "a"', f'label = "{"a" * 65}"', "keys[0].label", "1 to 64"),
        ('label = "a"', f'label = "{CANARY}"', "keys[0].label", "is a key's secret"),
        (SECRET, "", "keys[0].secret", "say secret, secret_env or secret_file"),
        (SECRET, f'{SECRET}\nsecret_env = "X"', "keys[0].secret_env", "stands beside secret"),
        (SECRET, 'secret = ""', "keys[0].secret", "is empty"),
        (SECRET, "secret = 7", "keys[0].secret", "must be a string"),
        (SECRET, f'secret = " {CANARY}"', "keys[0].secret", "begins or ends with a space"),
        (SECRET, f'secret = "{CANARY}\\n"', "keys[0].secret", "control character"),
        (SECRET, f'secret = "{CANARY}é"', "keys[0].secret", "outside ASCII"),
        (SECRET, f'secret = "{CANARY * 800}"', "keys[0].secret", "longer than 8192"),
        (SECRET, 'secret_env = "NOPE"', "keys[0].secret_env", "no environment variable NOPE"),
        (SECRET, 'secret_env = "EMPTY"', "keys[0].secret_env", "the secret that it names is empty"),
        (SECRET, f'secret_env = "{CANARY}"', "keys[0].secret_env", "must be the name of an environment variable"),
        (SECRET, f'secret_env = "{CANARY.replace("-", "_")}"', "keys[0].secret_env", "variable that name"),
        (SECRET, 'secret_file = "no.txt"', "keys[0].secret_file", "can't be read: No such file"),
        (SECRET, f'secret_file = "{CANARY}"', "keys[0].secret_file", "that file can't be read"),
        (SECRET, 'secret_file = "a\\u0000.b"', "keys[0].secret_file", "can't be read"),
        ("[[pools.default.keys]]", "[pools.default.key]", "key", "did you mean 'keys'?"),
        # where calls go
        ("http://", "ftp://", "base_url", "must begin with http:// or https://"),
        ("127.0.0.1:9000", "", "base_url", "must name a host"),
        ("127.0.0.1:9000", f"me:{CANARY}@h", "base_url", "user info"),
        ("9000", f"9000/?k={CANARY}", "base_url", "query or a fragment"),
        ("9000", f"9000/#{CANARY}", "base_url", "query or a fragment"),
        ("9000", "99999", "base_url", "valid host and port"),
        ("9000", "0", "base_url", "port from 1"),
        ("127.0.0.1", "[::1", "base_url", "valid host and port"),
        ("9000", "9000/a/../b", "base_url", '".."'),
        ("9000", "9000/a%zz", "base_url", "percent sign"),
        ("9000", "9000/a\\nb", "base_url", "without spaces"),
        # the key's place
        ("limits =", "key_in = {}\nlimits =", "key_in.header", "say header or query"),
        ("limits =", 'key_in = { header = "A", query = "b" }\nlimits =', "key_in.query", "beside header"),
        ("limits =", 'key_in = { query = "a", prefix = "b" }\nlimits =', "key_in.prefix", "for a header only"),
        ("limits =", 'key_in = { header = "A", prefix = "b\\r\\n" }\nlimits =', "key_in.prefix", "printable"),
        ("limits =", 'key_in = { header = "a b" }\nlimits =', "key_in.header", "not a header name"),
        ("limits =", 'key_in = { query = "a&b" }\nlimits =', "key_in.query", "not the name of a query parameter"),
        *(
            ("limits =", f'key_in = {{ header = "{name}" }}\nlimits =', "key_in.header", "sets itself")
            for name in ("Host", "content-length", "Transfer-Encoding", "Connection", "Upgrade", "TE", "Expect")
        ),
        # the rest of a pool
        ("limits =", "max_in_flight = 0\nlimits =", "max_in_flight", "at least 1"),
        ("limits =", "max_connections = 0\nlimits =", "max_connections", "at least 1"),
        ("limits =", "max_connections = 999999999\nlimits =", "max_connections", "ulimit -n"),
        ("limits =", 'timeout = "0s"\nlimits =', "timeout", "must be above 0"),
        ("limits =", "timeout = 30\nlimits =", "timeout", "needs a unit"),
        ("limits =", 'arrival_jitter = "-1s"\nlimits =', "arrival_jitter", "must be a number"),
        ("limits =", "retry = { max_attempts = 11 }\nlimits =", "retry.max_attempts", "at most 10"),
        ("limits =", "retry = { max_attempts = 0 }\nlimits =", "retry.max_attempts", "at least 1"),
        ("limits =", 'retry = { max_backoff = "61s" }\nlimits =', "retry.max_backoff", "at most 60s"),
        ("limits =", 'retry = { initial_backoff = "11s" }\nlimits =', "retry.initial_backoff", "above max_backoff"),
        ("limits =", 'retry = { max_backoff = "1ms" }\nlimits =', "retry.max_backoff", "above max_backoff (1ms)"),
        ("limits =", 'retry = { on_429 = "no" }\nlimits =', "retry.on_429", "true or false"),
        ("limits =", "success = []\nlimits =", "success", "is empty"),
        ("limits =", 'success = ["2xx", "6xx"]\nlimits =', "success[1]", "must be a string such as"),
        ("limits =", "success = [200]\nlimits =", "success[0]", "must be a string such as"),
        ("limits =", 'success = ["299-200"]\nlimits =', "success[0]", "higher status first"),
        ("limits =", "allow_paths = []\nlimits =", "allow_paths", "is empty"),
        ("limits =", 'allow_paths = ["/a", "v1/"]\nlimits =', "allow_paths[1]", 'must begin with "/"'),
        ("limits =", f'egress_proxy = "socks5://{CANARY}"\nlimits =', "egress_proxy", "must begin with http://"),
        ("limits =", f'egress_proxy = "http://h/{CANARY}"\nlimits =', "egress_proxy", "can't have a path"),
        ("limits =", "body_cap = 0\nlimits =", "body_cap", "at least 1"),
        ("limits =", "simulator = {}\nlimits =", "simulator", "stands beside base_url"),
        # names
        ("limits =", "limts =", "limts", "did you mean 'limits'?"),
        ("max = 10", "max = 10, bust = 2", "limits[0].bust", "did you mean 'burst'?"),
        ('label = "a"', 'lable = "a"', "keys[0].lable", "did you mean 'label'?"),
        ("limits =", "qqq = 1\nlimits =", "qqq", "unknown name"),
        ("limits =", "retry = { on429 = true }\nlimits =", "retry.on429", "did you mean 'on_429'?"),
        # buckets
        (LIMIT, f'{LIMIT}, kind = "bucket", burst = 0', "limits[0].burst", "at least 1"),
        (LIMIT, f'{LIMIT}, kind = "bucket", burst = 1000000000001', "limits[0].burst", "at most 1000000000000"),
        (LIMIT, f'{LIMIT}, kind = "bucket", burst = 316224001', "limits[0].burst", "longer than 366 days to fill"),
        (LIMIT, f'{LIMIT}, kind = "bucket", burst = 1.5', "limits[0].burst", "whole number"),
        # cost
        ("limits =", "cost_from = {}\nlimits =", "cost_from.header", "say header or json"),
        ("limits =", 'cost_from = "X-Cost"\nlimits =', "cost_from", "must be a table"),
        ("limits =", 'cost_from = { header = "X", json = "a" }\nlimits =', "cost_from.json", "beside header"),
        ("limits =", 'cost_from = { header = "X Cost" }\nlimits =', "cost_from.header", "not a header name"),
        *(
            ("limits =", f'cost_from = {{ json = "{path}" }}\nlimits =', "cost_from.json", "joined by dots")
            for path in ("", ".", "a.", ".a", "a..b", "a" * 257)
        ),
        ("limits =", 'cost_from = { jsn = "a" }\nlimits =', "cost_from.jsn", "did you mean 'json'?"),
        ("limits =", 'cost_from = { json_path = "a" }\nlimits =', "cost_from.json_path", "unknown name"),
        # patience
        ("limits =", 'patience = "-1s"\nlimits =', "patience", "must be a number"),
        ("limits =", "patience = 60\nlimits =", "patience", "needs a unit"),
        # groups
        ("limits =", 'groups = "a"\nlimits =', "groups", "must be a list"),
        ("limits =", "groups = [7]\nlimits =", "groups[0]", "must be a table"),
        *(
            ("limits =", f"groups = [{group}]\nlimits =", f"groups[0].{place}", message)
            for group, place, message in (
                (f"{{ {SHARED} }}", "keys", "is missing"),
                (f"{{ keys = [], {SHARED} }}", "keys", "is missing"),
                ('{ keys = ["a"] }', "limits", "is missing"),
                ('{ keys = ["a"], limits = [] }', "limits", "is missing"),
                (f'{{ keys = "a", {SHARED} }}', "keys", "must be a list"),
                (f'{{ keys = ["a", "b"], {SHARED} }}', "keys[1]", "the label of no key"),
                (f'{{ keys = ["key-1"], {SHARED} }}', "keys[0]", "the label of no key"),
                (f'{{ keys = ["{CANARY}"], {SHARED} }}', "keys[0]", "the label of no key"),
                (f'{{ keys = ["a b"], {SHARED} }}', "keys[0]", "1 to 64"),
                (f'{{ keys = ["a", "a"], {SHARED} }}', "keys[1]", "stands twice"),
                (f'{{ keys = ["a"], {SHARED.replace("max", "mx")} }}', "limits[0].mx", "did you mean 'max'?"),
                (f'{{ keys = ["a"], {SHARED.replace("1s", "1")} }}', "limits[0].per", "one of h, m, s"),
                (f'{{ keys = ["a"], lmits = [], {SHARED} }}', "lmits", "did you mean 'limits'?"),
            )
        ),
        (
            "limits =",
            f'groups = [{{ keys = ["a"], {SHARED} }}, {{ keys = ["a"], {SHARED} }}]\nlimits =',
            "groups[1].keys[0]",
            "is in groups[0], too",
        ),
    ],
)
def test_a_fault_of_a_pool_has_its_place(tmp_path: Path, old: str, new: str, place: str, message: str) -> None:
    """Each fault names the field and what is wrong with it, alone and without a value."""
    assert old in GOOD
    (fault,) = faults(tmp_path, GOOD.replace(old, new, 1), EMPTY="")
    assert fault.startswith(f"pools.default.{place}: ")
    assert message in fault


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("[server]\nbind = 7\n", "server.bind", "must be HOST:PORT"),
        ("[server]\nport = 1\n", "server.port", "unknown name"),
        ("[sever]\n", "sever", "did you mean 'server'?"),
        ('[server]\nmode = "live"\n', "server.mode", "'test' or 'production'"),
        ('[server]\ngrace = "-1s"\n', "server.grace", "must be a number"),
        ("[server]\nmax_batches = 0\n", "server.max_batches", "at least 1"),
        ("[server]\nmax_batch_bytes = 1073741824\n", "server.max_batch_bytes", "below 1073741824"),
        (
            "[server]\nmax_queued_calls = 49999\n",
            "server.max_queued_calls",
            "max_batch_calls is above max_queued_calls",
        ),
        ("[server]\nrepeat_count = 50001\n", "server.repeat_count", "is above max_batch_calls"),
        ("[server]\nmax_batch_calls = 49\n", "server.max_batch_calls", "is above max_batch_calls"),
        ("[stress]\nrequest_timeout = 5\n", "stress.request_timeout", "needs a unit"),
        ('[server]\nstate_dir = "/x"\n', "server.state_dir", LATER),
        ('[server]\ncold_start = "wait"\n', "server.cold_start", LATER),
        ('[server]\ncold_start = "cold"\n', "server.cold_start", "'trust' or 'wait'"),
        ('[budget]\nredis = "redis://127.0.0.1"\n', "budget", LATER),
        ("[budget]\n", "budget", LATER),
        ("pools = 7\n", "pools", "must be a table"),
        ("[pools]\nx = 7\n", "pools.x", "must be a table"),
        ("[pools.x]\nlimits = []\n", "pools.x.keys", "at least one key"),
        ('[pools."x\\ny"]\nlimits = []\nkeys = [{ secret = "s" }]\n', 'pools."x\\ny"', "1 to 64"),
        (
            '[pools.x]\nlimits=[]\nkeys=[{ secret="s" }]\nsimulator={ latency=["1ms"] }',
            "pools.x.simulator.latency",
            "two",
        ),
        (
            '[pools.x]\nlimits=[]\nkeys=[{ secret="s" }]\nsimulator={ latency=["2ms", "1ms"] }',
            "pools.x.simulator.latency",
            "longer one first",
        ),
        (
            '[pools.x]\nlimits=[]\nkeys=[{ secret="s" }]\nsimulator={ error_rate=nan }',
            "pools.x.simulator.error_rate",
            "must be",
        ),
    ],
)
def test_a_fault_outside_a_pool_has_its_place(tmp_path: Path, text: str, place: str, message: str) -> None:
    """The same holds for the server, the stress test, and what only a later version can do."""
    (fault,) = faults(tmp_path, text)
    assert fault.startswith(f"{place}: ")
    assert message in fault


@pytest.mark.parametrize(
    ("ca", "message"),
    [("nothing here", "without a certificate"), (None, '"ca.pem" can\'t be read: No such file')],
)
def test_a_ca_file_is_read(tmp_path: Path, ca: str | None, message: str) -> None:
    """A file of certificates is looked at before anything relies on it."""
    if ca is not None:
        (tmp_path / "ca.pem").write_text(ca)
    text = GOOD.replace("http:", "https:").replace("limits =", 'ca_file = "ca.pem"\nlimits =', 1)
    (fault,) = faults(tmp_path, text)
    assert fault.startswith("pools.default.ca_file: ")
    assert message in fault


def test_a_client_certificate_is_read(tmp_path: Path) -> None:
    """cert_file with its key must be a pair; a key_file alone is a fault."""
    good = GOOD.replace("http:", "https:")
    text = good.replace("limits =", 'cert_file = "client.pem"\nlimits =', 1)
    (fault,) = faults(tmp_path, text)
    assert fault.startswith("pools.default.cert_file: or key_file can't be read")
    (tmp_path / "client.pem").write_text("nonsense")
    assert faults(tmp_path, text) == ["pools.default.cert_file: and its key are no pair in PEM form without a password"]
    text = good.replace("limits =", 'key_file = "client.key"\nlimits =', 1)
    assert faults(tmp_path, text) == ["pools.default.key_file: stands without cert_file"]


def test_all_faults_at_once(tmp_path: Path) -> None:
    """Whoever mends a configuration sees everything that is wrong, in every source and of every sort."""
    text = f"""
    [server]
    bind = "nowhere"
    stat_dir = "x"
    [pools.default]
    base_url = "file:///x"
    timeout = 5
    limits = [
      {{ max = 0, per = "x" }},
      {{ max = 1, per = "1s", burst = 2 }},
      {{ max = 1, per = "1s", kind = "bucket", burst = 99999999 }},
    ]
    cost_from = {{}}
    keys = [
      {{ label = "a b", secret = "{CANARY}" }},
      {{ label = "b", secret = "{CANARY}" }},
      {{ label = "b", secret_env = "NOPE" }},
    ]
    groups = [{{ keys = ["b", "b"], limits = [{{ max = 1 }}] }}, {{ keys = ["b"] }}]
    """
    dotenv = tmp_path / ".env"
    dotenv.write_text("RATE_LIMIT=x\n")
    file = written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load(file, environ={"PORT": "x", "BATCH_SIZE": "0"}, dotenv=dotenv, bind="x")
    places = {fault.place.removeprefix(f"{file}: ") for fault in caught.value.faults}
    assert places == {
        "--bind",
        "PORT",
        "BATCH_SIZE",
        ".env: RATE_LIMIT",
        "server.bind",
        "server.stat_dir",
        "pools.default.base_url",
        "pools.default.timeout",
        "pools.default.limits[0].max",
        "pools.default.limits[0].per",
        "pools.default.limits[1].burst",
        "pools.default.limits[2].burst",
        "pools.default.cost_from.header",
        "pools.default.keys[0].label",
        "pools.default.keys[1]",
        "pools.default.keys[2].label",
        "pools.default.keys[2].secret_env",
        "pools.default.groups[0].keys[1]",
        "pools.default.groups[0].limits[0].per",
        "pools.default.groups[1].keys[0]",
        "pools.default.groups[1].limits",
    }
    assert len(told(caught.value, file)) == len(places)


def test_a_key_is_there_once(tmp_path: Path) -> None:
    """The same label, the same secret, or a label that is another key's secret, is refused."""
    assert faults(tmp_path, GOOD + KEY.format("a", "other")) == [
        "pools.default.keys[1].label: is the label of keys[0], too"
    ]
    assert faults(tmp_path, GOOD + KEY.format("b", CANARY)) == [
        "pools.default.keys[1]: has the secret of keys[0]: the same key twice would double its limit"
    ]
    assert faults(tmp_path, GOOD + KEY.format(CANARY, "other")) == [
        "pools.default.keys[1].label: is a key's secret, and labels are shown"
    ]


def test_keys_without_a_label_are_numbered(tmp_path: Path) -> None:
    """A label that isn't given comes from the place, never from the secret."""
    (pool,) = loaded(tmp_path, GOOD.replace('label = "a"', "")).pools
    assert [key.label for key in pool.pool.keys] == ["key-1"]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("[server]\n\n[pools\n", "c.toml: line 3, column 7", "Expected"),
        (f'a = "{CANARY}', "c.toml: line 1", "Unterminated string"),
        ("a = " + "[" * 5000, "c.toml", "nested too deeply"),
        ("a = " + "9" * 5000, "c.toml", "Exceeds the limit"),
    ],
)
def test_broken_toml_names_the_line(tmp_path: Path, text: str, place: str, message: str) -> None:
    """A file that is no TOML is one fault, with its line where there is one."""
    with pytest.raises(SettingsError) as caught:
        load(written(tmp_path, text), environ={})
    (fault,) = caught.value.faults
    told(caught.value)
    assert Path(fault.place).name.startswith(place)
    assert message in fault.message


def test_a_config_that_can_t_be_read_is_a_fault(tmp_path: Path) -> None:
    """A file that isn't there, is a folder or isn't UTF-8 is named."""
    (tmp_path / "c.toml").write_bytes(b"\xff")
    for name, message in (("none", "No such file"), ("", "directory"), ("c.toml", "is not UTF-8")):
        with pytest.raises(SettingsError, match=message) as caught:
            load(tmp_path / name, environ={})
        assert caught.value.faults[0].place == str(tmp_path / name)


def test_connections_follow_the_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 % of RLIMIT_NOFILE bounds the default silently, and is a fault only where more was asked for."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 4096))
    assert loaded(tmp_path, GOOD).pools[0].pool.max_connections == 80
    assert load(None, environ={}).pools[0].pool.max_connections == 80
    assert pool_with(tmp_path, "max_connections = 80").pool.max_connections == 80
    (fault,) = faults(tmp_path, GOOD.replace("limits =", "max_connections = 81\nlimits =", 1))
    assert fault.startswith("pools.default.max_connections: must be at most 80")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert loaded(tmp_path, GOOD).pools[0].pool.max_connections == 1000


# -- warnings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "warning"),
    [
        (
            '{ max = 2000, per = "1s" }, { max = 1000, per = "60s" }',
            "2000 per 1s never binds, since 1000 per 60s does before it",
        ),
        (
            '{ max = 5, per = "1s" }, { max = 1000, per = "60s" }',
            "1000 per 60s never binds, since 5 per 1s does before it",
        ),
        ('{ max = 50, per = "1s" }, { max = 1000, per = "60s" }', None),
        ('{ max = 2000, per = "1s", counts = "cost" }, { max = 1000, per = "60s" }', None),
        # a window beside a bucket: the bucket lets burst + per * rate through
        (
            '{ max = 700, per = "60s" }, { max = 10, per = "1s", kind = "bucket", burst = 100 }',
            "700 per 60s never binds, since 10 per 1s (a bucket of 100) does before it",
        ),
        ('{ max = 699, per = "60s" }, { max = 10, per = "1s", kind = "bucket", burst = 100 }', None),
        (
            '{ max = 100, per = "10s" }, { max = 10, per = "1s", kind = "bucket", burst = 100 }',
            "10 per 1s (a bucket of 100) never binds, since 100 per 10s does before it",
        ),
        ('{ max = 100, per = "10s" }, { max = 10, per = "1s", kind = "bucket", burst = 99 }', None),
        ('{ max = 100, per = "10s" }, { max = 9, per = "1s", kind = "bucket", burst = 100 }', None),
        # two buckets
        (
            '{ max = 9, per = "1s", kind = "bucket" }, { max = 10, per = "1s", kind = "bucket" }',
            "10 per 1s (a bucket of 10) never binds, since 9 per 1s (a bucket of 9) does before it",
        ),
        (
            '{ max = 9, per = "1s", kind = "bucket", burst = 9 }, { max = 9, per = "1s", kind = "bucket" }',
            "9 per 1s (a bucket of 9) never binds, since 9 per 1s (a bucket of 9) does before it",
        ),
        (
            '{ max = 9, per = "1s", kind = "bucket", burst = 20 }, { max = 10, per = "1s", kind = "bucket" }',
            None,
        ),
        # the same twice is told once
        (
            '{ max = 9, per = "1s" }, { max = 9, per = "1s", burst = 3 }',
            "9 per 1s (bursts of 3) never binds, since 9 per 1s does before it",
        ),
    ],
)
def test_a_limit_that_never_binds_is_warned_of(tmp_path: Path, limits: str, warning: str | None) -> None:
    """Of two limits that count the same, the one that another always reaches first is named, with that other."""
    settings = loaded(tmp_path, GOOD.replace('{ max = 10, per = "1s" }', limits))
    expected = () if warning is None else (f"{tmp_path / 'c.toml'}: pools.default.limits: {warning}",)
    assert settings.warnings == expected


@pytest.mark.parametrize(
    ("jitter", "limit", "words"),
    [
        # 1/r + J where the burst is 1
        (
            "20ms",
            'max = 2, per = "1s", burst = 1',
            "leaves 1 of its burst of 1: calls go out at least 520 ms apart, at 96.2%",
        ),
        # 50 a second over 400 ms are 20: one of 21 is left, and nothing is spaced
        ("400ms", 'max = 50, per = "1s", burst = 21', None),
        (
            "401ms",
            'max = 50, per = "1s", burst = 21',
            "leaves 1 of its burst of 21: calls go out at least 20.05 ms apart, at 99.8%",
        ),
        ("2s", 'max = 10, per = "1s"', "leaves 1 of its burst of 10: calls go out at least 210 ms apart, at 47.6%"),
        ("2ms", 'max = 2, per = "1s", burst = 2', None),
        (
            "250ms",
            'max = 90000, per = "60s", counts = "cost", burst = 300',
            "leaves 1 of its burst of 300: no call may cost more, and units of cost go out at least 0.8356 ms apart",
        ),
    ],
)
def test_a_burst_that_jitter_eats_is_warned_of(tmp_path: Path, jitter: str, limit: str, words: str | None) -> None:
    """Where late calls alone could fill a bucket they are spaced; what that costs is said, of groups' limits too."""
    bucket = f'[{{ {limit}, kind = "bucket" }}]'
    own = GOOD.replace('[{ max = 10, per = "1s" }]', f'{bucket}\narrival_jitter = "{jitter}"')
    line = f'arrival_jitter = "{jitter}"\ngroups = [{{ keys = ["a"], limits = {bucket} }}]\nlimits ='
    shared = GOOD.replace("limits =", line, 1)
    for text, place in ((own, "limits[0]"), (shared, "groups[0].limits[0]")):
        warnings = loaded(tmp_path, text).warnings
        if words is None:
            assert warnings == ()
        else:
            (warning,) = warnings
            assert warning.startswith(
                f"{tmp_path / 'c.toml'}: pools.default.{place}: arrival_jitter ({jitter}) {words}"
            )


def test_a_warning_is_about_what_the_pacer_does(tmp_path: Path) -> None:
    """The spacing that is told is that of the core."""
    text = GOOD.replace('per = "1s" }]', 'per = "1s", kind = "bucket" }]\narrival_jitter = "2s"')
    settings = loaded(tmp_path, text)
    pool = settings.pools[0].pool
    burst, seconds = shape(pool.keys[0].limits[0], pool.arrival_jitter)
    assert burst == 1
    assert f"{seconds * 1000:.0f} ms apart" in settings.warnings[0]


def test_cost_from_without_a_cost_is_warned_of(tmp_path: Path) -> None:
    """Where nothing counts cost, learning it is of no use; a group's limit counts, and a single key's."""
    line = 'cost_from = { header = "X-Cost" }\nlimits ='
    (warning,) = loaded(tmp_path, GOOD.replace("limits =", line)).warnings
    assert "pools.default.cost_from: is of no use" in warning
    cost = 'limits = [{ max = 5, per = "1s", counts = "cost" }]'
    assert loaded(tmp_path, GOOD.replace("limits =", line) + cost).warnings == ()
    group = f'groups = [{{ keys = ["a"], {cost} }}]\n{line}'
    assert loaded(tmp_path, GOOD.replace("limits =", group)).warnings == ()


@hypothesis_settings(deadline=None, max_examples=300)
@given(
    most=st.integers(1, MOST),
    per=st.integers(1, LONGEST),
    burst=st.none() | st.integers(1, MOST),
    kind=st.sampled_from(Kind),
    jitter=st.integers(0, LONGEST),
)
def test_a_call_fits_every_limit_that_is_taken(most: int, per: int, burst: int | None, kind: Kind, jitter: int) -> None:
    """No limit and no jitter that settings take leaves so little that not even a cost of 1 fits."""
    limit = Limit(most, per, kind=kind, burst=burst)
    assert largest(limit, jitter) >= 1
    depth, seconds = shape(limit, jitter)
    assert depth >= 1
    assert 0 < seconds < float("inf")


@pytest.mark.parametrize(
    ("host", "warns"), [("0.0.0.0", True), ("[::]", True), ("127.9.9.9", False), ("localhost", False)]
)
def test_listening_to_the_world_is_warned_of(host: str, warns: bool) -> None:
    """Without TLS, anything but loopback is worth a word."""
    warnings = load(None, environ={}, bind=f"{host}:1").warnings
    assert any("without TLS" in warning for warning in warnings) is warns


def test_other_warnings(tmp_path: Path) -> None:
    """Keys in the clear, a key in two pools, ignored names, simulator keys sent out, a default nobody wrote."""
    (clear,) = loaded(tmp_path, GOOD.replace("127.0.0.1", "api.example")).warnings
    assert "not https" in clear
    both = GOOD + GOOD.replace("pools.default", "pools.second")
    (shared,) = loaded(tmp_path, both).warnings
    assert "pools default and second share a secret" in shared
    (ignored,) = loaded(tmp_path, GOOD, API_KEYS="x").warnings
    assert ignored.startswith("API_KEYS: not used")
    (sent,) = load(None, environ={"UPSTREAM_URL": "http://127.0.0.1:1"}).warnings
    assert sent.startswith("API_KEYS: unset")
    (simulated,) = loaded(tmp_path, GOOD.replace("pools.default", "pools.other")).warnings
    assert "that pool is the simulator" in simulated
    assert CANARY not in clear + shared + ignored + sent + simulated


# -- anything at all -----------------------------------------------------------------------------


def _names() -> st.SearchStrategy[str]:
    known = ["server", "pools", "default", "bind", "limits", "keys", "max", "per", "burst", "header", "label", "secret"]
    return st.sampled_from(known) | st.text(max_size=5)


def _toml(value: object) -> str:
    """A value as TOML: JSON's strings, lists and numbers are TOML's, its objects are inline tables with `=`."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(name))} = {_toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return value.isoformat() if isinstance(value, datetime.date) else json.dumps(value)


SCALARS = (
    st.booleans()
    | st.integers()
    | st.dates()
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda number: round(number, 3))
    | st.sampled_from(["1s", "h:1", "2xx", "http://h", "window"])
    | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names(), inner, max_size=3), max_leaves=12
)
TABLES = st.fixed_dictionaries(
    {},
    optional={
        "server": st.dictionaries(_names(), VALUES, max_size=3),
        "pools": st.dictionaries(
            _names(),
            st.fixed_dictionaries(
                {},
                optional={
                    "limits": VALUES | st.lists(st.dictionaries(_names(), VALUES, max_size=3), max_size=2),
                    "keys": VALUES | st.lists(st.dictionaries(_names(), VALUES, max_size=3), max_size=2),
                    "key_in": VALUES,
                    "retry": VALUES,
                    "simulator": VALUES,
                    "cost_from": VALUES,
                    "groups": VALUES | st.lists(st.fixed_dictionaries({"keys": VALUES, "limits": VALUES}), max_size=2),
                },
            )
            | VALUES,
            max_size=2,
        ),
    },
)


def only_settings_errors(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        load(file, environ={})
    except SettingsError as error:
        assert error.faults  # noqa: PT017  # either end is fine; a fault must be told


@pytest.fixture(scope="module")
def junk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("junk") / "junk"


@hypothesis_settings(deadline=None, max_examples=150)
@given(text=st.text(max_size=60))
def test_any_text_as_toml(junk: Path, text: str) -> None:
    """Whatever a file holds, it loads or is a SettingsError."""
    only_settings_errors(junk, text)


@hypothesis_settings(deadline=None, max_examples=300)
@given(tables=TABLES)
def test_any_tables(junk: Path, tables: dict[str, object]) -> None:
    """Whatever well-formed TOML says, it loads or is a SettingsError."""
    only_settings_errors(junk, "\n".join(f"{name} = {_toml(table)}" for name, table in tables.items()))


ENVIRONMENTS = st.dictionaries(
    st.sampled_from(
        ["PORT", "TEST_MODE", "RATE_LIMIT", "API_KEYS", "UPSTREAM_URL", "TEST_MAX_LATENCY", "REQUEST_TIMEOUT", "OTHER"]
    ),
    st.text(max_size=12) | st.sampled_from(["0", "1", "http://[", "http://h:x", "a,a", "-0", "٣"]),
)


@hypothesis_settings(deadline=None, max_examples=200)
@given(environ=ENVIRONMENTS, bind=st.none() | st.text(max_size=8), dotenv=st.text(max_size=40))
def test_any_environment(junk: Path, environ: dict[str, str], bind: str | None, dotenv: str) -> None:
    """Whatever the variables, the flag and `.env` hold, they load or are a SettingsError."""
    junk.write_bytes(dotenv.encode("utf-8", "surrogatepass"))
    try:
        load(None, environ=environ, dotenv=junk, bind=bind)
    except SettingsError as error:
        assert error.faults  # noqa: PT017  # either end is fine; a fault must be told
