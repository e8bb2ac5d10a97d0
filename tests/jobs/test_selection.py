"""Which calls of an input are sent, skipped, in doubt or refused; and when a reading is complete."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apiflux_grpc.jobs.again import Again
from apiflux_grpc.jobs.checks import Checks
from apiflux_grpc.jobs.console import Console
from apiflux_grpc.jobs.job import Job, Refused
from apiflux_grpc.jobs.known import DONE, HANDED, Known, digest_of, key_of
from apiflux_grpc.jobs.lines import Entry
from apiflux_grpc.jobs.output import Output
from apiflux_grpc.jobs.pool import ANY_POOL
from apiflux_grpc.jobs.selection import Selection
from apiflux_grpc.jobs.source import Source
from apiflux_grpc.v1 import apiflux_pb2 as pb


class Given:
    """Entries that are there in chunks, and then, unless `endless`, the end."""

    def __init__(self, *chunks: Sequence[Entry], endless: bool = False) -> None:
        self._chunks = list(chunks)
        self._woken = asyncio.Event()
        self._endless = endless
        self.read = False

    async def more(self) -> Sequence[Entry] | None:
        self.read = True
        if self._chunks:
            return self._chunks.pop(0)
        if self._endless:
            await self._woken.wait()
            return []
        return None

    def wake(self) -> None:
        self._woken.set()


def entry(number: int, **call: Any) -> Entry:
    return Entry(number, pb.Call(path=f"/{number}", **call))


def both(
    tmp_path: Path, given: Given, known: Known, *, output: Output | None = None, **options: Any
) -> tuple[Selection, Checks]:
    (tmp_path / "calls").touch()
    job = Job(tmp_path / "calls", "127.0.0.1:1", **options)
    again = Again(job)
    checks = Checks(job, Source(job), known, output, again, Console())
    return Selection(job, given, known, checks, again, Console()), checks


def selection(tmp_path: Path, given: Given, known: Known, **options: Any) -> Selection:
    return both(tmp_path, given, known, **options)[0]


def paths(calls: Sequence[pb.Call] | None) -> list[str]:
    return [call.path for call in calls or ()]


async def test_what_has_its_result_is_skipped_and_what_may_have_run_is_in_doubt(tmp_path: Path) -> None:
    """Unless it is idempotent: then it is sent again. The others are sent, and known by the stream's index."""
    known = Known()
    known[0 << 1] = DONE
    for index in (1, 2, 3):
        known[index << 1] = HANDED
    entries = [entry(0), entry(1, method="POST"), entry(2), entry(3, method="POST", idempotent=True), entry(4)]
    one, checks = both(tmp_path, Given(entries), known)
    assert paths(await one.take(10)) == ["/2", "/3", "/4"]
    assert await one.take(10) is None
    assert one.is_done
    assert (one.calls, checks.done) == (5, 1)
    assert {index: call.index for index, call in one.open.items()} == {0: 2, 1: 3, 2: 4}
    assert [call.index for call in one.doubtful(before=1)] == []
    assert [(call.index, call.line) for call in one.doubtful()] == [(1, 1)]
    assert list(one.doubtful()) == []


@pytest.mark.parametrize("skip", [True, False])
async def test_a_bad_line_ends_the_reading_unless_such_lines_are_skipped(tmp_path: Path, skip: bool) -> None:
    """A line that makes no call, and one whose id an earlier line has."""
    entries = [entry(1, id="a"), Entry(2, None, "bad"), entry(3, id="a"), entry(4)]
    one = selection(tmp_path, Given(entries), Known(), skip_bad_lines=skip)
    assert paths(await one.take(10)) == (["/1", "/4"] if skip else ["/1"])
    assert await one.take(10) is None
    assert one.is_done == skip


