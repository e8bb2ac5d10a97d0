"""A pool of the file: every name that it can say, and what it is without one."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import pytest

from apiflux_grpc.core.fields import Field, HeaderField, JsonField
from apiflux_grpc.core.model import RETRY_REASONS, Counts, Group, HeaderKey, Kind, Limit, Pool, QueryKey
from apiflux_grpc.core.outcome import Reason
from apiflux_grpc.core.rules import CallRule, CostOfCall, Means
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.settings import PoolSettings, load
from tests.settings.writing import CANARY, GOOD, faults, loaded, pool_with

ROOT = Path(__file__).parents[2]


def test_the_example_loads_clean() -> None:
    """examples/apiflux.toml has no fault and no warning once its variables exist."""
    settings = load(ROOT / "examples" / "apiflux.toml", environ={"TEAM_A_KEY": "one", "TEAM_B_KEY": "two"})
    assert settings.warnings == ()
    assert [key.label for key in settings.pools[0].pool.keys] == ["team-a", "team-b"]


def test_what_the_example_only_mentions_loads_too(tmp_path: Path) -> None:
    """Whoever uncomments a line of the example gets what its comment says."""
    text = (ROOT / "examples" / "apiflux.toml").read_text()
    text, found = re.subn(r"(?m)^( *)# (?=\{ max|\[\[|[a-z_]+ = )", r"\1", text)
    assert found == 13
    settings = loaded(tmp_path, text, TEAM_A_KEY="one", TEAM_B_KEY="two")
    pool = settings.pools[0].pool
    assert [(limit.max, limit.counts, limit.kind, limit.burst) for limit in pool.keys[0].limits] == [
        (1000, Counts.CALLS, Kind.WINDOW, None),
        (90000, Counts.COST, Kind.WINDOW, None),
        (30, Counts.CALLS, Kind.WINDOW, None),
        (50, Counts.CALLS, Kind.BUCKET, 20),
        (50, Counts.CALLS, Kind.BUCKET, 21),
    ]
    assert [limit.paths for limit in pool.keys[0].limits if limit.paths] == [("/v1/search",)]
    assert pool.longest_wait == 24 * 3600 * SECOND
    assert pool.groups == (Group(("team-a", "team-b"), (Limit(1200, 60 * SECOND),)),)
    assert pool.cost_from == JsonField(("usage", "total_tokens"))
    assert pool.cost == CostOfCall(("max_tokens",), 0.25, ("messages",))
    assert pool.idempotent == (CallRule(("POST",), ("/v1/search",)),)
    own, *of_preset = pool.answers
    assert (own.means, len(of_preset)) == (Means.LIMITED, settings.pools[0].preset_rules)


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
    """Each name of a pool ends up in the field that the program reads."""
    (tmp_path / "key.txt").write_text("from-file\r\n")
    text = """
    [server]
    grace = "2s"
    reflection = false
    workers = 3
    cold_start = "trust"
    [pools.p]
    base_url = "http://127.0.0.1:9000/api/"
    key_in = { header = "Authorization", prefix = "Bearer " }
    limits = [{ max = 9, per = "60s" }, { max = 90, per = "60s", counts = "cost" }, { max = 5, per = "1s", burst = 2 }]
    max_in_flight = 4
    timeout = "1.5s"
    arrival_jitter = "2ms"
    patience = "2m"
    longest_wait = "3h"
    cost_from = { header = "X-Cost" }
    retry = { max_attempts = 5, on_429 = false, initial_backoff = "1ms", max_backoff = "1m" }
    max_connections = 10
    allow_repeat = true
    success = ["2xx", "404", "300-302"]
    allow_paths = ["/v1/"]
    egress_proxy = "http://me:canary-7f3a@127.0.0.1:3128"
    mask_secrets = false
    body_cap = 77
    idle_timeout = "1.8s"
    keys = [
      { label = "one", secret_env = "KEY_ONE", limits = [], max_in_flight = 2 },
      { label = "two", secret_file = "key.txt" },
    ]
    groups = [{ keys = ["two", "one"], limits = [{ max = 7, per = "1s", kind = "bucket", burst = 1 }] }]
    """
    settings = loaded(tmp_path, text, KEY_ONE="from-env")
    by_name = {pool.pool.name: pool for pool in settings.pools}
    one, pool = by_name["p"], by_name["p"].pool
    assert (settings.grace, settings.reflection, settings.workers) == (2 * SECOND, False, 3)
    assert (one.base_url, pool.key_in) == ("http://127.0.0.1:9000/api", HeaderKey("Authorization", "Bearer "))
    assert (one.mask_secrets, one.body_cap, one.idle_timeout) == (False, 77, 1_800 * MILLISECOND)
    assert one.egress_proxy == f"http://me:{CANARY}@127.0.0.1:3128"
    assert (pool.timeout, pool.arrival_jitter, pool.max_connections) == (1_500_000_000, 2 * MILLISECOND, 10)
    assert (pool.allow_repeat, pool.allow_paths) == (True, ("/v1/",))
    assert (pool.patience, pool.cost_from) == (120 * SECOND, HeaderField("x-cost"))
    assert pool.longest_wait == 3 * 3600 * SECOND
    assert pool.groups == (Group(("two", "one"), (Limit(7, SECOND, kind=Kind.BUCKET, burst=1),)),)
    assert pool.success == ((200, 299), (404, 404), (300, 302))
    assert (pool.retry.max_attempts, pool.retry.initial_backoff) == (5, MILLISECOND)
    assert pool.retry.max_backoff == 60 * SECOND
    assert pool.retry.reasons == RETRY_REASONS - {Reason.LIMITED}
    limits = (Limit(9, 60 * SECOND), Limit(90, 60 * SECOND, Counts.COST), Limit(5, SECOND, burst=2))
    assert [(key.secret, key.limits, key.max_in_flight) for key in pool.keys] == [
        ("from-env", (), 2),
        ("from-file", limits, 4),
    ]
    assert CANARY not in repr(settings)


@pytest.mark.parametrize(
    ("words", "source"),
    [
        ('json = "usage.total_tokens"', JsonField(("usage", "total_tokens"))),
        ('json = "cost"', JsonField(("cost",))),
        ('header = "X-Cost"', HeaderField("x-cost")),
    ],
)
def test_where_the_cost_is(tmp_path: Path, words: str, source: Field) -> None:
    """A header's name is in lower case, as the engine looks for it; a path is split at its dots."""
    pool = pool_with(tmp_path, f"cost_from = {{ {words} }}").pool
    assert pool.cost_from == source


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ('json = "max_tokens"', CostOfCall(("max_tokens",))),
        ("per_byte = 2", CostOfCall(per_byte=2.0)),
        (
            'json = "a.b", per_byte = 0.25, per_byte_of = "c.d", at_least = 0',
            CostOfCall(("a", "b"), 0.25, ("c", "d"), 0),
        ),
    ],
)
def test_what_a_call_costs(tmp_path: Path, words: str, rule: CostOfCall) -> None:
    """Paths are split at their dots; what is left out is as in core.rules."""
    assert pool_with(tmp_path, f"cost = {{ {words} }}").pool.cost == rule


