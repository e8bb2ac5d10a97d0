"""The client programs, against a served instance and the judge."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from apiflux_grpc.tools.judge import JudgeOptions, JudgeProcess
from apiflux_grpc.tools.ledger import Limit
from apiflux_grpc.tools.stress import ServedProcess, config_for, secrets_for

CLIENTS = Path(__file__).parents[2] / "clients"
KEYS = {"key-1": "canary-clients"}
LIMIT = Limit(10, 1_000_000_000)


def test_the_python_program_runs_a_batch_and_explains_errors() -> None:
    """Generated stubs alone run a batch; a bad one is explained and sends nothing."""
    program = [sys.executable, str(CLIENTS / "python" / "run_batch.py")]
    with (
        JudgeProcess(JudgeOptions(KEYS, (LIMIT,))) as judge,
        ServedProcess(config_for(judge.url, (LIMIT,), list(KEYS)), secrets_for(KEYS)) as served,
    ):
        good = subprocess.run(
            [*program, served.target, "/one", "/two"], capture_output=True, text=True, timeout=50, check=False
        )
        bad = subprocess.run(
            [*program, served.target, "../up"], capture_output=True, text=True, timeout=50, check=False
        )
        report = judge.report()
    assert good.returncode == 0, good.stderr
    assert "2 of 2 succeeded" in good.stdout
    assert bad.returncode == 4
    assert "INVALID_ARGUMENT: calls[0].path" in bad.stderr
    assert report.accepted == 2
    assert report.violations == []
