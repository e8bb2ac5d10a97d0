"""Lines that others write into the log: no value that came from outside is in them, and they have its form."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from apiflux_grpc.adapters.foreign_lines import WITHHELD, shown
from apiflux_grpc.adapters.observe_logs import configure

CANARY = "canary-7f3"

# A process that makes each of those write that go around logging, or bring a value with them.
SCRIPT = f"""
import logging, sys, threading, traceback, warnings
from apiflux_grpc.logs import configure
configure("info", "json", alone=True, worker=7)
grpc = logging.getLogger("grpc._cython.cygrpc")
try:
    b"\\xff{CANARY}".decode()
except UnicodeDecodeError:
    grpc.exception("Invalid encoding on %s", b"{CANARY}")
grpc.exception(ValueError("{CANARY}"))
logging.getLogger("asyncio").error("Task exception was never retrieved\\nfuture: <Task {CANARY}>")
warnings.warn("first line", RuntimeWarning)
try:
    raise KeyError("{CANARY}")
except KeyError:
    traceback.print_exc()
class Broken:
    def __del__(self):
        raise ValueError("{CANARY}")
Broken()
thread = threading.Thread(target=lambda: {{}}["{CANARY}"])
thread.start(); thread.join()
logging.getLogger("apiflux.x").info("%d", "{CANARY}")
print("{CANARY}", file=sys.stderr)
from apiflux_grpc.cli.streams import say
say("server.bind: is wrong")
raise ValueError("at the end")
"""


def test_every_line_of_a_process_with_json_is_json() -> None:
    """Also what Python, asyncio and gRPC write by themselves, and no value is in it that came from outside."""
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    lines: list[dict[str, Any]] = [json.loads(line) for line in ran.stderr.splitlines()]
    assert CANARY not in ran.stderr
    assert all(line["worker"] == 7 for line in lines)
    events = [line["event"] for line in lines]
    for event in (
        "Invalid encoding on %s",
        "ValueError",
        "Task exception was never retrieved",
        "Traceback (most recent call last):",
        "KeyError",
        "exception ignored",
        "a thread ended",
        "a log line is lost",
        WITHHELD,
        "server.bind: is wrong",
        "unhandled exception",
    ):
        assert event in events
    warned = next(line for line in lines if line["logger"] == "py.warnings")
    assert warned["event"].endswith("RuntimeWarning: first line")
    assert lines[0]["trace"].endswith("UnicodeDecodeError")


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_value_of_a_foreign_line_is_shown(capsys: pytest.CaptureFixture[str], style: str) -> None:
    """Of gRPC's lines the words are kept, and where it happened; ours have their values."""
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    try:
        configure("info", style)
        logging.getLogger("grpc._cython.cygrpc").error("Invalid encoding on %s", CANARY)
        logging.getLogger("apiflux.rpc").info("called by %s", "team-a")
    finally:
        root.level, root.handlers[:] = before
    foreign, ours = capsys.readouterr().err.splitlines()
    assert "Invalid encoding on %s" in foreign
    assert CANARY not in foreign
    assert "called by team-a" in ours


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('  File "a/b.py", line 3, in <module>', 'File "a/b.py", line 3, in <module>'),
        (
            '  File "b.pyx.pxi", line 48, in grpc._cython._decode ' + CANARY,
            'File "b.pyx.pxi", line 48, in grpc._cython._decode',
        ),
        ("json.decoder.JSONDecodeError: " + CANARY, "json.decoder.JSONDecodeError"),
        ("Exception ignored in: <function " + CANARY, "Exception ignored in"),
        ("    return " + CANARY, WITHHELD),
        (CANARY + "Error", WITHHELD),
    ],
)
def test_of_a_line_on_standard_error_only_what_is_known_is_shown(line: str, what: str) -> None:
    """The frames of a trace and the kind of an exception, never its text."""
    assert shown(line) == what
