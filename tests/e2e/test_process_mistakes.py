"""`apiflux process` and mistakes that cost money: what is sent in spite of them, asked of the upstream at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apiflux_grpc.jobs.known import Known, digest_of
from apiflux_grpc.jobs.output import Output
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.e2e.commands import Done, indexes, lines_of, read_until, rows_of, run, write_lines
from tests.e2e.house import SECRET, House
from tests.jobs.outputs import hand_over


def missing(count: int) -> list[dict[str, Any]]:
    """Calls that fail alike."""
    return [{"id": str(number), "method": "POST", "path": "/status/404"} for number in range(count)]


def posts(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"method": "POST", "path": f"/n/{number}", **more} for number in range(count)]


def told(done: Done) -> str:
    """What was said, in one line."""
    return " ".join(done.stderr.split())


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# -- calls that fail -------------------------------------------------------------------------------


def test_a_job_whose_calls_all_fail_alike_costs_fifty_of_them(tmp_path: Path, house: House) -> None:
    """Exit code 3, the others untouched: the next run goes on with the next fifty, or with all if it is told so."""
    source, output = write_lines(tmp_path / "calls.jsonl", missing(130)), tmp_path / "out.jsonl"
    arguments = (source, "--output", output)
    done = house.process(*arguments, cwd=tmp_path)
    assert done.returncode == 3
    assert house.upstream.arrived == {"POST /status/404": 50}
    assert indexes(rows_of(output)) == list(range(50))
    assert "nothing more is sent: the first 50 results all failed alike (HTTP_4XX: HTTP 404)" in done.stderr
    assert "ended because calls fail: 50 of 130 results were written" in done.stderr
    assert f"--output {output} again to continue" in done.stderr
    assert house.process(*arguments, cwd=tmp_path).returncode == 3
    assert house.upstream.arrived == {"POST /status/404": 100}
    done = house.process(*arguments, "--max-failures", "none", cwd=tmp_path)
    assert (done.returncode, "nothing more is sent" in done.stderr) == (3, False)
    assert house.upstream.arrived == {"POST /status/404": 130}
    assert indexes(rows_of(output)) == list(range(130))


def test_a_job_whose_keys_are_all_wrong_ends_with_its_fiftieth_call(tmp_path: Path, house: House) -> None:
    """Few calls are rejected; the others that were handed over end without being sent, and the rest is untouched."""
    calls = [{"id": str(number), "path": "/status/401"} for number in range(90)]
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    done = house.process(source, "--output", output, "--pool", "impatient", cwd=tmp_path)
    assert done.returncode == 3
    assert "the first 50 results all failed alike" in done.stderr
    assert len(rows_of(output)) == 50
    assert house.upstream.arrived.total() < 50


@pytest.mark.parametrize("place", [0, 49])
def test_one_call_that_fares_better_lets_all_others_go(tmp_path: Path, house: House, place: int) -> None:
    """And a job that has no more calls than the sample is done, whatever they failed of."""
    calls = missing(80)
    calls[place]["path"] = "/n/1"
    done = house.process(write_lines(tmp_path / "calls.jsonl", calls), cwd=tmp_path)
    assert (done.returncode, "nothing more is sent" in done.stderr) == (3, False)
    assert house.upstream.arrived == {"POST /status/404": 79, "POST /n/1": 1}
    done = house.process(write_lines(tmp_path / "calls.jsonl", missing(50)), cwd=tmp_path)
    assert (done.returncode, "results were written" in done.stderr) == (3, False)


def test_what_is_in_flight_when_too_many_failed_finishes(tmp_path: Path, house: House) -> None:
    """However long it takes; what the server has not sent is left, and nothing is in doubt."""
    source, output = write_lines(tmp_path / "calls.jsonl", [*missing(1), *posts(39)]), tmp_path / "out.jsonl"
    house.upstream.hold()
    arguments = (source, "--output", output, "--pool", "failing", "--max-failures", "0")
    with house.processing(*arguments, cwd=tmp_path) as process:
        house.upstream.wait_for(20)
        house.upstream.hold(lambda name: name != "POST /status/404")
        read_until(process.stderr, "nothing more is sent: more than 0 calls failed (--max-failures)")
        house.upstream.release()
        _, err = process.communicate(timeout=50)
    assert process.returncode == 3
    assert "ended because calls fail: 20 of 40 results were written" in err
    rows = rows_of(output)
    assert sorted(row["response"]["statusCode"] for row in rows) == [200] * 19 + [404]
    assert house.upstream.arrived.total() == 20
    done = house.process(source, "--output", output, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert set(house.upstream.arrived.values()) == {1}
    assert indexes(rows_of(output)) == list(range(40))


def test_the_first_answer_that_is_a_failure_is_shown_at_once(tmp_path: Path, house: House) -> None:
    """With its line and the beginning of its body, harmless for a terminal and without the key that it repeats."""
    house.upstream.hold(lambda name: name == "GET /n/3")
    calls = [{"path": "/n/0"}, {"path": "/key/401"}, {"path": "/n/3"}]
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)
        if "no such key" in line:
            house.upstream.release()

    source = write_lines(tmp_path / "calls.jsonl", calls)
    done = house.process(source, "--pool", "once", cwd=tmp_path, heard=hear)
    assert done.returncode == 3
    assert f"{source}:2: the first answer that is a failure:" in done.stderr
    (line,) = [line for line in heard if "no such key" in line]
    assert line.rstrip("\n").isprintable()
    assert line.startswith("    no such key: ")
    assert SECRET not in done.stderr + done.stdout


def test_an_answer_that_may_have_a_key_in_it_is_not_shown(tmp_path: Path, house: House) -> None:
    """Its pool has it passed on as it came, so it is in the results alone."""
    source = write_lines(tmp_path / "calls.jsonl", [{"path": "/key/404"}])
    done = house.process(source, "--pool", "told", cwd=tmp_path)
    assert "the first answer that is a failure:\n    it isn't shown" in done.stderr
    assert SECRET not in done.stderr
    assert SECRET in done.stdout


# -- bounds ----------------------------------------------------------------------------------------


def test_a_limit_tries_the_first_calls_that_are_left(tmp_path: Path, house: House) -> None:
    """Exit code 0 if none of them failed; the run without it goes on, and each call was sent once."""
    source, output = write_lines(tmp_path / "calls.jsonl", posts(30)), tmp_path / "out.jsonl"
    arguments = (source, "--output", output)
    for sent in (10, 20):
        done = house.process(*arguments, "--limit", "10", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"--limit is reached: {sent} of 30 results were written" in done.stderr
        assert indexes(rows_of(output)) == list(range(sent))
        assert house.upstream.arrived.total() == sent
    done = house.process(*arguments, "--limit", "11", cwd=tmp_path)
    assert (done.returncode, "--limit is reached" in done.stderr) == (0, False)
    assert house.upstream.arrived == {f"POST /n/{number}": 1 for number in range(30)}


def test_a_limit_holds_for_a_pipe_and_failures_are_told_by_the_exit_code(tmp_path: Path, house: House) -> None:
    """As for a file."""
    done = house.process("-", "--limit", "2", cwd=tmp_path, stdin=lines_of(*missing(1), *posts(4)))
    assert done.returncode == 3
    assert house.upstream.arrived == {"POST /status/404": 1, "POST /n/0": 1}
    assert len(done.stdout.splitlines()) == 2


def test_nothing_is_sent_that_would_cost_too_much(tmp_path: Path, house: House) -> None:
    """Exit code 4, what was spent and by whose word; the next run may spend as much again."""
    source, output = write_lines(tmp_path / "calls.jsonl", posts(10, cost=7)), tmp_path / "out.jsonl"
    arguments = (source, "--output", output, "--max-cost", "50")
    done = house.process(*arguments, cwd=tmp_path)
    assert done.returncode == 4
    assert "cost: 49 of 50, by the requests" in done.stderr
    assert "--max-cost is reached: 7 of 10 results were written" in done.stderr
    assert house.upstream.arrived == {f"POST /n/{number}": 1 for number in range(7)}
    done = house.process(*arguments, cwd=tmp_path)
    assert (done.returncode, "--max-cost is reached" in done.stderr) == (0, False)
    assert house.upstream.arrived == {f"POST /n/{number}": 1 for number in range(10)}
    done = house.process(source, "--max-cost", "6", cwd=tmp_path)
    assert done.returncode == 4
    assert house.upstream.arrived.total() == 10


def test_what_answers_tell_of_their_cost_is_what_counts(tmp_path: Path, house: House) -> None:
    """Ten calls of the most that they may cost are set aside at once; they cost less, so all others fit as well."""
    calls = [{"method": "POST", "path": "/echo/json", "cost": 10, "json": {"spent": 3}}] * 30
    source, output = write_lines(tmp_path / "calls.jsonl", calls), tmp_path / "out.jsonl"
    arguments = (source, "--pool", "told", "--max-cost")
    done = house.process(*arguments, "100", "--output", output, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cost: 90 of 100, as answers tell it in spent" in done.stderr
    assert house.upstream.arrived == {"POST /echo/json": 30}
    done = house.process(*arguments, "50", cwd=tmp_path)
    assert done.returncode == 4
    assert "cost: 42 of 50" in done.stderr
    assert house.upstream.arrived == {"POST /echo/json": 30 + 14}


def test_with_a_bound_on_the_cost_no_call_is_paid_for_twice(tmp_path: Path, house: House) -> None:
    """A GET that failed with a 500 is left as it is, since the upstream may ask for the money of both attempts."""
    source = write_lines(tmp_path / "calls.jsonl", [{"path": f"/once/{number}"} for number in range(5)])
    done = house.process(source, "--max-cost", "5", cwd=tmp_path)
    assert (done.returncode, house.upstream.arrived.total()) == (3, 5)
    assert house.process(source, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--limit", "0"), "'--limit'"),
        (("--max-failures", "-1"), "'-1' must be a whole number from 0, or none"),
        (("--max-failures", "few"), "'few' must be a whole number from 0, or none"),
        (("--max-cost", "-1"), "'--max-cost'"),
        (("--max-cost", "1.5"), "'--max-cost'"),
        (("--failed", "calls.jsonl"), "--failed calls.jsonl: that is the input; name another file"),
        (("--failed", "out.jsonl", "--output", "out.jsonl"), "that is the output; name another file"),
        (("--failed", "there/failed"), "there is no folder"),
    ],
)
def test_bounds_and_files_that_make_no_sense_are_refused(
    tmp_path: Path, house: House, arguments: tuple[str, ...], told: str
) -> None:
    """With exit code 2 before anything is sent or written."""
    write_lines(tmp_path / "calls.jsonl", posts(1))
    done = house.process("calls.jsonl", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert not house.upstream.arrived
    assert [path.name for path in tmp_path.iterdir()] == ["calls.jsonl"]


# -- the calls that failed -------------------------------------------------------------------------


def test_calls_that_failed_are_a_file_to_be_sent_again(tmp_path: Path, house: House) -> None:
    """Their lines as they stand in the input; sent by themselves they are those calls and no others."""
    source, failed = tmp_path / "calls.jsonl", tmp_path / "failed.jsonl"
    bad = ['{"method":"POST", "path":"/status/503", "json":{"n":1.10}}', '{"path": "/status/404"}']
    source.write_text(f'{{"path": "/n/0"}}\n{bad[0]}\n\n{{"path":"/n/1"}}\n{bad[1]}')
    arguments = ("--pool", "once", "--failed", failed)
    done = house.process(source, *arguments, "--output", tmp_path / "out.jsonl", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert f"{failed}: 2 failed calls, to be sent again" in done.stderr
    assert failed.read_text() == f"{bad[0]}\n{bad[1]}\n"
    house.upstream.begin()
    assert house.process(failed, "--pool", "once", cwd=tmp_path).returncode == 3
    assert house.upstream.arrived == {"POST /status/503": 1, "GET /status/404": 1}
    assert house.process(write_lines(source, posts(1)), *arguments, cwd=tmp_path).returncode == 0
    assert failed.read_text() == ""


@pytest.mark.parametrize("is_pipe", [False, True])
def test_rows_and_what_came_through_a_pipe_are_written_as_calls(tmp_path: Path, house: House, is_pipe: bool) -> None:
    """In JSON Lines, which need no template."""
    rows = "id,code\na,200\nb,404\n"
    (tmp_path / "calls.csv").write_text(rows)
    template = '{"method":"POST","path":"/status/{code}","json":{"code":"{code}"}}'
    source = "-" if is_pipe else "calls.csv"
    arguments = (source, "--template", template, "--failed", "failed.jsonl")
    done = house.process(*arguments, cwd=tmp_path, stdin=rows if is_pipe else "")
    assert done.returncode == 3, done.stderr
    house.upstream.begin()
    assert house.process("failed.jsonl", "--output", "out.jsonl", cwd=tmp_path).returncode == 3
    assert house.upstream.arrived == {"POST /status/404": 1}
    assert [row["id"] for row in rows_of(tmp_path / "out.jsonl")] == ["b"]


def test_the_calls_that_failed_are_there_whole_or_not_at_all(tmp_path: Path, house: House) -> None:
    """On a full disk with exit code 4; the results are there, and the next run, with room, writes the file."""
    call = {"method": "POST", "path": "/status/404", "text": "x" * 5_000}
    source, output = write_lines(tmp_path / "calls.jsonl", [call]), tmp_path / "out.jsonl"
    (tmp_path / "failed.jsonl").write_text("old\n")
    arguments = (source, "--output", output, "--failed", "failed.jsonl")
    done = house.process(*arguments, cwd=tmp_path, most=3_000)
    assert done.returncode == 4
    assert "can't write to" in done.stderr
    assert (tmp_path / "failed.jsonl").read_text() == "old\n"
    assert sorted(files(tmp_path)) == ["calls.jsonl", "failed.jsonl", "out.jsonl", "out.jsonl.state"]
    assert len(rows_of(output)) == 1
    assert house.process(*arguments, cwd=tmp_path).returncode == 3
    assert (tmp_path / "failed.jsonl").read_bytes() == source.read_bytes()
    assert house.upstream.arrived.total() == 1


@pytest.mark.parametrize("is_pipe", [False, True])
def test_failures_of_earlier_runs_are_in_the_file_too(tmp_path: Path, house: House, is_pipe: bool) -> None:
    """As long as they aren't sent again; what may have run isn't."""
    calls = [*missing(2), *posts(2), {"id": "c", "path": "/status/503"}]
    (tmp_path / "calls.jsonl").write_text(lines_of(*calls))
    text = lines_of(*calls) if is_pipe else ""
    source = "-" if is_pipe else "calls.jsonl"
    arguments = ("--output", "out.jsonl", "--pool", "once", "--failed", "failed.jsonl")
    assert house.process(source, *arguments, "--limit", "1", cwd=tmp_path, stdin=text).returncode == 3
    with Output(tmp_path / "out.jsonl", Known()) as earlier:
        hand_over(earlier, [(3 << 1, digest_of(pb.Call(method="POST", path="/n/1")))])
    first = (tmp_path / "failed.jsonl").read_text()
    done = house.process(source, *arguments, cwd=tmp_path, stdin=text)
    assert done.returncode == 3, done.stderr
    assert "1 more may have run and must not run twice" in done.stderr
    ids = [json.loads(line)["id"] for line in (tmp_path / "failed.jsonl").read_text().splitlines()]
    assert (len(first.splitlines()), sorted(ids)) == (1, ["0", "1", "c"])
    arrived = house.upstream.arrived
    done = house.process(source, *arguments, cwd=tmp_path, stdin=text)
    ids = [json.loads(line)["id"] for line in (tmp_path / "failed.jsonl").read_text().splitlines()]
    assert (done.returncode, sorted(ids), house.upstream.arrived) == (3, ["0", "1", "c"], arrived)
    assert "1 more may have run and must not run twice" in done.stderr


# -- a dry run -------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(tmp_path: Path, house: House) -> None:
    """Methods, paths, cost and time, by the pool's rules; no file is made, and the exit code is 0."""
    calls: list[dict[str, Any]] = [
        {"method": "POST", "path": "/v1/chat", "json": {"max_tokens": number}} for number in range(1, 41)
    ]
    calls += [{"path": f"/v1/users/{number}", "cost": 100} for number in range(20)]
    source = write_lines(tmp_path / "calls.jsonl", calls)
    arguments = (source, "--pool", "priced", "--dry-run", "--output", "out.jsonl", "--failed", "failed.jsonl")
    done = house.process(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "dry run: nothing is sent upstream http://127.0.0.1:" in told(done)
    assert "calls 60 40 POST /v1/chat 20 GET /v1/users/* cost 2,820 (1 to 100 each, by their own `cost` or" in told(
        done
    )
    assert "by the pool's rule, max_tokens) time less than a second" in told(done)
    done = house.process(*arguments, "--max-cost", "1000", "--limit", "50", cwd=tmp_path)
    assert "calls 41 of 60; --max-cost leaves the others out" in told(done)
    done = house.process(*arguments, "--limit", "50", "--retry-failed", "--overwrite", cwd=tmp_path)
    assert "calls 50 of 60; --limit leaves the others out" in told(done)
    assert not house.upstream.arrived
    assert [path.name for path in tmp_path.iterdir()] == ["calls.jsonl"]


def test_a_dry_run_tells_bad_lines_and_needs_no_server(tmp_path: Path) -> None:
    """Exit code 2 if the run would send nothing for them; what the server alone knows is said not to be known."""
    (tmp_path / "calls.jsonl").write_text('{"path": "/a"}\n{"path": 3}\n{"path": "/b"}\nnothing\n')
    arguments = ("process", "calls.jsonl", "--target", "127.0.0.1:1", "--dry-run")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "calls.jsonl:2: path must be a string calls.jsonl:4: not JSON" in told(done)
    assert "calls 2 1 GET /a 1 GET /b cost 2 (1 each, without the pool's rule, which isn't known)" in told(done)
    assert "time not known, as no server answers at 127.0.0.1:1 bad lines 2; a run sends nothing" in told(done)
    assert run(*arguments, "--skip-bad-lines", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("cut", [b"", b'{"index":2', b'{"index":2,"response":{"statusCode":200}}'])
def test_a_dry_run_of_a_job_in_the_middle_changes_nothing(tmp_path: Path, house: House, cut: bytes) -> None:
    """It knows what is done, what is in doubt and what is to be sent again; a last line that was cut stays so."""
    output = tmp_path / "out.jsonl"
    source = write_lines(tmp_path / "calls.jsonl", [*posts(1), *missing(1), *posts(3)])
    assert house.process(source, "--output", output, "--limit", "2", cwd=tmp_path).returncode == 3
    with Output(output, Known()) as earlier:
        hand_over(earlier, [(3 << 1, digest_of(pb.Call(method="POST", path="/n/1")))])
    with output.open("ab") as file:
        file.write(cut)
    before = files(tmp_path)
    house.upstream.begin()
    done = house.process(source, "--output", output, "--dry-run", "--retry-failed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    is_whole = cut.endswith(b"}}")
    assert f"calls {2 if is_whole else 3} of 5" in told(done)
    assert f"earlier {'2 calls' if is_whole else '1 call'} with a result, not sent again" in told(done)
    assert "in doubt 1 call that may have run, not sent again" in told(done)
    done = house.process(source, "--output", output, "--dry-run", "--overwrite", cwd=tmp_path)
    assert "calls 5 " in told(done)
    assert files(tmp_path) == before
    assert not house.upstream.arrived


def test_a_dry_run_reads_a_pipe_to_its_end(tmp_path: Path, house: House) -> None:
    """And says the same of it."""
    done = house.process("-", "--dry-run", cwd=tmp_path, stdin=lines_of(*posts(60)))
    assert "calls 60 60 POST /n/*" in told(done)
    assert (done.returncode, house.upstream.arrived.total()) == (0, 0)
