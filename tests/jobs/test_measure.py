"""What the calls of a file take of their pool's limits, by the server's rules; bad lines are told as the job does."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from apiflux_grpc.core.model import Counts, Key, Limit, Pool
from apiflux_grpc.core.rules import CallRule, CostOfCall
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.jobs.console import Console
from apiflux_grpc.jobs.job import Job, Refused
from apiflux_grpc.jobs.measure import Measured, measure

LIMITS = (Limit(1000, SECOND, Counts.COST), Limit(5, SECOND, paths=("/search/",)))
POOL = Pool(
    "default",
    (Key("a", "", LIMITS),),
    cost=CostOfCall(("max_tokens",), at_least=10),
    idempotent=(CallRule(("POST",), ("/v1/ask",)),),
    base_url="http://127.0.0.1:9/v1",
)


def measured(file: Path, text: str, **options: str) -> Measured:
    file.write_text(text, encoding="utf-8")
    return asyncio.run(measure(Job(file, "", **options), POOL, Console()))  # type: ignore[arg-type]


def rows(found: Measured) -> list[tuple[int, int, int]]:
    return list(zip(found.costs, found.classes, found.repeatable, strict=True))


def test_each_call_has_its_own_cost_class_and_word_on_repeating(tmp_path: Path) -> None:
    """A cost of its own before the pool's rule, the class of its path, and what may run twice by call, pool, method."""
    calls = [
        {"path": "/v1/a"},
        {"path": "/search/x", "cost": 7},
        {"path": "/v1/ask", "method": "POST", "json": {"max_tokens": 300}},
        {"path": "/v1/pay", "method": "POST", "json": {}},
        {"path": "/v1/pay", "method": "POST", "idempotent": True},
        {"path": "/v1/a", "idempotent": False},
    ]
    found = measured(tmp_path / "calls.jsonl", "".join(f"{json.dumps(call)}\n" for call in calls))
    assert rows(found) == [(10, 0, 1), (7, 1, 1), (300, 0, 1), (10, 0, 0), (10, 0, 1), (10, 0, 0)]


def test_files_are_read_as_the_job_reads_them(tmp_path: Path) -> None:
    """CSV by a template, and OpenAI's batch format, whose url is joined to the pool's base URL."""
    template = '{"path": "/search/{q}", "cost": "{n}"}'
    found = measured(tmp_path / "calls.csv", "q,n\nOslo,3\nRome,5\n", template=template)
    assert rows(found) == [(3, 1, 1), (5, 1, 1)]
    body = {"model": "m", "max_tokens": 20}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/ask", "body": body}
    found = measured(tmp_path / "batch.jsonl", json.dumps(line))
    assert found.costs.tolist() == [20]


def test_standard_input_is_read_to_its_end() -> None:
    """A pipe has no beginning to go back to."""
    reading, writing = os.pipe()
    os.write(writing, b'{"path": "/v1/a"}\n{"path": "/search/b"}')
    os.close(writing)
    kept = os.dup(0)
    os.dup2(reading, 0)
    try:
        found = asyncio.run(measure(Job(None, ""), POOL, Console()))
        assert found.classes == bytes([0, 1])
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(reading)


def test_bad_lines_are_told_with_their_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, each in the words in which the job refuses it; then nothing is planned."""
    file = tmp_path / "calls.jsonl"
    lines = ['{"path": "/a", "id": "x"}', '{"path": "../b"}', '{"path": "/c", "cost": 1001}', "", "no", '{"id": "x"}']
    with pytest.raises(Refused, match=r"^nothing was planned: 4 bad lines, which `process` would refuse too$"):
        measured(file, "\n".join(lines))
    told = capsys.readouterr().err.splitlines()
    assert [line.removeprefix(f"{file}:").split(" ")[0] for line in told] == ["2:", "3:", "5:", "6:"]
    assert "no key of this pool takes more than 1000 at once" in told[1]
    with pytest.raises(Refused, match="has no calls; write one on each line"):
        measured(file, "\n")
    with pytest.raises(Refused, match="--template is for CSV"):
        measured(file, "", template="{}")
