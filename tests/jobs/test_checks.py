"""The lines of an input are judged before anything is sent: by what they say, and by the rules of their pool."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apiflux_grpc.jobs.again import Again
from apiflux_grpc.jobs.checks import Checks
from apiflux_grpc.jobs.console import Console
from apiflux_grpc.jobs.job import Job, Refused
from apiflux_grpc.jobs.known import DONE, FAILED, FED, HANDED, SEEN, Known, digest_of, key_of
from apiflux_grpc.jobs.lines import Entry
from apiflux_grpc.jobs.output import Output
from apiflux_grpc.jobs.pool import ANY_POOL
from apiflux_grpc.jobs.source import Source
from apiflux_grpc.v1 import apiflux_pb2 as pb

POOL = replace(ANY_POOL, name="own", allow_paths=("/v1/",))
LINES = '{"path": "/v1/0"}\n{"path": "/v2/1"}\n{"path": "/v1/2"}\n'


def checks_of(tmp_path: Path, known: Known, output: Output | None = None, **options: Any) -> Checks:
    (tmp_path / "calls").write_text(LINES)
    job = Job(tmp_path / "calls", "127.0.0.1:1", **options)
    return Checks(job, Source(job), known, output, Again(job), Console())


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The ends of what was said of lines, with their numbers."""
    return [line.rpartition("/calls:")[2] for line in capsys.readouterr().err.splitlines()]


def test_the_pool_s_rules_hold_for_every_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is sent if they refuse one; skipped, it is no call, in both readings."""
    checks = checks_of(tmp_path, Known())
    checks.judge_for(POOL)
    with pytest.raises(Refused, match="nothing was sent"):
        list(checks.whole_file())
    said = ["2: path: is not allowed: paths of pool 'own' start with /v1/"]
    assert told(capsys) == said
    skipping = checks_of(tmp_path, Known(), skip_bad_lines=True)
    skipping.judge_for(POOL)
    list(skipping.whole_file())
    assert (skipping.calls, skipping.bad) == (2, 1)
    skipping.begin_again()
    assert skipping.good(Entry(2, pb.Call(path="/v2/1")), FED, 1) is None
    assert skipping.good(Entry(3, pb.Call(path="/v1/2")), FED, 1) is not None
    assert (skipping.bad, told(capsys)) == (1, said)  # told once


@pytest.mark.parametrize("id", ["", "a"])
def test_a_call_that_keeps_its_result_is_not_judged(tmp_path: Path, id: str) -> None:
    """It was sent under other rules, and isn't again. One that is sent anew is judged."""
    known, key = Known(), key_of(id, 0)
    call = pb.Call(id=id, path="/v2/")
    for flags, retry_failed, is_good in (
        (DONE, False, True),
        (DONE | FAILED, False, True),
        (DONE | FAILED, True, False),
        (HANDED, False, False),
        (0, False, False),
    ):
        known[key] = flags
        checks = checks_of(tmp_path, known, retry_failed=retry_failed)
        checks.judge_for(POOL)
        assert (checks.good(Entry(1, call), SEEN, 0) is not None) == is_good


def test_without_a_server_a_skipped_line_is_no_sign_of_another_job(tmp_path: Path) -> None:
    """Which lines its rules skip isn't known then, so a place says nothing; without skipping, or by an id, it does."""
    known, first = Known(), pb.Call(path="/v1/0")
    for id in ("", "a"):
        known[key_of(id, 0)] = DONE
        known.put_digest(key_of(id, 0), digest_of(first))
    with Output(tmp_path / "out", known) as output:
        for skips, pool, id, is_other in (
            (True, ANY_POOL, "", False),
            (True, ANY_POOL, "a", True),
            (True, POOL, "", True),
            (False, ANY_POOL, "", True),
        ):
            checks = checks_of(tmp_path, known, output, skip_bad_lines=skips)
            checks.judge_for(pool)
            call = pb.Call(id=id, path="/v1/2")
            assert bool(checks.other(1, call, 0, key_of(id, 0), digest_of(call))) == is_other, (skips, pool.name, id)
