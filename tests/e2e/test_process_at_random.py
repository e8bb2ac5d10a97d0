"""`apiflux process` with options and states at random, against a model of what was promised (jobmodel.py).

Rule: what was sent is asked of the upstream, and what came of it is read from the files. A seed makes the same job
again.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from apiflux_grpc.jobs.calls import call_of
from apiflux_grpc.jobs.known import DONE, HANDED, Known, digest_of, key_of
from apiflux_grpc.jobs.output import Output
from tests.e2e.commands import Done, lines_of, read_until, write_lines
from tests.e2e.house import House
from tests.e2e.jobmodel import FOUND, NONE, Options, by_index, decide, some_calls, some_options
from tests.jobs.outputs import hand_over

NUMBERS = itertools.count(step=10)
FILES = {"calls.jsonl", "out.jsonl", "out.jsonl.state", "failed.jsonl"}


class Job:
    """Some calls with an output, as earlier runs may have left it."""

    def __init__(self, dice: random.Random, house: House, folder: Path) -> None:
        self.dice = dice
        self.house = house
        self.folder = folder
        self.source, self.output, self.failed = (folder / f"{name}.jsonl" for name in ("calls", "out", "failed"))
        self.calls = some_calls(dice, next(NUMBERS))
        self.is_piped = dice.random() < 0.35
        self.has_bad_lines = dice.random() < 0.2
        self.came: Counter[str] = Counter()
        if dice.random() < 0.6:
            self._leave_some()

    def _leave_some(self) -> None:
        handed = [call for call in self.calls if self.dice.random() < 0.7]
        with Output(self.output, Known()) as output:
            # What another format makes of a line is its own affair: 0 says that it isn't known.
            digests = [0 if call.is_openai else digest_of(call_of(call.fields)) for call in handed]
            keys = [key_of(call.id, call.index) for call in handed]
            hand_over(output, list(zip(keys, digests, strict=True)))
            for call in self.dice.sample(handed, len(handed)):
                call.handed = True
                if self.dice.random() < 0.7:
                    call.leave(self.dice.choice(FOUND))
                    output.write(lines_of(call.row).encode())

    def rows(self) -> dict[int, str]:
        if not self.output.exists():
            return {}
        return by_index([json.loads(line) for line in self.output.read_text().splitlines()])

    def begin(self, options: Options) -> tuple[list[str | Path], str]:
        """Write the lines, some of which now say otherwise whether they may run twice. The arguments, and the pipe."""
        for call in self.calls:
            if self.dice.random() < 0.05 and not call.is_openai:
                call.idempotent = self.dice.choice((None, True, False))
        lines: list[dict[str, Any]] = [call.fields for call in self.calls]
        if self.has_bad_lines:
            lines.insert(self.dice.randint(1, len(lines)), {"nothing": "like a call"})
        write_lines(self.source, lines)
        source: str | Path = "-" if self.is_piped else self.source
        text = self.source.read_text() if self.is_piped else ""
        arguments = [source, "--output", self.output, "--pool", "once", "--max-failures", "none", *options.args]
        return [*arguments, *(["--skip-bad-lines"] if self.has_bad_lines else [])], text

    def sent(self) -> Counter[str]:
        """What came since it was asked last."""
        now = self.house.upstream.arrived
        new, self.came = now - self.came, now
        return new

    # -- a run that nothing interrupts --------------------------------------------------------

    def run(self, options: Options) -> None:
        arguments, text = self.begin(options)
        is_bound = decide(self.calls, options)
        # What is behind the last call that --limit lets through isn't read from a pipe.
        is_read = not (is_bound or (self.is_piped and options.limit is not None))
        if wants_failed := self.dice.random() < 0.4:
            arguments += ["--failed", self.failed]
        self.failed.unlink(missing_ok=True)
        to_send = [call for call in self.calls if call.fate == "sent"]
        if self.dice.random() < 0.3:
            self.rehearse(arguments, text, len(to_send))
        done = self.house.process(*arguments, cwd=self.folder, stdin=text)
        assert self.sent() == {call.name: 1 for call in to_send}, done.stderr
        for call in to_send:
            call.answered(self.came[call.name])
        self.check_results(done, is_read=is_read)
        self.check_words(done, is_bound)
        if options.ordered and not self.is_piped:
            new = [index for index in self.rows() if self.calls[index].fate in ("sent", "doubt")]
            assert new == sorted(new)
        if wants_failed:
            self.check_failed(is_read)
        assert {path.name for path in self.folder.iterdir()} <= FILES

    def rehearse(self, arguments: list[str | Path], text: str, calls: int) -> None:
        before = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        told = self.house.process(*arguments, "--dry-run", cwd=self.folder, stdin=text)
        assert {path.name: path.read_bytes() for path in self.folder.iterdir()} == before
        assert (told.returncode, bool(self.sent())) == (0, False)
        assert re.search(rf"^calls +{calls}\b", told.stderr, re.M), told.stderr

    def check_results(self, done: Done, *, is_read: bool) -> None:
        found = self.rows()
        for call in self.calls:
            if call.fate == "doubt" and call.index in found:
                call.leave("UNKNOWN")
            assert found.get(call.index, NONE) == call.failure, (call, done.stderr)
            assert call.fate != "doubt" or not is_read or call.index in found, (call, done.stderr)

    def check_words(self, done: Done, is_bound: bool) -> None:
        has_failures = any(call.failure not in ("", NONE) for call in self.calls)
        results = sum(call.failure != NONE for call in self.calls)
        if "--max-cost is reached" in done.stderr:
            assert (done.returncode, is_bound) == (4, True)
        else:
            assert done.returncode == (3 if has_failures else 0), done.stderr
        said = re.search(r"is reached: (?:(nothing was sent)|(\d+)(?: of (\d+))? results? w\w+ written)", done.stderr)
        if self.is_piped:
            assert said or not is_bound, done.stderr  # it may be told of the last call: others might have come
        else:
            assert bool(said) == is_bound, done.stderr
            assert not said or (said[2] or "0", said[3]) == (str(results), str(len(self.calls))), done.stderr
        new = re.search(r"^results +(\d+|none)", done.stderr, re.M)
        earlier = re.search(r"^earlier +(\d+) calls? had (?:its|their) result(?:, (\d+|a))?", done.stderr, re.M)
        assert new is not None or is_bound
        if new is not None and not self.is_piped:
            before = int(earlier[1]) if earlier else 0
            assert int(new[1].replace("none", "0")) + before == results, done.stderr
            if earlier and earlier[2] and earlier[2] != "a":
                assert int(earlier[2]) <= before

    def check_failed(self, is_read: bool) -> None:
        lines = map(json.loads, self.failed.read_text().splitlines())
        names = {f"{line['method']} {line.get('path') or line['url']}" for line in lines}
        ready = {call.name for call in self.calls if call.is_ready}
        assert names <= ready
        assert ready - names <= {call.name for call in self.calls if not is_read and call.fate in ("kept", "left")}

    # -- a run that is interrupted ------------------------------------------------------------

    def interrupt(self, options: Options, how: signal.Signals) -> None:
        """By a signal when so many calls have come; those before the last one were answered."""
        arguments, text = self.begin(options)
        decide(self.calls, options)
        before = {call.index: (call.failure, call.may_have_run, call.handed) for call in self.calls}
        to_send = [call for call in self.calls if call.fate == "sent"]
        if not to_send:
            self.run(options)
            return
        most = self.dice.randint(1, len(to_send))
        order: list[str] = []

        def holds(name: str) -> bool:
            order.extend([] if name in order else [name])
            return order.index(name) >= most - 1

        upstream = self.house.upstream
        upstream.hold(holds)
        with self.house.forking(*arguments, cwd=self.folder, stdin=text) as process:
            upstream.wait_for(self.came.total() + most)
            process.send(how)
            err = read_until(process.err, "waiting up to") if how is signal.SIGINT else ""
            upstream.release()
            code, rest = process.rest()
            err += rest
        assert code == (4 if how is signal.SIGINT else -signal.SIGKILL), err
        self.house.rest()
        came = self.sent()
        assert came <= Counter(call.name for call in to_send), err
        found = self.rows()
        known = Known()
        with Output(self.output, known) as output:
            list(output.load())
        for call in self.calls:
            flags = known[key_of(call.id, call.index)]
            failure, may_have_run, was_handed = before[call.index]
            if call.name in came and call.index in found:
                call.answered(self.came[call.name])
                assert found[call.index] == call.failure, (call, err)
                continue
            if call.index in found:
                if call.fate == "doubt":
                    call.leave("UNKNOWN")
                assert found[call.index] == call.failure, (call, err)
                continue
            # Without a result: what may have run is noted.
            assert how is signal.SIGKILL or failure == NONE, (call, err)
            assert not (call.name in came or was_handed or may_have_run) or flags & HANDED, (call, err)
            assert how is signal.SIGKILL or bool(flags & HANDED) == (call.name in came or was_handed), (call, err)
            call.failure, call.may_have_run, call.handed = NONE, False, bool(flags & (HANDED | DONE))


@pytest.mark.parametrize(
    "seeds", [range(30), pytest.param(range(30, 300), marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.timeout(300)
def test_runs_with_any_options_send_and_write_what_was_promised(tmp_path: Path, house: House, seeds: range) -> None:
    """Each call that has to be sent comes once, no other comes, each has one result, and what is said is true."""
    run_some(tmp_path, house, seeds)


@pytest.mark.parametrize(
    "seeds", [range(300, 312), pytest.param(range(312, 500), marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.timeout(300)
def test_several_servers_send_and_write_the_same(tmp_path: Path, double_house: House, seeds: range) -> None:
    """Whichever of them sends a call: what holds for one server holds for two that share the job."""
    run_some(tmp_path, double_house, seeds)


def run_some(tmp_path: Path, house: House, seeds: range) -> None:
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        dice = random.Random(seed)
        job = Job(dice, house, folder)
        job.sent()
        for _ in range(dice.randint(1, 3)):
            job.run(some_options(dice))


@pytest.mark.slow
@pytest.mark.parametrize("servers", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.timeout(300)
def test_a_job_that_is_interrupted_anywhere_goes_on_as_promised(
    tmp_path: Path, request: pytest.FixtureRequest, how: signal.Signals, servers: int
) -> None:
    """After Ctrl-C what didn't come is as it was; after SIGKILL what may have run is noted; then any options."""
    house: House = request.getfixturevalue("house" if servers == 1 else "double_house")
    for seed in range(60):
        folder = tmp_path / str(seed)
        folder.mkdir()
        dice = random.Random(seed)
        job = Job(dice, house, folder)
        job.sent()
        for _ in range(2):
            job.interrupt(some_options(dice), how)
            job.run(some_options(dice))
