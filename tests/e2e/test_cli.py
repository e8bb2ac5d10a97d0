"""The commands as people and scripts meet them: what goes to which stream, and which exit code comes back."""

from __future__ import annotations

import json
import re
import signal
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer

from apiflux_grpc import __version__
from apiflux_grpc.__main__ import main
from apiflux_grpc.cli.app import app
from apiflux_grpc.client import ApifluxError, Call, SyncClient
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.settings.presets import preset_names, preset_text
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for
from tests.e2e.commands import run, running
from tests.e2e.house import SECRET, House

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


# -- help and usage ------------------------------------------------------------------------------


def test_version_and_help(tmp_path: Path) -> None:
    """Both go to standard output with exit code 0, for every command; the console script is the same program."""
    version, top = (run(option, cwd=tmp_path) for option in ("--version", "--help"))
    assert version.stdout == f"apiflux {__version__}\n"
    for done in (version, top):
        assert (done.returncode, done.stderr) == (0, "")
    group: Any = typer.main.get_command(app)
    assert {"serve", "process", "stress", "judge", "check-config"} <= set(group.commands)
    for name in group.commands:
        assert name in top.stdout
        done = run(name, "--help", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"Usage: apiflux {name} [OPTIONS]")
    (script,) = metadata.entry_points(group="console_scripts", name="apiflux")
    assert script.load() is main


def test_bad_usage_is_exit_2_and_says_what_is_wrong(tmp_path: Path) -> None:
    """Nothing starts, standard output stays empty, and no key is shown."""
    judge = ["judge", "--bind", "127.0.0.1:0"]
    whole = [*judge, "--limit", "1/1s", "--key", SECRET]
    cases: list[tuple[str, list[str]]] = [
        ("No such command", ["fly"]),
        ("--key", [*judge, "--limit", "1/1s"]),
        ("'0/1s' must be at least 1", [*whole, "--limit", "0/1s"]),
        ("key 2: the same secret was given before", [*whole, "--key", SECRET]),
        ("'nowhere' has no port; write HOST:PORT", [*whole, "--bind", "nowhere"]),
        ("'cookie' must be header:NAME", [*whole, "--key-in", "cookie"]),
        ("headers: 'rfc' must be one of none, ietf, openai", [*whole, "--headers", "rfc"]),
        ("set either --quick or --full", ["stress", "--quick", "--full"]),
        ("--timeout", ["process", "-", "--timeout", "0"]),
        ("a timeout is at most 1000000000 seconds, not inf", ["process", "-", "--timeout", "inf"]),
        ("'--timeout'", ["process", "-", "--timeout", "nan"]),
        ("a timeout is at most 1000000000 seconds, not 1e+300", ["process", "-", "--wait", "1e300"]),
        (
            "'127.0.0.1:999999' must be HOST:PORT, with a port from 1 to 65535",
            ["process", "-", "--target", "127.0.0.1:999999"],
        ),
        ("the target '' has no port", ["process", "-", "--target", ""]),
        ("'http://127.0.0.1:1' is a URL", ["stress", "--quick", "--target", "http://127.0.0.1:1"]),
        ("--bind: has no port; write HOST:PORT", ["serve", "--bind", "nowhere"]),
        ("'--workers'", ["serve", "--workers", "0"]),
        ("'--workers'", ["serve", "--workers", "257"]),
    ]
    for message, args in cases:
        done = run(*args, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, ""), message
        assert message in done.stderr
        assert SECRET not in done.stderr
        assert "Traceback" not in done.stderr


# -- judge ---------------------------------------------------------------------------------------


def ask(address: str, path: str, **headers: str) -> int:
    request = urllib.request.Request(f"http://{address}{path}", headers=headers)
    try:
        with DIRECT.open(request, timeout=50) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize(
    ("signum", "calls", "code", "verdict"),
    [
        (signal.SIGTERM, 2, 0, "No violation."),
        (signal.SIGINT, 3, 3, "alpha: 3 arrivals within 60s, its limit is 2."),
    ],
)
def test_the_judge(tmp_path: Path, signum: signal.Signals, calls: int, code: int, verdict: str) -> None:
    """It prints its address, enforces the limit, and says its verdict at a signal; that is its exit code, too."""
    options = ["--limit", "2/60s", "--key", f"alpha={SECRET}", "--key-in", "bearer", "--latency", "1ms..2ms"]
    options += ["--headers", "ietf", "--cost", "json:tokens", "--others", "0.001"]
    with running("judge", "--bind", "127.0.0.1:0", *options, cwd=tmp_path) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("judging on 127.0.0.1:")
        address = line.split()[-1]
        statuses = [ask(address, f"/{number}", Authorization=f"Bearer {SECRET}") for number in range(calls)]
        process.send_signal(signum)
        out, err = process.communicate(timeout=50)
    assert statuses == [200, 200, 429][:calls]
    assert out == ""
    assert verdict in err
    assert "alpha" in err
    assert SECRET not in err
    assert process.returncode == code