@pytest.mark.parametrize(
    ("words", "rules"),
    [
        ("true", (CallRule(),)),
        ("false", ()),
        ("[]", ()),
        (
            '[{ methods = ["POST", "PATCH"], paths = ["/v1/chat/", "/a%20b"] }, { paths = ["/"] }]',
            (CallRule(("POST", "PATCH"), ("/v1/chat/", "/a b")), CallRule((), ("/",))),
        ),
    ],
)
def test_what_may_run_twice(tmp_path: Path, words: str, rules: tuple[CallRule, ...]) -> None:
    """`true` is a rule for every call; paths are decoded, as those of calls will be."""
    assert pool_with(tmp_path, f"idempotent = {words}").pool.idempotent == rules


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


def test_connections_follow_the_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 % of RLIMIT_NOFILE lowers the default silently, and is a fault only if more was asked for."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 4096))
    assert loaded(tmp_path, GOOD).pools[0].pool.max_connections == 80
    assert load(None, environ={}).pools[0].pool.max_connections == 80
    assert pool_with(tmp_path, "max_connections = 80").pool.max_connections == 80
    (fault,) = faults(tmp_path, GOOD.replace("limits =", "max_connections = 81\nlimits =", 1))
    assert fault.startswith("pools.default.max_connections: must be at most 80")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert loaded(tmp_path, GOOD).pools[0].pool.max_connections == 1000


def test_connections_of_callers_follow_the_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of RLIMIT_NOFILE without what the process needs itself, unless another number is given that fits."""
    for soft, most in ((64, 10), (1024, 330), (40, 8), (1_000_000, 10_000), (resource.RLIM_INFINITY, 10_000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert load(None, environ={}).max_connections == most
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    assert loaded(tmp_path, "[server]\nmax_connections = 68\n" + GOOD).max_connections == 68
    (fault,) = faults(tmp_path, "[server]\nmax_connections = 69\n" + GOOD)
    assert fault.startswith("server.max_connections: must be at most 68, 32 less than this process may open files")


@pytest.mark.parametrize("words", ['cost_from = { header = "X-Cost" }', 'cost = { json = "max_tokens" }'])
def test_a_cost_that_nothing_counts_is_warned_of(tmp_path: Path, words: str) -> None:
    """If no limit counts cost, only --max-cost does; a group's limit counts, and a single key's."""
    line = f"{words}\nlimits ="
    (warning,) = loaded(tmp_path, GOOD.replace("limits =", line)).warnings
    assert f"pools.default.{words.partition(' ')[0]}: only counts for `apiflux process --max-cost`" in warning
    cost = 'limits = [{ max = 5, per = "1s", counts = "cost" }]'
    assert loaded(tmp_path, GOOD.replace("limits =", line) + cost).warnings == ()
    group = f'groups = [{{ keys = ["a"], {cost} }}]\n{line}'
    assert loaded(tmp_path, GOOD.replace("limits =", group)).warnings == ()
