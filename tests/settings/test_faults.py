"""Every fault, with its place and what to do: a row for each, and all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiflux_grpc.settings import SettingsError, load
from tests.settings.writing import CANARY, GOOD, SHARED, faults, told, written

SECRET = f'secret = "{CANARY}"'


LIMIT = 'per = "1s"'


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
        (LIMIT, f"{LIMIT}, burst = 11", "limits[0].burst", "must be at most max (10)"),
        (LIMIT, f"{LIMIT}, burst = 0", "limits[0].burst", "at least 1"),
        (LIMIT, f'{LIMIT}, counts = "bytes"', "limits[0].counts", "'calls' or 'cost'"),
        (LIMIT, f'{LIMIT}, kind = "leaky"', "limits[0].kind", "'window' or 'bucket'"),
        ("[{ max = 10", "[7, { max = 10", "limits[0]", "must be a table"),
        ('[{ max = 10, per = "1s" }]', "7", "limits", "must be a list"),
        # keys
        ('label = "a"', 'label = ""', "keys[0].label", "1 to 64"),
        ('label = "a"', 'label = "a b"', "keys[0].label", "1 to 64"),
        ('label = "a"', f'label = "{"a" * 65}"', "keys[0].label", "1 to 64"),
        ('label = "a"', f'label = "{CANARY}"', "keys[0].label", "is the secret of a key; choose another"),
        (SECRET, "", "keys[0].secret", "is missing; set `secret`, `secret_env` or `secret_file`"),
        (SECRET, f'{SECRET}\nsecret_env = "X"', "keys[0].secret_env", "conflicts with `secret`; set one of them"),
        (SECRET, 'secret = ""', "keys[0].secret", "is empty"),
        (SECRET, "secret = 7", "keys[0].secret", "must be a string"),
        (SECRET, f'secret = " {CANARY}"', "keys[0].secret", "begins or ends with a space"),
        (SECRET, f'secret = "{CANARY}\\n"', "keys[0].secret", "control character"),
        (SECRET, f'secret = "{CANARY}é"', "keys[0].secret", "outside ASCII"),
        (SECRET, f'secret = "{CANARY * 800}"', "keys[0].secret", "longer than 8192"),
        (SECRET, 'secret_env = "NOPE"', "keys[0].secret_env", "no environment variable NOPE; set it"),
        (SECRET, 'secret_env = "EMPTY"', "keys[0].secret_env", "names a secret that is empty"),
        (SECRET, f'secret_env = "{CANARY}"', "keys[0].secret_env", "must be the name of an environment variable"),
        (
            SECRET,
            f'secret_env = "{CANARY.replace("-", "_")}"',
            "keys[0].secret_env",
            "there is no environment variable of that name; set it",
        ),
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
        ("9000", "9000/a%zz", "base_url", "two hexadecimal digits after each"),
        ("9000", "9000/a\\nb", "base_url", "without spaces"),
        # the key's place
        ("limits =", "key_in = {}\nlimits =", "key_in.header", "is missing; set `header` or `query`"),
        (
            "limits =",
            'key_in = { header = "A", query = "b" }\nlimits =',
            "key_in.query",
            "conflicts with `header`; set one of them",
        ),
        ("limits =", 'key_in = { query = "a", prefix = "b" }\nlimits =', "key_in.prefix", "needs `header`"),
        ("limits =", 'key_in = { header = "A", prefix = "b\\r\\n" }\nlimits =', "key_in.prefix", "printable"),
        ("limits =", 'key_in = { header = "a b" }\nlimits =', "key_in.header", "must be the name of a header"),
        ("limits =", 'key_in = { query = "a&b" }\nlimits =', "key_in.query", "must be the name of a query parameter"),
        *(
            ("limits =", f'key_in = {{ header = "{name}" }}\nlimits =', "key_in.header", "sets this one itself")
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
        (
            "limits =",
            'retry = { initial_backoff = "11s" }\nlimits =',
            "retry.initial_backoff",
            "must be at most max_backoff",
        ),
        (
            "limits =",
            'retry = { max_backoff = "1ms" }\nlimits =',
            "retry.max_backoff",
            "must be at most max_backoff (1ms)",
        ),
        ("limits =", 'retry = { on_429 = "no" }\nlimits =', "retry.on_429", "true or false"),
        ("limits =", "success = []\nlimits =", "success", "is empty"),
        ("limits =", 'success = ["2xx", "6xx"]\nlimits =', "success[1]", "must be a string such as"),
        ("limits =", "success = [200]\nlimits =", "success[0]", "must be a string such as"),
        ("limits =", 'success = ["299-200"]\nlimits =', "success[0]", "lower status first"),
        ("limits =", "allow_paths = []\nlimits =", "allow_paths", "is empty"),
        ("limits =", 'allow_paths = ["/a", "v1/"]\nlimits =', "allow_paths[1]", 'must begin with "/"'),
        ("limits =", f'egress_proxy = "socks5://{CANARY}"\nlimits =', "egress_proxy", "must begin with http://"),
        ("limits =", f'egress_proxy = "http://h/{CANARY}"\nlimits =', "egress_proxy", "must not have a path"),
        ("limits =", "body_cap = 0\nlimits =", "body_cap", "at least 1"),
        ("limits =", "simulator = {}\nlimits =", "simulator", "conflicts with `base_url`; set one of them"),
        # names
        ("limits =", "limts =", "limts", "did you mean 'limits'?"),
        ("max = 10", "max = 10, bust = 2", "limits[0].bust", "did you mean 'burst'?"),
        ('label = "a"', 'lable = "a"', "keys[0].lable", "did you mean 'label'?"),
        ("limits =", "qqq = 1\nlimits =", "qqq", "unknown name"),
        ("limits =", "retry = { on429 = true }\nlimits =", "retry.on429", "did you mean 'on_429'?"),
        # buckets
        (LIMIT, f'{LIMIT}, kind = "bucket", burst = 0', "limits[0].burst", "at least 1"),
        (LIMIT, f'{LIMIT}, kind = "bucket", burst = 1000000000001', "limits[0].burst", "at most 1000000000000"),
        (LIMIT, f'{LIMIT}, kind = "bucket", burst = 316224001', "limits[0].burst", "over 366 days to refill"),
        (LIMIT, f'{LIMIT}, kind = "bucket", burst = 1.5', "limits[0].burst", "whole number"),
        # cost
        ("limits =", "cost_from = {}\nlimits =", "cost_from.header", "is missing; set `header` or `json`"),
        ("limits =", 'cost_from = "X-Cost"\nlimits =', "cost_from", "must be a table"),
        (
            "limits =",
            'cost_from = { header = "X", json = "a" }\nlimits =',
            "cost_from.json",
            "conflicts with `header`; set one of them",
        ),
        ("limits =", 'cost_from = { header = "X Cost" }\nlimits =', "cost_from.header", "must be the name of a header"),
        *(
            ("limits =", f'cost_from = {{ json = "{path}" }}\nlimits =', "cost_from.json", "joined by dots")
            for path in ("", ".", "a.", ".a", "a..b", "a" * 257)
        ),
        ("limits =", 'cost_from = { jsn = "a" }\nlimits =', "cost_from.jsn", "did you mean 'json'?"),
        ("limits =", 'cost_from = { json_path = "a" }\nlimits =', "cost_from.json_path", "unknown name"),
        ("limits =", "cost = 5\nlimits =", "cost", "must be a table"),
        ("limits =", "cost = {}\nlimits =", "cost.json", "is missing; set `json` or `per_byte`"),
        ("limits =", 'cost = { per_byte_of = "a" }\nlimits =', "cost.json", "is missing; set `json` or `per_byte`"),
        ("limits =", "cost = { per_byte = -0.5 }\nlimits =", "cost.per_byte", "must be at least 0"),
        ("limits =", "cost = { per_byte = inf }\nlimits =", "cost.per_byte", "finite number"),
        ("limits =", 'cost = { json = "a", at_least = -1 }\nlimits =', "cost.at_least", "must be at least 0"),
        ("limits =", 'cost = { json = "a..b" }\nlimits =', "cost.json", "joined by dots"),
        ("limits =", 'cost = { json = "a", per_bite = 1 }\nlimits =', "cost.per_bite", "did you mean 'per_byte'?"),
        (
            "limits =",
            'cost = { json = "a", per_byte_of = "b" }\nlimits =',
            "cost.per_byte_of",
            "has no effect without `per_byte`",
        ),
        # what may run twice
        ("limits =", "idempotent = 1\nlimits =", "idempotent", "must be true, false or a list of tables"),
        ("limits =", 'idempotent = ["POST"]\nlimits =', "idempotent[0]", "must be a table"),
        ("limits =", "idempotent = [{ methods = [] }]\nlimits =", "idempotent[0].methods", "is empty; leave it out"),
        ("limits =", "idempotent = [{ paths = [] }]\nlimits =", "idempotent[0].paths", "is empty; leave it out"),
        ("limits =", 'idempotent = [{ paths = ["v1/"] }]\nlimits =', "idempotent[0].paths[0]", 'must begin with "/"'),
        ("limits =", 'idempotent = [{ pths = ["/"] }]\nlimits =', "idempotent[0].pths", "did you mean 'paths'?"),
        *(
            (
                "limits =",
                f'idempotent = [{{ methods = ["{method}"] }}]\nlimits =',
                "idempotent[0].methods[0]",
                "in capitals",
            )
            for method in ("post", "CONNECT", "TRACE", "", "A B")
        ),
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
                (f'{{ keys = ["a", "b"], {SHARED} }}', "keys[1]", "must be the label of a key"),
                (f'{{ keys = ["key-1"], {SHARED} }}', "keys[0]", "must be the label of a key"),
                (f'{{ keys = ["{CANARY}"], {SHARED} }}', "keys[0]", "must be the label of a key"),
                (f'{{ keys = ["a b"], {SHARED} }}', "keys[0]", "1 to 64"),
                (f'{{ keys = ["a", "a"], {SHARED} }}', "keys[1]", "is in this group twice"),
                (f'{{ keys = ["a"], {SHARED.replace("max", "mx")} }}', "limits[0].mx", "did you mean 'max'?"),
                (f'{{ keys = ["a"], {SHARED.replace("1s", "1")} }}', "limits[0].per", "one of h, m, s"),
                (f'{{ keys = ["a"], lmits = [], {SHARED} }}', "lmits", "did you mean 'limits'?"),
            )
        ),
        (
            "limits =",
            f'groups = [{{ keys = ["a"], {SHARED} }}, {{ keys = ["a"], {SHARED} }}]\nlimits =',
            "groups[1].keys[0]",
            "is in groups[0] too; a key can be in one group only",
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
            "max_batch_calls (50000) must be at most max_queued_calls (49999)",
        ),
        ("[server]\nrepeat_count = 50001\n", "server.repeat_count", "must be at most max_batch_calls (50000)"),
        ("[server]\nmax_batch_calls = 49\n", "server.max_batch_calls", "must be at most max_batch_calls (49)"),
        ("[stress]\nrequest_timeout = 5\n", "stress.request_timeout", "needs a unit"),
        ('[server]\nstate_dir = "/\\u0000"\n', "server.state_dir", "without control characters"),
        ('[server]\ncold_start = "cold"\n', "server.cold_start", "'trust' or 'wait'"),
        ('[budget]\nredis = "http://127.0.0.1"\n', "budget.redis", "must be a URL of the form redis://HOST:PORT/DB"),
        ('[budget]\nredis = "redis://a,b"\n', "budget.redis", "names several servers"),
        ('[budget]\nredis_env = "NOWHERE"\n', "budget.redis_env", "names the variable NOWHERE, which isn't set"),
        (
            '[budget]\nredis = "redis://a"\nredis_env = "R"\n',
            "budget.redis_env",
            "conflicts with `redis`; set one of them",
        ),
        (
            '[budget]\nredis = "redis://a"\n[server]\nstate_dir = "s"\n',
            "server.state_dir",
            "conflicts with `redis`, which keeps the budgets; set one of them",
        ),
        ('[budget]\nlease = "49ms"\n', "budget.lease", "at least 50ms"),
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
            "shorter duration first",
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


def test_all_faults_at_once(tmp_path: Path) -> None:
    """All faults are reported together, whatever their source and kind."""
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
