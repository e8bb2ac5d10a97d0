"""--failed: which calls are written, how, and to which file."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apiflux_grpc.client.accounts import unknown_result
from apiflux_grpc.jobs.callline import line_of_call
from apiflux_grpc.jobs.calls import parse_call
from apiflux_grpc.jobs.failed import Failed
from apiflux_grpc.jobs.job import Job, Refused
from apiflux_grpc.jobs.source import Source
from apiflux_grpc.v1 import apiflux_pb2 as pb

GOOD = pb.CallResult(response=pb.HttpResponse(status_code=200))
BAD = pb.CallResult(failure=pb.REASON_HTTP_4XX, response=pb.HttpResponse(status_code=404))
LINES = [
    '{"path": "/1" }',
    "",
    '{"id":"a", "path":"/3","json":1.10}',
    '{"path": "/4", "method":"POST"}',
    '{"path":"/5"}',
]


def failed(tmp_path: Path, source: Path, **options: Any) -> Failed:
    job = Job(source, "127.0.0.1:1", **options)
    return Failed(tmp_path / "failed", job, Source(job))


def file_of(tmp_path: Path, text: str, name: str = "calls") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


# -- which, and how --------------------------------------------------------------------------------


def test_lines_of_the_input_are_written_as_they_stand_there(tmp_path: Path) -> None:
    """In their order, whatever the order of the results; the last one with its end, and a mark of byte order gone."""
    one = failed(tmp_path, file_of(tmp_path, "\ufeff" + "\n".join(LINES)))
    for line, result in ((5, BAD), (3, BAD), (4, GOOD), (1, BAD)):
        one.met(line, result, line, idempotent=False)
    one.write()
    assert one.path.read_text() == "".join(f"{LINES[line - 1]}\n" for line in (1, 3, 5))
    assert (one.calls, one.left_out) == (3, 0)


def test_what_may_have_run_is_written_only_if_it_may_run_twice(tmp_path: Path) -> None:
    """Else it is counted, for it isn't ready to be sent again."""
    one = failed(tmp_path, file_of(tmp_path, "\n".join(LINES)))
    one.met(1, unknown_result(1, "", ""), 1, idempotent=True)
    one.met(4, unknown_result(4, "", ""), 4, idempotent=False)
    one.write()
    assert one.path.read_text() == f"{LINES[0]}\n"
    assert (one.calls, one.left_out) == (1, 1)


def test_rows_of_csv_are_written_as_the_calls_that_they_made(tmp_path: Path) -> None:
    """JSON Lines that need no template; a row may have several lines."""
    source = file_of(tmp_path, 'id,city\na,Oslo\nb,"Port\nau Prince"\nc,Lima\n', "calls.csv")
    template = '{"path":"/v1/{city}","method":"POST","json":{"q":"{city}","n":1.10}}'
    one = failed(tmp_path, source, template=template)
    one.met(3, BAD, 3, idempotent=False)
    one.write()
    (line,) = one.path.read_text().splitlines()
    assert json.loads(line)["path"] == "/v1/Port%0Aau%20Prince"
    assert '"json":{"q":"Port\\nau Prince","n":1.10}' in line
    assert parse_call(line).id == "b"


def test_calls_of_a_pipe_are_written_from_what_was_sent(tmp_path: Path) -> None:
    """Nobody can read a pipe twice."""
    reading, writing = os.pipe()
    try:
        one = failed(tmp_path, Path(f"/dev/fd/{reading}"))
        assert one.keeps
        for place in (0, 1, 2):
            one.keep(place, pb.Call(path=f"/{place}"))
        for place, result in ((2, BAD), (0, GOOD), (1, BAD)):
            one.met(place, result, place, idempotent=False)
        one.write()
    finally:
        os.close(reading)
        os.close(writing)
    assert one.path.read_text() == '{"path":"/2"}\n{"path":"/1"}\n'


TEXTS = st.text(max_size=8)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), max_size=2)
BODIES = (
    st.binary(max_size=8)
    | st.text(max_size=8).map(str.encode)
    | st.recursive(
        st.none() | st.integers() | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)
    ).map(lambda value: json.dumps(value).encode())
)


