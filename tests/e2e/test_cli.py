"""The commands as people and scripts meet them: what goes to which stream, and which exit code comes back."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer

from apiflux_grpc import __version__
from apiflux_grpc.__main__ import main
from apiflux_grpc.cli.app import app
from apiflux_grpc.client import ApifluxError, Call, SyncClient
from apiflux_grpc.judge.ledger import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for

SECRET = "canary-2b7e"
KEYS = {"key-1": SECRET}
COMMAND = (sys.executable, "-m", "apiflux_grpc")
# Set here they would be the settings of what is tested; COLUMNS: no message is broken by its width.
SETTINGS = ("PORT", "TEST_MODE", "RATE_LIMIT", "API_KEYS", "BATCH_SIZE", "UPSTREAM_URL", "CONCURRENT_REQUESTS")
ENVIRON = {name: value for name, value in os.environ.items() if name not in SETTINGS} | {"COLUMNS": "300"}
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
Done = subprocess.CompletedProcess[str]


class Upstream(BaseHTTPRequestHandler):
    """Answers by its path; `/echo/TYPE` sends the body back as that type."""

    protocol_version = "HTTP/1.1"
    arrived: list[str]
    asked: threading.Event  # a /slow call has come
    gone: threading.Event  # /slow calls may end

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.arrived.append(f"{self.command} {self.path}")
        status, kind = 200, "application/json"
        match self.path.split("/")[1:]:
            case ["echo", kind]:
                kind = {"json": "application/json", "text": "text/plain", "bytes": "application/octet-stream"}[kind]
            case ["type"]:
                body = json.dumps(self.headers.get("Content-Type")).encode()
            case ["status", code]:
                status, body = int(code), b'{"ok":false}'
            case ["lone"]:
                body = rb'{"half of a pair":"\ud83d"}'
            case ["nan"]:
                body = b"[NaN, -Infinity, 1e999]"
            case ["slow"]:
                self.asked.set()
                self.gone.wait(30)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815  # the name that http.server calls

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that is gone is no news."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[type[Upstream]]:
    class Own(Upstream):
        arrived: list[str] = []  # noqa: RUF012  # one per class, and there is one class per run
        asked = threading.Event()
        gone = threading.Event()
        url = ""

    with Server(("127.0.0.1", 0), Own) as server:
        Own.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield Own
        Own.gone.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def served(upstream: Any) -> Iterator[ServedProcess]:
    """Pool `default` goes to the upstream, pool `simulated` nowhere."""
    key = '{ label = "key-1", secret_env = "STRESS_SECRET_0" }'
    config = f"""
[pools.default]
base_url = "{upstream.url}"
limits = []
keys = [{key}]
retry = {{ max_attempts = 1 }}

[pools.simulated]
limits = []
keys = [{key}]
"""
    with ServedProcess(config, secrets_for(KEYS)) as served:
        yield served


def run(*args: str, cwd: Path, stdin: str | None = None, **environ: str) -> Done:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *args],
        input="" if stdin is None else stdin,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=cwd,
        env=ENVIRON | environ,
    )


def run_all(commands: Sequence[Sequence[str]], cwd: Path) -> list[Done]:
    """Run commands side by side: each takes a while to start."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda args: run(*args, cwd=cwd), commands))


def rows_of(text: str) -> list[dict[str, Any]]:
    """JSON Lines, by index. Raises ValueError for what is no strict JSON."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    rows = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    return sorted(rows, key=lambda row: int(row["index"]))


def lines(*calls: dict[str, Any]) -> str:
    return "".join(json.dumps(call) + "\n" for call in calls)


# -- help and usage ------------------------------------------------------------------------------


def test_version_and_help(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both go to standard output with exit code 0, for every command; the console script is the same program."""
    version, top = run_all([["--version"], ["--help"]], tmp_path)
    assert version.stdout == f"apiflux {__version__}\n"
    for done in (version, top):
        assert (done.returncode, done.stderr) == (0, "")
    group: Any = typer.main.get_command(app)
    assert {"serve", "process", "stress", "judge", "check-config"} <= set(group.commands)
    for name, command in group.commands.items():
        assert name in top.stdout
        with pytest.raises(SystemExit) as ended:
            command.main(["--help"], prog_name=f"apiflux {name}")
        out, err = capsys.readouterr()
        assert (ended.value.code, err) == (0, "")
        assert out.startswith(f"Usage: apiflux {name} [OPTIONS]")
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
        ("say either --quick or --full", ["stress", "--quick", "--full"]),
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
    ]
    for (message, _), done in zip(cases, run_all([args for _, args in cases], tmp_path), strict=True):
        assert (done.returncode, done.stdout) == (2, ""), message
        assert message in done.stderr
        assert SECRET not in done.stderr
        assert "Traceback" not in done.stderr


