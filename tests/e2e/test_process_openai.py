"""`apiflux process` with a file for OpenAI's Batch API: what arrives upstream, what a later run reads of the output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import lines_of, run, wait_for_rows, write_lines
from tests.e2e.house import House
from tests.e2e.test_process_files import NOBODY
from tests.e2e.test_process_stop import number_of

WORD = "is in OpenAI's batch format, and so are its results (--format openai-batch)"


def batch(count: int) -> list[dict[str, Any]]:
    return [line(f"r-{number}", f"/v1/n/{number}") for number in range(count)]


def line(id: str, url: str, **more: Any) -> dict[str, Any]:
    return {"custom_id": id, "method": "POST", "url": url, "body": {"model": "m"}, **more}


def results_of(path: Path) -> list[dict[str, Any]]:
    """In the order of the calls of `batch`."""
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    return sorted(rows, key=lambda row: int(row["custom_id"].removeprefix("r-")))


def test_a_killed_job_goes_on(tmp_path: Path, house: House) -> None:
    """After SIGKILL and a cut last line every call has one result; none ran twice, each that is in doubt says so."""
    source, output = write_lines(tmp_path / "batch.jsonl", batch(60)), tmp_path / "out.jsonl"
    house.upstream.hold(lambda name: number_of(name) >= 40)
    arguments = (source, "--output", output, "--window", "10")
    with house.processing(*arguments, cwd=tmp_path) as process:
        wait_for_rows(output, 40)
        house.upstream.wait_for(50)
        process.kill()
        process.wait()
    house.upstream.release()
    with output.open("a") as file:
        file.write('{"id":"batch_req_0","custom_id":"r-59","resp')
    done = house.process(*arguments, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert (done.stderr.count(WORD), done.stdout) == (1, "")
    rows = results_of(output)
    assert [row["custom_id"] for row in rows] == [f"r-{number}" for number in range(60)]
    assert len({row["id"] for row in rows}) == 60
    doubtful = rows[40:50]
    assert {(row["error"]["code"], row["error"]["may_have_run"], row["response"]) for row in doubtful} == {
        ("UNKNOWN", True, None)
    }
    for row in rows[:40] + rows[50:]:
        response = {"status_code": 200, "request_id": "", "body": {"model": "m"}}
        assert (row["response"], row["error"]) == (response, None)
    assert house.upstream.arrived == {f"POST /v1/n/{number}": 1 for number in range(60)}


def test_failed_calls_are_sent_again(tmp_path: Path, house: House) -> None:
    """An answer that is a failure is a line without `error`, and --retry-failed finds it all the same."""
    lines = [line("r-1", "/v1/n/1"), line("r-2", "/once/2"), line("r-3", "/status/400")]
    source, output = write_lines(tmp_path / "batch", lines), tmp_path / "out.jsonl"
    arguments = (source, "--output", output, "--pool", "once")
    first = house.process(*arguments, cwd=tmp_path)
    again = house.process(*arguments, "--retry-failed", cwd=tmp_path)
    assert (first.returncode, again.returncode) == (3, 3), first.stderr + again.stderr
    assert "2: HTTP_4XX 1, HTTP_5XX 1" in first.stderr
    assert "2 failed calls are sent again" in again.stderr
    rows = results_of(output)
    assert [(row["response"]["status_code"], row["error"]) for row in rows] == [(200, None), (200, None), (400, None)]
    assert house.upstream.arrived == {"POST /v1/n/1": 1, "POST /once/2": 2, "POST /status/400": 2}


def test_failed_calls_of_a_pipe_are_lines_of_the_same_format(tmp_path: Path, house: House) -> None:
    """So that they can be sent again, with the same output."""
    lines = lines_of(line("r-1", "/v1/n/1"), line("r-2", "/status/500"))
    options = ("--pool", "once", "--output", "out.jsonl")
    first = house.process("-", *options, "--failed", "failed.jsonl", cwd=tmp_path, stdin=lines)
    assert first.returncode == 3, first.stderr
    failed = [json.loads(text) for text in (tmp_path / "failed.jsonl").read_text().splitlines()]
    assert failed == [line("r-2", "/status/500")]
    again = house.process("failed.jsonl", *options, "--retry-failed", cwd=tmp_path)
    assert again.returncode == 3, again.stderr
    assert len(results_of(tmp_path / "out.jsonl")) == 2


@pytest.mark.parametrize("pool", ["default", "versioned"])
def test_a_version_is_in_the_path_once(tmp_path: Path, house: House, pool: str) -> None:
    """Be it in the pool's base URL or not; and from a pipe, too."""
    calls = lines_of(*batch(3))
    done = house.process("-", "--pool", pool, cwd=tmp_path, stdin=calls)
    assert done.returncode == 0, done.stderr
    assert f"<stdin> {WORD}" in done.stderr
    assert house.upstream.arrived == {f"POST /v1/n/{number}": 1 for number in range(3)}