async def test_a_call_that_is_not_what_it_was_ends_the_reading(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if bad lines are skipped; the calls before it are sent."""
    known = Known()
    known[key_of("a", 0)] = HANDED
    known.put_digest(key_of("a", 0), digest_of(pb.Call(path="/was another")))
    with Output(tmp_path / "out", known) as output:
        one = selection(
            tmp_path, Given([entry(1), entry(2, id="a"), entry(3)]), known, output=output, skip_bad_lines=True
        )
        assert paths(await one.take(10)) == ["/1"]
        assert await one.take(10) is None
    assert one.is_other
    assert not one.is_done
    assert ":2: " in capsys.readouterr().err


async def test_a_reading_that_is_stopped_lets_go_whoever_waits(tmp_path: Path) -> None:
    """What was taken in by then, and not handed out, is left; so it isn't complete."""
    one = selection(tmp_path, Given([entry(0), entry(1)], endless=True), Known())
    assert paths(await one.take(1)) == ["/0"]
    assert paths(await one.take(1)) == ["/1"]
    waiting = asyncio.create_task(one.take(1))
    await asyncio.sleep(0)
    one.stop()
    assert await waiting is None
    assert not one.is_done


async def test_a_file_whose_every_call_was_taken_is_complete_though_its_end_was_not_met(tmp_path: Path) -> None:
    """A stream that is stopped after the last call doesn't ask for one more."""
    source = tmp_path / "calls"
    source.write_text('{"path": "/0"}\n{"path": "/1"}\n')
    job, known = Job(source, "127.0.0.1:1"), Known()
    file, again = Source(job), Again(job)
    checks = Checks(job, file, known, None, again, Console())
    list(checks.whole_file())
    one = Selection(job, file.open(), known, checks, again, Console())
    assert paths(await one.take(1)) == ["/0"]
    assert not one.is_done
    assert paths(await one.take(1)) == ["/1"]
    assert one.is_done


@pytest.mark.parametrize("done", [1, 2])
async def test_a_file_whose_calls_all_have_their_results_is_read_once(tmp_path: Path, done: int) -> None:
    """Then there is nothing to send, so no second reading; how much of it is done is known before anything is sent."""
    source = tmp_path / "calls"
    source.write_text('nonsense\n{"path": "/0"}\n{"path": "/1"}\n')
    job, known = Job(source, "127.0.0.1:1", skip_bad_lines=True), Known()
    for index in range(done):
        known[index << 1] = DONE
    again = Again(job)
    checks = Checks(job, Source(job), known, None, again, Console())
    list(checks.whole_file())
    assert (checks.calls, checks.done, checks.bad) == (2, done, 1)
    given = Given([Entry(1, None, "bad"), entry(0), entry(1)])
    one = Selection(job, given, known, checks, again, Console())
    assert paths(await one.take(10)) == ["/1"] * (2 - done)
    assert await one.take(10) is None
    assert given.read == (done == 1)
    assert (one.calls, one.is_done, checks.bad, checks.done) == (2, True, 1, done)


def test_a_file_without_calls_is_refused(tmp_path: Path) -> None:
    """There is nothing to send, which is hardly what was meant."""
    (tmp_path / "calls").write_text("\n\n")
    job = Job(tmp_path / "calls", "127.0.0.1:1")
    checks = Checks(job, Source(job), Known(), None, Again(job), Console())
    with pytest.raises(Refused, match="has no calls"):
        list(checks.whole_file())


def test_a_call_with_its_result_has_met_the_rules(tmp_path: Path) -> None:
    """It isn't judged once more by rules that may have changed; another call in its place is, and one that has none."""
    source = tmp_path / "calls"
    source.write_text('{"path": "/0"}\n{"path": "/bad"}\n{"path": "/1"}\n{"path": "/2"}\n')
    known = Known()
    job = Job(source, "127.0.0.1:1", skip_bad_lines=True)
    with Output(tmp_path / "out", known) as output:
        for index in range(2):
            known[index << 1] = DONE
            known.put_digest(index << 1, digest_of(pb.Call(path=f"/{index}")))
        checks = Checks(job, Source(job), known, output, Again(job), Console())
        checks.judge_for(replace(ANY_POOL, allow_paths=("/v1/",)))
        list(checks.whole_file())
        assert (checks.calls, checks.done, checks.bad) == (2, 2, 2)