# -- judge ---------------------------------------------------------------------------------------


def ask(address: str, path: str, **headers: str) -> int:
    request = urllib.request.Request(f"http://{address}{path}", headers=headers)
    try:
        with DIRECT.open(request, timeout=10) as answer:
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
    command = [*COMMAND, "judge", "--bind", "127.0.0.1:0", *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=ENVIRON) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("judging on 127.0.0.1:")
            address = line.split()[-1]
            statuses = [ask(address, f"/{number}", Authorization=f"Bearer {SECRET}") for number in range(calls)]
            process.send_signal(signum)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
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
    """Exit code 0; pools, keys and limits on standard output, without a secret."""
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    done = run("check-config", str(file), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no fault" in done.stdout
    shown = ("main", "http://127.0.0.1:9000", "team-a", "10 per 1s, 300 per 60s", "play", "simulator")
    assert [text for text in shown if text not in done.stdout] == []
    assert SECRET not in done.stdout + done.stderr


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
        refused = run("check-config", str(file), "--probe", "--path", "/a/../b", cwd=tmp_path, **secrets)
        assert (refused.returncode, judge.report().arrivals) == (2, 0)
        assert "--path" in refused.stderr
        done = run("check-config", str(file), "--probe", "--path", "/models", cwd=tmp_path, **secrets)
        report = judge.report()
    assert done.returncode == 3
    assert re.findall(r"(good|bad) +│ (HTTP \d+)", done.stdout) == [("good", "HTTP 200"), ("bad", "HTTP 401")]
    assert (report.accepted, report.unknown_arrivals, report.rejected) == (1, 1, 0)
    assert [one for one in (known | unknown).values() if one in done.stdout + done.stderr + refused.stderr] == []


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    """A missing file, a folder and broken TOML are exit code 2 and named; broken TOML with its line."""
    broken = tmp_path / "broken.toml"
    broken.write_text("[pools.main]\nlimits = [\n")
    files = (tmp_path / "missing.toml", tmp_path, broken)
    for file, done in zip(files, run_all([["check-config", str(file)] for file in files], tmp_path), strict=True):
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"{file}")
        assert "Traceback" not in done.stderr
    assert "line" in done.stderr


def test_serve_names_the_variable_that_is_wrong(tmp_path: Path) -> None:
    """Faults of the environment and of .env come together, each with its place, and no value is printed."""
    (tmp_path / ".env").write_text("BATCH_SIZE=few\nTEST_MODE=perhaps\n")
    done = run("serve", "--bind", "127.0.0.1:0", cwd=tmp_path, RATE_LIMIT=SECRET, API_KEYS=f"{SECRET},{SECRET}")
    assert (done.returncode, done.stdout) == (2, "")
    places = (".env: BATCH_SIZE: ", ".env: TEST_MODE: ", "API_KEYS: ", "RATE_LIMIT: ")
    for place, line in zip(places, sorted(done.stderr.splitlines()), strict=True):
        assert line.startswith(place)
    assert SECRET not in done.stderr


# -- serve ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["console", "json"])
def test_serve_says_one_line_and_logs_one_line_per_request(tmp_path: Path, style: str) -> None:
    """Standard output has the address alone; a caller's words can't begin a line of the log, nor fill it."""
    command = [*COMMAND, "--log-format", style, "serve", "--bind", "127.0.0.1:0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=ENVIRON) as process:
        try:
            assert process.stdout is not None
            target = process.stdout.readline().removeprefix("listening on ").strip()
            with SyncClient(target) as client:
                assert next(client.process([Call()])).ok
                for pool, correlation_id in (("x\nforged", ""), ("", "x\rforged"), ("x" * 1_000_000, "")):
                    with pytest.raises(ApifluxError):
                        next(client.process([Call()], pool=pool, correlation_id=correlation_id))
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, "")
    logged = err.splitlines()
    assert sum("FluxService/Process" in line for line in logged) == 4
    assert [line for line in logged if line.startswith("forged")] == []
    if style == "json":
        events = [json.loads(line) for line in logged]
        assert {"at", "level", "logger", "event"} <= set(events[0])
    assert max(map(len, logged)) < 2_000


