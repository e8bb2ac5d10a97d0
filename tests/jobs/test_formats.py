"""Which format a job has, and that it has one alone."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from apiflux_grpc.cli.input import Format as Choice
from apiflux_grpc.jobs import formats
from apiflux_grpc.jobs.formats import Format, JsonLines, Recognised
from apiflux_grpc.jobs.job import Job, Refused
from apiflux_grpc.jobs.known import FAILED, Known
from apiflux_grpc.jobs.lines import entries
from apiflux_grpc.jobs.openai_batch import OpenAiBatch
from apiflux_grpc.jobs.output import Output
from apiflux_grpc.jobs.source import Source
from apiflux_grpc.v1 import apiflux_pb2 as pb

OWN = '{"id": "a", "method": "POST", "path": "/v1/x", "json": {}}'
OPENAI = '{"custom_id": "b", "method": "POST", "url": "/v1/x", "body": {}}'


def read(*lines: str) -> tuple[list[str], list[str]]:
    """The formats that were told, and for each line the path of its call or what is wrong with it."""
    told: list[str] = []
    how = Recognised("https://example.com/v1", lambda format: told.append(format.name))
    found = entries(io.BytesIO("\n".join(lines).encode()), how)
    return told, [entry.call.path if entry.call else entry.fault for entry in found]


@pytest.mark.parametrize(
    ("first", "name", "path"),
    [
        (OWN, "jsonl", "/v1/x"),
        (OPENAI, "openai-batch", "/x"),
        ('{"path": "/custom_id/url"}', "jsonl", "/custom_id/url"),
        ('{"path": "/", "json": {"custom_id": 1}}', "jsonl", "/"),
        (OPENAI.replace("custom_id", "custom\\u005fid"), "openai-batch", "/x"),
    ],
)
def test_the_first_line_says_the_format(first: str, name: str, path: str) -> None:
    """By its own fields, not by what stands in their values; it is told once."""
    assert read(first, first) == ([name], [path, path])


def test_lines_that_are_no_objects_say_nothing() -> None:
    """They are faults in any format, and the next line says which one it is."""
    told, found = read("[]", "{", OPENAI)
    assert told == ["openai-batch"]
    assert found[2:] == ["/x"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((OWN, OPENAI), "is in OpenAI's batch format, and lines before it are not"),
        ((OPENAI, OWN), "is a field of APIFlux's own format, and the file is in OpenAI's batch format"),
    ],
)
def test_a_line_in_another_format_is_bad(lines: tuple[str, str], said: str) -> None:
    """Whichever came first."""
    _, found = read(*lines)
    assert said in found[1]
    assert found[1].endswith("write all lines in one format")


def test_what_is_wrong_with_a_line_that_is_recognised_is_said_in_its_format() -> None:
    """One of the fields is enough to know what was meant."""
    _, found = read('{"method": "POST", "url": "/v1/x", "body": {}}')
    assert found == ["custom_id is missing; a line has custom_id, method, url, body"]


def test_the_command_line_knows_the_same_names() -> None:
    """They are listed there without loading what reads the formats."""
    assert tuple(choice.value for choice in Choice) == formats.NAMES
    assert [formats.named(name, "").name for name in formats.NAMES] == list(formats.NAMES)


def test_a_format_that_is_named_is_not_recognised(tmp_path: Path) -> None:
    """And nothing is told; a template has the format of calls, and refuses another."""
    path = tmp_path / "calls.jsonl"
    path.write_text(OPENAI)
    told: list[str] = []
    for name, said in ((JsonLines.name, "OpenAI's batch format"), (OpenAiBatch.name, ""), ("", "")):
        source = Source(Job(path, "", format=name))
        source.read_for("https://example.com/v1", told.append)
        (entry,) = source.read()
        assert (said in entry.fault) if said else (entry.call is not None and entry.call.path == "/x")
    assert told == [f"{path} is in OpenAI's batch format, and so are its results (--format openai-batch)"]
    with pytest.raises(Refused, match="--template conflicts with --format openai-batch; leave one of them out"):
        Source(Job(tmp_path / "calls.csv", "", template="{}", format=OpenAiBatch.name))


def result() -> pb.CallResult:
    made = pb.CallResult(id="b")
    made.response.status_code = 500
    made.failure = pb.REASON_HTTP_5XX
    return made


@pytest.mark.parametrize("format", [JsonLines(), OpenAiBatch("")])
def test_results_in_another_format_are_refused(tmp_path: Path, format: Format) -> None:
    """An output has one format; an empty one may have any, and failed results are found in either."""
    other: Format = OpenAiBatch("") if format.name == JsonLines.name else JsonLines()
    path = tmp_path / "out"
    with Output(path, Known()) as output:
        output.expect(format)
        output.write(format.line(result(), False))
    with Output(path, Known()) as output:
        list(output.load())
        assert (output.results, output.failed) == (1, 1)
        output.expect(format)
        with pytest.raises(Refused, match=f"in the format {format.name}, and this job's are in {other.name}"):
            output.expect(other)
        list(output.take_out(lambda flags: bool(flags & FAILED)))
        assert path.read_bytes() == b""
    assert json.loads(format.line(result(), False))
