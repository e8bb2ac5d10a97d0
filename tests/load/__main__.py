"""`make load`: 100 concurrent Process streams by ghz against a served instance, and the judge's verdict.

    python -m tests.load path/to/ghz

Every request carries 20 calls of its own paths, so that the judge can tell them apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from apiflux_grpc.tools.judge import JudgeOptions, JudgeProcess, print_report
from apiflux_grpc.tools.ledger import Limit
from apiflux_grpc.tools.stress import ServedProcess, config_for, secrets_for

KEYS = {f"key-{number}": f"load-secret-{number}" for number in range(1, 4)}
LIMIT = Limit(500, 2_000_000_000)
REQUESTS, CALLS = 200, 20


def main(ghz: str) -> int:
    out = Path("build/load")
    out.mkdir(parents=True, exist_ok=True)
    calls = [{"path": f"/calls/{{{{.RequestNumber}}}}/{place}"} for place in range(CALLS)]
    data = out / "request.json"
    data.write_text(json.dumps({"calls": calls}), encoding="utf-8")
    with (
        JudgeProcess(JudgeOptions(KEYS, (LIMIT,), latency_ns=(10_000_000, 50_000_000))) as judge,
        ServedProcess(config_for(judge.url, (LIMIT,), list(KEYS)), secrets_for(KEYS)) as served,
    ):
        command = [ghz, "--insecure", "--call", "apiflux.v1.FluxService.Process", "--data-file", str(data)]
        command += ["-n", str(REQUESTS), "-c", "100", "--connections", "4", "-t", "60s", "-O", "json", served.target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        report = judge.report()
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return 1
    (out / "ghz.json").write_text(done.stdout, encoding="utf-8")
    statuses = json.loads(done.stdout)["statusCodeDistribution"]
    print("ghz, statuses of the streams:", statuses)
    print_report(report, sys.stdout)
    fine = statuses == {"OK": REQUESTS} and report.accepted == REQUESTS * CALLS and report.ok
    print("fine" if fine else "NOT fine")
    return 0 if fine else 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