@settings(max_examples=100)
@given(BODIES, PAIRS, TEXTS, st.none() | st.integers(0, 2**63 - 1), st.none() | st.booleans(), st.integers(0, 10**12))
@example(b'{"a": 1.10,\n "a": 2}', [], "", None, None, 0)
@example(b" 1", [("Content-Type", "application/json")], "", None, None, 0)
@example(b'"json":null', [('"json":null', "")], '"json":null', 1, True, 1)
def test_a_call_that_is_written_is_the_same_when_it_is_read(
    body: bytes, pairs: list[tuple[str, str]], text: str, cost: int | None, idempotent: bool | None, timeout: int
) -> None:
    """Whatever its body is; in one line."""
    one = pb.Call(id=text, path=text, method=text, body=body, cost=cost, idempotent=idempotent)
    for name, value in pairs:
        one.query.add(name=name, value=value)
        one.headers.add(name=name, value=value)
    if timeout:
        one.timeout.FromNanoseconds(timeout)
    line = line_of_call(one).decode()
    assert line.count("\n") == 1
    assert parse_call(line) == one


@pytest.mark.parametrize(
    ("body", "kind", "member"),
    [
        (b'{"a": 1.10}', "application/json", '"json":{"a": 1.10}'),
        (b'{"a":\n1}', "application/json", '"text":"{\\"a\\":\\n1}"'),
        (b'{"a": 1}', "", '"text":"{\\"a\\": 1}"'),
        ("zwölf".encode(), "text/plain", '"text":"zwölf"'),
        (b"\xff", "", f'"body":"{base64.b64encode(bytes([255])).decode()}"'),
    ],
)
def test_a_body_is_written_as_people_would_write_it(body: bytes, kind: str, member: str) -> None:
    """`json` if it stands for exactly this body and header, else `text`, else base64."""
    headers = [pb.Header(name="Content-Type", value=kind)] if kind else []
    assert member in line_of_call(pb.Call(body=body, headers=headers)).decode()


# -- the file --------------------------------------------------------------------------------------


def test_without_a_failure_the_file_is_empty(tmp_path: Path) -> None:
    """An earlier one would be taken for the failures of this job; its rights stay as they are."""
    (tmp_path / "failed").write_text("old\n")
    (tmp_path / "failed").chmod(0o640)
    one = failed(tmp_path, file_of(tmp_path, "{}\n"))
    one.met(1, GOOD, 1, idempotent=False)
    one.write()
    assert one.path.read_text() == ""
    assert stat.S_IMODE(one.path.stat().st_mode) == 0o640


def test_a_link_stays_one(tmp_path: Path) -> None:
    """The file that it leads to is written."""
    (tmp_path / "failed").symlink_to(tmp_path / "there")
    one = failed(tmp_path, file_of(tmp_path, "{}\n"))
    one.met(1, BAD, 1, idempotent=False)
    one.write()
    assert (tmp_path / "failed").is_symlink()
    assert (tmp_path / "there").read_text() == "{}\n"


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it doesn't fit, an earlier one is still there, and nothing else."""
    (tmp_path / "failed").write_text("old\n")
    one = failed(tmp_path, file_of(tmp_path, "{}\n"))
    one.met(1, BAD, 1, idempotent=False)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        one.write()
    assert error.value.filename == str(tmp_path / "failed")
    assert (tmp_path / "failed").read_text() == "old\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calls", "failed"]


def test_an_input_that_was_changed_meanwhile_is_not_read_again(tmp_path: Path) -> None:
    """Its lines may be others by now."""
    source = file_of(tmp_path, "{}\n")
    one = failed(tmp_path, source)
    one.met(1, BAD, 1, idempotent=False)
    source.write_text('{"path":"/another"}\n')
    with pytest.raises(Refused, match="was changed meanwhile"):
        one.write()
    assert not one.path.exists()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("calls.csv", "the input"),
        ("sub/../calls.csv", "the input"),
        ("hard", "the input"),
        ("out", "the output"),
        ("out.state", "the state of the output"),
        ("template", "the template"),
        ("/dev/null", "no regular file"),
        ("sub", "no regular file"),
        ("missing/failed", "there is no folder"),
    ],
)
def test_a_file_that_is_another_thing_is_refused(tmp_path: Path, name: str, what: str) -> None:
    """Before anything is done, also if that other file isn't there yet."""
    source = file_of(tmp_path, "a\n1\n", "calls.csv")
    (tmp_path / "sub").mkdir()
    (tmp_path / "hard").hardlink_to(source)
    file_of(tmp_path, '{"path":"/{a}"}', "template")
    job = Job(source, "127.0.0.1:1", output=tmp_path / "out", template=f"@{tmp_path / 'template'}")
    with pytest.raises(Refused, match=what):
        Failed(tmp_path / name, job, Source(job))