# -- check-config and the settings of serve ------------------------------------------------------

GOOD = f"""
[pools.main]
base_url = "http://127.0.0.1:9000"
limits = [{{ max = 10, per = "1s" }}, {{ max = 300, per = "60s" }}]
keys = [{{ label = "team-a", secret = "{SECRET}" }}]

[pools.play]
limits = []
keys = [{{ label = "team-b", secret = "{SECRET}-b" }}]
"""

BAD = f"""
[server]
bnd = "127.0.0.1:1"

[pools.main]
base_url = "ftp://127.0.0.1"
timeout = 30
limits = [{{ max = 0, per = "1s" }}, {{ max = 5 }}]
key_in = {{ header = "X-A", query = "a" }}

[[pools.main.keys]]
label = "team-a"
secret = "{SECRET}"

[[pools.main.keys]]
label = "team-a"
secret = "{SECRET}"

[[pools.main.keys]]
label = "team-c"
secret_env = "NO_SUCH_VARIABLE"
"""

FAULTS = (
    "server.bnd",
    "pools.main.base_url",
    "pools.main.timeout",
    "pools.main.limits[0].max",
    "pools.main.limits[1].per",
    "pools.main.key_in.query",
    "pools.main.keys[1].label",
    "pools.main.keys[1]",
    "pools.main.keys[2].secret_env",
)