# -- process -------------------------------------------------------------------------------------


def test_process_reads_stdin_and_writes_to_a_file(tmp_path: Path, served: ServedProcess) -> None:
    """Bodies go in as json, text or base64, and come back as body_json, body_text or body, whatever they can be."""
    calls = lines(
        {"id": "a", "method": "POST", "path": "/echo/json", "json": {"über": [1, None, "\n"]}},
        {"id": "b", "method": "POST", "path": "/echo/text", "text": "zwölf\n"},
        {"id": "c", "method": "POST", "path": "/echo/bytes", "body": base64.b64encode(b"\xff\x00").decode()},
        {"id": "d", "method": "POST", "path": "/type", "json": 1},
        {"id": "e", "method": "POST", "path": "/type", "json": 1, "headers": {"content-TYPE": "text/x"}},
        {"id": "f", "method": "POST", "path": "/echo/json", "text": "{not json"},
    )
    output = tmp_path / "out.jsonl"
    done = run("process", "-", "--target", served.target, "--output", str(output), cwd=tmp_path, stdin=f"\n{calls}\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    rows = rows_of(output.read_text())
    assert [row["id"] for row in rows] == list("abcdef")
    bodies = [{name: value for name, value in row["response"].items() if name.startswith("body")} for row in rows]
    assert bodies == [
        {"body_json": {"über": [1, None, "\n"]}},
        {"body_text": "zwölf\n"},
        {"body": "/wA="},
        {"body_json": "application/json"},
        {"body_json": "text/x"},
        {"body_text": "{not json"},
    ]
    assert all((row["keyLabel"], row["attempts"]) == ("key-1", 1) for row in rows)
    assert SECRET not in done.stderr + output.read_text()


def test_process_writes_strict_json_whatever_comes(tmp_path: Path, served: ServedProcess) -> None:
    """A body with half of a surrogate pair, or with NaN, is no reason to break the output or to stop."""
    calls = lines({"path": "/nan"}, {"path": "/lone"}, {"path": "/echo/json"})
    done = run("process", "-", "--target", served.target, cwd=tmp_path, stdin=calls)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0
    assert [row["index"] for row in rows_of(done.stdout)] == [0, 1, 2]


def test_process_names_bad_lines_and_can_skip_them(tmp_path: Path, served: ServedProcess, upstream: Any) -> None:
    """Without --skip-bad-lines nothing of a file is sent; with it the others are."""
    bad = ("{", "[]", '{"text": 1}', '{"json": 1, "text": "x"}', '{"timeout": "soon"}', '{"id": "\\ud800"}', "\x00")
    calls = "".join(f"{line}\n" for line in bad) + lines({"path": "/type"}, {"path": "/type", "id": "good"})
    before = len(upstream.arrived)
    (tmp_path / "calls").write_text(calls)
    refused, skipped = (
        run("process", "calls", "--target", served.target, *option, cwd=tmp_path)
        for option in ([], ["--skip-bad-lines"])
    )
    for done in (refused, skipped):
        for number in range(1, len(bad) + 1):
            assert done.stderr.count(f"calls:{number}: ") == 1
        assert f"calls:{len(bad) + 1}: " not in done.stderr
        assert "Traceback" not in done.stderr
    assert (refused.returncode, refused.stdout) == (2, "")
    assert skipped.returncode == 0
    assert [row.get("id") for row in rows_of(skipped.stdout)] == [None, "good"]
    assert len(upstream.arrived) == before + 2


def test_process_ends_as_its_calls_did(tmp_path: Path, served: ServedProcess) -> None:
    """3: some calls failed, and every result is there; 2: refused as it stands; 4: cut short. The reason is said."""
    gone = "127.0.0.1:1"  # nobody listens there
    two = lines({"path": "/type"}, {"path": "/status/500"})
    slow = lines({"path": "/type"}, {"path": "/slow"})
    cases: list[tuple[str, list[str], int, int, str]] = [
        (two, [], 3, 2, "1: HTTP_5XX 1"),
        (two, [], 3, 2, "<stdin>:2: HTTP 500"),
        (lines({"path": "/type"}, {"path": "/../up"}), [], 2, 2, "<stdin>:2: path: "),
        (lines({"path": "/type"}), ["--pool", "nowhere"], 2, 0, "POOL_NOT_FOUND"),
        (two, ["--target", gone], 4, 0, "UNAVAILABLE"),
        (slow, ["--timeout", "1"], 4, 1, "1 of 2 results were written"),
        (lines(*[{}] * 30), ["--pool", "simulated", "--ordered"], 0, 30, "30 in "),
    ]
    with ThreadPoolExecutor(4) as pool:
        ran = pool.map(
            lambda case: run("process", "-", "--target", served.target, *case[1], cwd=tmp_path, stdin=case[0]), cases
        )
        for (_, options, code, results, message), done in zip(cases, ran, strict=True):
            assert done.returncode == code, done.stderr
            assert len(rows_of(done.stdout)) == results
            assert message in done.stderr
            assert "Traceback" not in done.stderr
            if "--ordered" in options:
                assert [json.loads(line)["index"] for line in done.stdout.splitlines()] == list(range(30))


def test_process_says_which_file_it_cannot_use(tmp_path: Path, served: ServedProcess) -> None:
    """A file that isn't there, or is no text, is exit code 2; one that can't be written is no success either."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe{}")
    (tmp_path / "calls").write_text("{}\n")
    missing, no_text, unwritable = run_all(
        [
            ["process", "missing"],
            ["process", "bytes"],
            ["process", "calls", "--target", served.target, "--output", "no/such/folder"],
        ],
        tmp_path,
    )
    assert "can't read missing: " in missing.stderr
    assert "bytes:1: not UTF-8" in no_text.stderr
    assert "can't write: " in unwritable.stderr
    assert [done.returncode for done in (missing, no_text)] == [2, 2]
    assert unwritable.returncode in (1, 2)
    for done in (missing, no_text, unwritable):
        assert done.stdout == ""
        assert "Traceback" not in done.stderr


def test_process_is_cut_short_by_ctrl_c(tmp_path: Path, served: ServedProcess, upstream: Any) -> None:
    """SIGINT is exit code 4, without a traceback; what came before it is written."""
    calls = tmp_path / "calls.jsonl"
    calls.write_text(lines({"path": "/type"}, {"path": "/slow"}))
    upstream.asked.clear()
    command = [*COMMAND, "process", str(calls), "--target", served.target]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=ENVIRON) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert upstream.asked.wait(30)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert json.loads(first)["index"] == 0
    assert out == ""
    assert "Traceback" not in err
    assert process.returncode == 4


def test_process_ends_quietly_when_nobody_reads(tmp_path: Path, served: ServedProcess) -> None:
    """With a reader that leaves, as `| head -1`, it ends with exit code 4 and no traceback."""
    calls = tmp_path / "calls.jsonl"
    calls.write_text("{}\n" * 20_000)
    command = [*COMMAND, "process", str(calls), "--pool", "simulated", "--target", served.target]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=ENVIRON) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert json.loads(process.stdout.readline())["attempts"] == 1
            process.stdout.close()
            err = process.stderr.read()
            process.wait(30)
        finally:
            process.kill()
    assert "Traceback" not in err
    assert process.returncode == 4


# -- stress --------------------------------------------------------------------------------------


def test_stress_against_a_server(tmp_path: Path, served: ServedProcess, upstream: Any) -> None:
    """All calls done is 0; requests refused are 3, by reason; nobody there is 4. The table is on standard output."""
    with ServedProcess("", {"RATE_LIMIT": "1000000", "TEST_MIN_LATENCY": "0", "TEST_MAX_LATENCY": "1"}) as simulator:
        targets = (simulator.target, served.target, "127.0.0.1:1")
        with ThreadPoolExecutor(3) as pool:
            fine, refused, gone = pool.map(
                lambda target: run("stress", "--quick", "--target", target, cwd=tmp_path, CONCURRENT_REQUESTS="8"),
                targets,
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
    assert [path for path in upstream.arrived if path == "GET /"] == []
