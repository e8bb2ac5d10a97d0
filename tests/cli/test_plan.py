"""`apiflux plan` hands every option on."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_the_calls_of_a_file_are_planned(tmp_path: Path) -> None:
    """With their own costs, and through a template if they are CSV; bad lines are told, and nothing is planned."""
    rows = tmp_path / "calls.csv"
    rows.write_text("q,n\nOslo,300\nRome,700\nParis,5\n", encoding="utf-8")
    file = ["--json", "--limit", "1000/60s:cost", "--calls-from", str(rows)]
    template = ["--template", '{"path": "/v1/{q}", "cost": "{n}"}', "--delimiter", ","]
    done = CliRunner().invoke(app, [*file, *template])
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["calls"], told["cost"], told["makespan_seconds"] > 60) == (3, 1005, True)
    (limit,) = told["limits"]
    assert (limit["name"], limit["counts"], limit["most"]) == ("1000 cost per 60s", "cost", 1000)
    rows.write_text("q,n\nOslo,1001\n", encoding="utf-8")
    bad = CliRunner().invoke(app, [*file, *template])
    assert (bad.exit_code, bad.stdout) == (2, "")
    gone = CliRunner().invoke(app, ["--limit", "1/1s", "--calls-from", str(tmp_path / "none.jsonl")])
    assert (gone.exit_code, gone.stdout) == (2, "")


def test_what_is_about_lines_needs_a_file() -> None:
    """Rather than being passed over."""
    refused = CliRunner().invoke(app, ["--limit", "1/1s", "--calls", "5", "--format", "jsonl"])
    assert refused.exit_code == 2
    assert "--format is about the lines of a file" in refused.stderr