def test_check_config_tells_what_a_good_file_amounts_to(tmp_path: Path) -> None:
    """Exit code 0; pools, keys, limits and what answers mean on standard output, without a secret."""
    file = tmp_path / "good.toml"
    file.write_text(
        GOOD + '[pools.ai]\npreset = "openai"\nlimits = []\nkeys = [{ secret = "x" }]\n'
        'answers = [{ status = ["409"], means = "again", wait = { header = "X-Wait" } }]\n'
    )
    done = run("check-config", str(file), cwd=tmp_path, environ={"COLUMNS": "250"})
    assert done.returncode == 0, done.stderr
    assert "no fault" in done.stdout
    shown = ("main", "http://127.0.0.1:9000", "team-a", "10 calls per 1s, 300 calls per 60s", "play", "simulator")
    assert [text for text in shown if text not in done.stdout] == []
    assert SECRET not in done.stdout + done.stderr
    rules = [[part.strip() for part in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
    assert ["ai", "409", "again; wait: header x-wait", "the pool"] in rules
    assert any(rule[0] == "ai" and rule[2:] == ["limited", "preset openai"] for rule in rules)
    assert ["ai", "200-299", "success", "the pool"] in rules
    twice = (
        "DELETE, GET, HEAD, OPTIONS, PUT; POST: /v1/chat/completions, /v1/responses, /v1/embeddings, /v1/moderations"
    )
    cost = "max_completion_tokens|max_tokens|max_output_tokens + 0.25 per byte of the body"
    assert ["ai", twice, cost, "usage.total_tokens"] in rules
    assert ["each", "401, 402, other 403", "key_rejected", "HTTP"] in rules


def test_presets_are_listed_and_shown(tmp_path: Path) -> None:
    """Each has its line; one is printed as the file that it is; an unknown one is bad usage, with the closest name."""
    listed = run("presets", cwd=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(preset_names())
    shown = run("presets", "show", "openai", cwd=tmp_path)
    assert (shown.returncode, shown.stdout) == (0, preset_text("openai"))
    for message, args in (("did you mean 'openai'?", ["opnai"]), ("which one?", [])):
        refused = run("presets", "show", *args, cwd=tmp_path)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert message in refused.stderr


def test_init_writes_a_configuration_that_works(tmp_path: Path) -> None:
    """With the keys that are set, by name alone; what is there is left alone, and what can't be guessed is asked."""
    environ = {"OPENAI_API_KEY": SECRET}
    written = run("init", cwd=tmp_path, environ=environ)
    assert (written.returncode, written.stdout) == (0, "")
    assert "apiflux.toml: for openai, with the keys of OPENAI_API_KEY" in written.stderr
    text = (tmp_path / "apiflux.toml").read_text()
    checked = run("check-config", "apiflux.toml", cwd=tmp_path, environ=environ)
    assert checked.returncode == 0, checked.stderr
    again = run("init", "anthropic", cwd=tmp_path, environ=environ)
    assert (again.returncode, (tmp_path / "apiflux.toml").read_text()) == (2, text)
    assert "apiflux.toml exists already; name another file with --output" in again.stderr
    shown = run("init", "--output", "-", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "[pools.default]" in shown.stdout
    for args, message in ((("opnai",), "did you mean 'openai'?"), ((), "There are keys for anthropic, openai")):
        refused = run("init", *args, cwd=tmp_path, environ={**environ, "ANTHROPIC_API_KEY": SECRET})
        assert (refused.returncode, refused.stdout) == (2, "")
        assert message in refused.stderr
    for done in (written, again, shown):
        assert SECRET not in text + done.stdout + done.stderr


@pytest.mark.parametrize("command", [["check-config"], ["serve", "--bind", "127.0.0.1:0", "--config"]])
def test_every_fault_of_a_file_is_told_with_its_place(tmp_path: Path, command: list[str]) -> None:
    """One line each on standard error, exit code 2, and serve doesn't start; no secret is shown."""
    file = tmp_path / "bad.toml"
    file.write_text(BAD)
    done = run(*command, str(file), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    told = [line.removeprefix(f"{file}: ").partition(": ")[0] for line in done.stderr.splitlines()]
    assert sorted(told) == sorted(FAULTS)
    assert SECRET not in done.stderr


def test_probe_makes_one_call_with_each_key(tmp_path: Path) -> None:
    """Each key's answer is told; 3 where one fails. A path that no call may have is 2, and nothing is sent."""
    file = tmp_path / "probed.toml"
    known, unknown = {"good": "canary-probe-one"}, {"bad": "canary-probe-two"}
    with JudgeProcess(JudgeOptions(known, (Limit(1, 60_000_000_000),))) as judge:
        file.write_text(config_for(judge.url, (Limit(1, 60_000_000_000),), [*known, *unknown]))
        secrets = secrets_for(known | unknown)
        refused = run("check-config", str(file), "--probe", "--path", "/a/../b", cwd=tmp_path, environ=secrets)
        assert (refused.returncode, judge.report().arrivals) == (2, 0)
        assert "--path" in refused.stderr
        done = run("check-config", str(file), "--probe", "--path", "/models", cwd=tmp_path, environ=secrets)
        report = judge.report()
    assert done.returncode == 3
    assert re.findall(r"(good|bad) +│ (HTTP \d+)", done.stdout) == [("good", "HTTP 200"), ("bad", "HTTP 401")]
    assert (report.accepted, report.unknown_arrivals, report.rejected) == (1, 1, 0)
    assert [one for one in (known | unknown).values() if one in done.stdout + done.stderr + refused.stderr] == []


def test_a_probe_of_a_path_that_is_not_there_says_so(tmp_path: Path) -> None:
    """Without --path it asks for /, which hardly any API has; that is no word about the key."""
    file, key = tmp_path / "probed.toml", {"good": "canary-probe-one"}
    with JudgeProcess(JudgeOptions(key, (Limit(9, 60_000_000_000),), speak="anthropic")) as judge:
        file.write_text(config_for(judge.url, (Limit(9, 60_000_000_000),), [*key]))
        done = run("check-config", str(file), "--probe", cwd=tmp_path, environ=secrets_for(key))
    assert done.returncode == 3
    assert "HTTP 404" in done.stdout, done.stdout
    assert done.stderr.endswith(
        "404 and 405 say nothing of a key: / isn't there; name one that the API answers with --path\n"
    )


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    """A missing file, a folder and broken TOML are exit code 2 and named; broken TOML with its line."""
    broken = tmp_path / "broken.toml"
    broken.write_text("[pools.main]\nlimits = [\n")
    files = (tmp_path / "missing.toml", tmp_path, broken)
    for file in files:
        done = run("check-config", str(file), cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"{file}")
        assert "Traceback" not in done.stderr
    assert "line" in done.stderr


def test_a_rule_is_shown_as_it_is_written(tmp_path: Path) -> None:
    """Brackets in it are no colours, and colons no emoji."""
    file = tmp_path / "apiflux.toml"
    rule = '{ status = ["200"], json = { at = "code", is = ["[b]:100:"] }, means = "limited" }'
    config = config_for("http://127.0.0.1:1", [(1, 10**9)], ["a"], f"answers = [{rule}]")
    file.write_text(config)
    done = run("check-config", str(file), cwd=tmp_path, environ=secrets_for({"a": SECRET}))
    assert done.returncode == 0, done.stderr
    assert "[b]:100:" in done.stdout


def test_serve_names_the_variable_that_is_wrong(tmp_path: Path) -> None:
    """Faults of the environment and of .env come together, each with its place, and no value is printed."""
    (tmp_path / ".env").write_text("BATCH_SIZE=few\nTEST_MODE=perhaps\n")
    done = run(
        "serve", "--bind", "127.0.0.1:0", cwd=tmp_path, environ={"RATE_LIMIT": SECRET, "API_KEYS": f"{SECRET},{SECRET}"}
    )
    assert (done.returncode, done.stdout) == (2, "")
    places = (".env: BATCH_SIZE: ", ".env: TEST_MODE: ", "API_KEYS: ", "RATE_LIMIT: ")
    for place, line in zip(places, sorted(done.stderr.splitlines()), strict=True):
        assert line.startswith(place)
    assert SECRET not in done.stderr


# -- serve ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["console", "json"])
def test_serve_says_one_line_and_logs_one_line_per_request(tmp_path: Path, style: str) -> None:
    """Standard output has the address alone; a caller's words can't begin a line of the log, nor fill it."""
    environ = {"TEST_MIN_LATENCY": "0", "TEST_MAX_LATENCY": "1"}
    with running("--log-format", style, "serve", "--bind", "127.0.0.1:0", cwd=tmp_path, environ=environ) as process:
        assert process.stdout is not None
        target = process.stdout.readline().removeprefix("listening on ").strip()
        with SyncClient(target) as client:
            assert next(client.process([Call()])).ok
            for pool, correlation_id in (("x\nforged", ""), ("", "x\rforged"), ("x" * 1_000_000, "")):
                with pytest.raises(ApifluxError):
                    next(client.process([Call()], pool=pool, correlation_id=correlation_id))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=50)
    assert (process.returncode, out) == (0, "")
    logged = err.splitlines()
    assert sum("FluxService/Process" in line for line in logged) == 4
    assert [line for line in logged if line.startswith("forged")] == []
    if style == "json":
        events = [json.loads(line) for line in logged]
        assert {"at", "level", "logger", "event"} <= set(events[0])
    assert max(map(len, logged)) < 2_000


# -- stress --------------------------------------------------------------------------------------


def test_stress_against_a_server(tmp_path: Path, house: House) -> None:
    """All calls done is 0; requests refused are 3, by reason; nobody there is 4. The table is on standard output."""
    with ServedProcess("", {"RATE_LIMIT": "1000000", "TEST_MIN_LATENCY": "0", "TEST_MAX_LATENCY": "1"}) as simulator:
        fine, refused, gone = (
            run("stress", "--quick", "--target", target, cwd=tmp_path, environ={"CONCURRENT_REQUESTS": "8"})
            for target in (simulator.target, house.target, "127.0.0.1:1")
        )
    table = [row.strip("│┃ ").replace("│", " ").split() for row in fine.stdout.splitlines()]
    assert fine.returncode == 0, fine.stderr
    assert ["requests", "8"] in table
    assert ["calls", "400", "of", "400"] in table
    assert ["succeeded", "400"] in table
    assert refused.returncode == 3  # the pool allows no synthetic load
    assert "requests failed: INVALID_REQUEST" in refused.stdout
    assert (gone.returncode, gone.stdout) == (4, "")
    assert "UNAVAILABLE" in gone.stderr
    assert house.upstream.arrived == {}