def test_a_job_that_is_done_needs_no_server(tmp_path: Path, house: House) -> None:
    """Nor a job whose file is bad: without a server the base URL isn't known, and so not what `url` makes of it."""
    source, output = write_lines(tmp_path / "batch.jsonl", batch(3)), tmp_path / "out.jsonl"
    arguments = (source, "--output", output)
    assert house.process(*arguments, "--pool", "versioned", cwd=tmp_path).returncode == 0
    done = run("process", *arguments, *NOBODY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    source.write_text(lines_of(*batch(3), line("r-3", "")))
    bad = run("process", *arguments, *NOBODY, cwd=tmp_path)
    assert bad.returncode == 2
    assert f"{source}:4: url is empty" in bad.stderr


def test_nothing_is_sent_if_a_line_is_bad(tmp_path: Path, house: House) -> None:
    """Each is named, in the words of the format; without them the others are sent."""
    bad: list[tuple[dict[str, Any], str]] = [
        (line("r-1", "/v1/n/1"), "the custom_id 'r-1' is used on an earlier line"),
        (line("", "/v1/n/2"), "custom_id is empty"),
        ({"method": "POST", "url": "/v1/n/3", "body": {}}, "custom_id is missing"),
        (line("r-4", "https://example.com/v1/n/4"), "url leaves the pool's base URL http://127.0.0.1:"),
        (line("r-5", "//example.com/v1/n/5"), "url leaves the pool's base URL http://127.0.0.1:"),
        (line("r-6", "/v1/../n/6"), 'url has a "." or ".." segment'),
        (line("r-7", "/v2/n/7"), "url begins with /v2, which is not the version in the pool's base URL"),
        (line("r-8", "/v1/n/8", body=[]), "body must be an object"),
        (line("r-9", "/v1/n/9", body={"stream": True}), "body.stream asks for a stream"),
        (line("r-10", "/v1/n/10", metadata={}), "unknown field 'metadata'"),
        ({"id": "r-11", "path": "/v1/n/11"}, "'id' is a field of APIFlux's own format, and the file is in"),
        (line("r-12", "/v1/n 12"), "url: has ' ', which must be percent-encoded"),
        (line("r" * 257, "/v1/n/13"), "custom_id: has 257 bytes; use at most 256"),
    ]
    source = write_lines(tmp_path / "batch.jsonl", [line("r-1", "/v1/n/1"), *(one for one, _ in bad)])
    options = ("--pool", "versioned")
    refused = house.process(source, *options, cwd=tmp_path)
    assert (refused.returncode, refused.stdout, house.upstream.arrived) == (2, "", {})
    for number, (_, said) in enumerate(bad, 2):
        assert f"{source}:{number}: {said}" in refused.stderr
    skipped = house.process(source, *options, "--skip-bad-lines", cwd=tmp_path)
    assert skipped.returncode == 0, skipped.stderr
    assert house.upstream.arrived == {"POST /v1/n/1": 1}


def test_an_output_in_another_format_is_refused(tmp_path: Path, house: House) -> None:
    """Before anything is sent; from a pipe, too."""
    own = lines_of({"id": "a", "path": "/n/1"})
    output = tmp_path / "out.jsonl"
    assert house.process("-", "--output", output, cwd=tmp_path, stdin=own).returncode == 0
    written = output.read_bytes()
    done = house.process("-", "--output", output, cwd=tmp_path, stdin=lines_of(*batch(1)))
    assert done.returncode == 2
    assert "has results in the format jsonl, and this job's are in openai-batch" in done.stderr
    assert (output.read_bytes(), house.upstream.arrived.total()) == (written, 1)
