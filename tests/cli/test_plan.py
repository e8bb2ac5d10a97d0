"""`apiflux plan` hands every option on."""

from __future__ import annotations

import json

import typer
from typer.testing import CliRunner

from apiflux_grpc.cli.plan import plan

app = typer.Typer()
app.command()(plan)


def test_every_option_is_part_of_the_question() -> None:
    """What was asked is told with the answer; what can't be planned is bad usage."""
    upstream = ["--latency", "20ms..40ms", "--fail", "0.1", "--limited", "0.05", "--reject", "key-2", "--seed", "7"]
    keys = ["--keys", "2", "--limit", "50/1s", "--max-in-flight", "5", "--max-connections", "8"]
    done = CliRunner().invoke(app, ["--json", *keys, *upstream, "--calls", "30", "--batches", "2"])
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    asked = ("calls", "batches", "latency_seconds", "fail_share", "limited_share", "rejected_keys", "seed")
    assert [told[name] for name in asked] == [60, 2, [0.02, 0.04], 0.1, 0.05, ["key-2"], 7]
    assert [key["limits"][0]["max"] for key in told["keys"]] == [50, 50]
    refused = CliRunner().invoke(app, [*keys, "--calls", "5", "--reject", "key-9"])
    assert refused.exit_code == 2
    assert "no key 'key-9'" in refused.stderr
