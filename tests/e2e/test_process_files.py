"""`apiflux process` on files and pipes: what goes in, what comes out, and what an output of earlier runs means."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from apiflux_grpc.jobs.known import Known
from apiflux_grpc.jobs.output import Output
from tests.e2e.commands import indexes, lines_of, rows_in, rows_of, run, write_lines
from tests.e2e.house import SECRET, House

NOBODY = ("--target", "127.0.0.1:1")  # nobody listens there


def mixed(count: int, *, ids: bool) -> list[dict[str, Any]]:
    """Every other call isn't idempotent."""
    calls: list[dict[str, Any]] = [
        {"method": "POST" if number % 2 else "GET", "path": f"/n/{number}"} for number in range(count)
    ]
    return [call | ({"id": f"call-{number}"} if ids else {}) for number, call in enumerate(calls)]


# -- what goes in and comes out --------------------------------------------------------------------


def test_bodies_go_in_and_come_back_as_what_they_are(tmp_path: Path, house: House) -> None:
    """As json, text or base64 they go in, and as bodyJson, bodyText or body they come back, whatever they can be."""
    calls = lines_of(
        {"id": "a", "method": "POST", "path": "/echo/json", "json": {"über": [1, None, "\n"]}},
        {"id": "b", "method": "POST", "path": "/echo/text", "text": "zwölf\n"},
        {"id": "c", "method": "POST", "path": "/echo/bytes", "body": base64.b64encode(b"\xff\x00").decode()},
        {"id": "d", "method": "POST", "path": "/type", "json": 1},
        {"id": "e", "method": "POST", "path": "/type", "json": 1, "headers": {"content-TYPE": "text/x"}},
        {"id": "f", "method": "POST", "path": "/echo/json", "text": "{not json"},
    )
    output = tmp_path / "out.jsonl"
    done = house.process("-", "--output", output, cwd=tmp_path, stdin=f"\n{calls}\n")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    rows = rows_of(output)
    assert [row["id"] for row in rows] == list("abcdef")
    bodies = [{name: value for name, value in row["response"].items() if name.startswith("body")} for row in rows]
    assert bodies == [
        {"bodyJson": {"über": [1, None, "\n"]}},
        {"bodyText": "zwölf\n"},
        {"body": "/wA="},
        {"bodyJson": "application/json"},
        {"bodyJson": "text/x"},
        {"bodyText": "{not json"},
    ]
    assert {row["keyLabel"] for row in rows} <= {"key-1", "key-2"}
    assert {row["attempts"] for row in rows} == {1}
    assert SECRET not in done.stderr + output.read_text()


def test_json_is_carried_both_ways_as_it_is_written(tmp_path: Path, house: House) -> None:
    """Numbers keep their text, names that are used twice stay, and only white space around a document goes."""
    documents = [
        "1.10",
        "0.1234567890123456789",
        "1E5",
        '{"a": 1.0, "a" :[-0, 2]}',
        '"\\u00fc\\/"',
        "12345678901234567890",
    ]
    calls = [f'{{"method": "POST", "path": "/echo/json", "json": {document} }}' for document in documents]
    spread = json.dumps('\n {"a":\r\n 1.10 }\n')
    calls.append(f'{{"method": "POST", "path": "/echo/json", "text": {spread} }}')
    done = house.process("-", "--ordered", cwd=tmp_path, stdin="".join(f"{call}\n" for call in calls))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(calls)
    for document, line in zip([*documents, '{"a": 1.10 }'], lines, strict=True):
        assert f'"bodyJson":{document}}},"keyLabel":' in line


def test_no_answer_ends_the_run(tmp_path: Path, house: House) -> None:
    """JSON that no reader, or not every one, can take comes as bodyText, and the same command goes on from there."""
    bodies = [
        "9" * 5000,
        "[" * 100_000,
        "[" * 600 + "]" * 600,
        "NaN",
        '"\\ud800"',
        "\ufeff{}",
        "",
        "[1] [2]",
        "\x00",
    ]
    calls = [{"method": "POST", "path": "/echo/json", "text": body} for body in bodies]
    source, output = write_lines(tmp_path / "calls.jsonl", [*calls, {"path": "/nan"}, {"path": "/lone"}]), "out.jsonl"
    for _ in range(2):
        done = house.process(source, "--output", output, "--ordered", cwd=tmp_path)
        assert "Traceback" not in done.stderr
        assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / output)
    assert [row["response"].get("bodyText") for row in rows[: len(bodies)]] == bodies
    assert [list(row["response"])[-1] for row in rows[len(bodies) :]] == ["bodyText", "bodyText"]
    assert house.upstream.arrived.total() == len(rows)
    assert "had their result" in done.stderr


def test_bad_lines_are_named_and_can_be_skipped(tmp_path: Path, house: House) -> None:
    """Without --skip-bad-lines nothing of a file is sent; with it the others are."""
    bad = ("{", "[]", '{"text": 1}', '{"json": 1, "text": "x"}', '{"timeout": "soon"}', '{"id": "\\ud800"}', "\x00")
    calls = "".join(f"{line}\n" for line in bad) + lines_of({"path": "/type"}, {"path": "/type", "id": "good"})
    (tmp_path / "calls").write_text(calls)
    refused = house.process("calls", cwd=tmp_path)
    assert house.upstream.arrived.total() == 0
    skipped = house.process("calls", "--skip-bad-lines", cwd=tmp_path)
    for done in (refused, skipped):
        for number in range(1, len(bad) + 1):
            assert done.stderr.count(f"calls:{number}: ") == 1
        assert f"calls:{len(bad) + 1}: " not in done.stderr
        assert "Traceback" not in done.stderr
    assert (refused.returncode, refused.stdout) == (2, "")
    assert skipped.returncode == 0
    assert [row.get("id") for row in rows_in(skipped.stdout)] == [None, "good"]
    assert house.upstream.arrived.total() == 2


def test_what_a_pool_refuses_is_told_before_anything_is_sent(tmp_path: Path, house: House) -> None:
    """By line, in a file whose other lines are good; of a pipe the line that is wrong, and what follows, isn't sent."""
    lines: list[dict[str, Any]] = [
        {"path": "/1"},
        {"path": "/a?b=1"},
        {"path": "/3"},
        {"path": "/4", "method": "GTE", "cost": -1},
        {"path": "/5", "headers": {"Host": "x"}},
        {"path": "/6", "timeout": 10**6},
    ]
    source = write_lines(tmp_path / "calls.jsonl", lines)
    refused = house.process(source, cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    said = [
        f'{source}:2: path: has "?" or "#"; put parameters into `query`, and leave out fragments',
        f"{source}:4: cost: is -1; set 0 or more; "
        "method: 'GTE' is not a usual method; did you mean 'GET'? --any-method sends it as it is",
        f"{source}:5: headers[0].name: 'Host' is set by the service; remove it",
        f"{source}:6: timeout: is 1e+06 s; set more than 0 and at most ",
    ]
    told = refused.stderr.splitlines()
    assert [line.startswith(start) for line, start in zip(told, said, strict=False)] == [True] * 4, told
    assert house.upstream.arrived.total() == 0
    skipped = house.process(source, "--skip-bad-lines", cwd=tmp_path)
    assert skipped.returncode == 0, skipped.stderr
    assert house.upstream.arrived == {"GET /1": 1, "GET /3": 1}
    house.upstream.begin()
    piped = house.process("-", cwd=tmp_path, stdin=lines_of(*lines))
    assert piped.returncode == 2
    assert '<stdin>:2: path: has "?"' in piped.stderr
    assert house.upstream.arrived == {"GET /1": 1}


def test_a_run_ends_as_its_calls_did(tmp_path: Path, house: House) -> None:
    """3: some calls failed, and every result is there; 2: refused as it stands; 4: cut short. The reason is told."""
    two = lines_of({"path": "/type"}, {"path": "/status/500"})
    cases: list[tuple[str, tuple[str, ...], int, int, str]] = [
        (two, ("--pool", "once"), 3, 2, "1: HTTP_5XX 1"),
        (two, ("--pool", "once"), 3, 2, "<stdin>:2: HTTP 500"),
        (lines_of({"path": "/type"}, {"path": "/../up"}), (), 2, 1, "<stdin>:2: path: "),
        (lines_of({"path": "/1", "method": "get"}), (), 2, 0, "<stdin>:1: method: 'get' is not a method that can be"),
        (lines_of({"path": "/type"}), ("--pool", "nowhere"), 2, 0, "there is no pool 'nowhere'; use one of"),
        (lines_of(*[{}] * 30), ("--pool", "simulated", "--ordered"), 0, 30, "30 in "),
    ]
    for calls, options, code, results, message in cases:
        done = house.process("-", *options, cwd=tmp_path, stdin=calls)
        assert done.returncode == code, done.stderr
        assert len(rows_in(done.stdout)) == results
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        if "--ordered" in options:
            assert [json.loads(line)["index"] for line in done.stdout.splitlines()] == list(range(30))
    done = run("process", "-", *NOBODY, cwd=tmp_path, stdin=two)
    assert (done.returncode, done.stdout) == (4, "")
    assert "UNAVAILABLE" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """One that isn't there, is no text, or can't be written is exit code 2, and nothing is sent."""
    (tmp_path / "bytes").write_bytes(b"\xfe{}")
    (tmp_path / "wide").write_bytes("\ufeff{}".encode("utf-16-le"))
    (tmp_path / "calls").write_text("{}\n")
    for args, message in (
        (["missing"], "can't read missing: No such file or directory\n"),
        (["bytes"], "bytes:1: not UTF-8"),
        (["wide"], "wide: is UTF-16; save it as UTF-8"),
        (["calls", "--output", "no/such/folder"], "no/such/folder.state: No such file or directory\n"),
        (["calls", "--output", "."], "can't write to .: Is a directory\n"),
        (["."], "can't read .: is a directory\n"),
    ):
        done = run("process", *args, *NOBODY, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
        assert [word for word in ("Traceback", "Errno", "None") if word in done.stderr] == []


def test_a_pipe_is_processed_as_it_comes(tmp_path: Path, house: House) -> None:
    """A result is there before the next line is; a bad line ends the reading with exit code 2."""
    with house.processing("-", cwd=tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(json.dumps({"path": f"/{number}"}) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["index"] == number
        process.stdin.write('{"path": "/3"}\nnonsense\n{"path": "/never"}\n')
        out, err = process.communicate(timeout=50)
    assert process.returncode == 2
    assert indexes(rows_in(out)) == [3]
    assert "<stdin>:5: not JSON" in err
    assert "GET /never" not in house.upstream.arrived
    assert house.upstream.arrived.total() == 4


def test_bad_lines_of_a_pipe_can_be_skipped(tmp_path: Path, house: House) -> None:
    """Each is named, one whose id an earlier line has, too."""
    stdin = '{"path": "/a"}\nnonsense\n{"path": "/b", "id": "x"}\n{"path": "/c", "id": "x"}\n{"path": "/d"}'
    skipped = house.process("-", "--skip-bad-lines", stdin=stdin, cwd=tmp_path)
    assert skipped.returncode == 0
    assert "<stdin>:4: the id 'x' is used on an earlier line" in skipped.stderr
    assert indexes(rows_in(skipped.stdout)) == [0, 1, 2]


# -- CSV -------------------------------------------------------------------------------------------


def test_csv_makes_calls_by_a_template(tmp_path: Path, house: House) -> None:
    """Columns go into path, query and body; ids come from their column; a row that doesn't fit is named by its line."""
    source, output = tmp_path / "places.csv", tmp_path / "out.jsonl"
    source.write_text(
        '\ufeffid,city,address\na,Köln/Süd,"Main ""street""\n5"\nb,Bonn,"{x} & y"\n\nc,too few\n', encoding="utf-8"
    )
    template = {"method": "POST", "path": "/in/{city}", "query": {"q": "{address}"}, "json": {"a": ["{address}"]}}
    arguments = (source, "--output", output, "--template", json.dumps(template))
    refused = house.process(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert f"{source}:6: 2 columns; the header has 3" in refused.stderr
    assert house.upstream.arrived == {}
    done = house.process(*arguments, "--skip-bad-lines", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert house.upstream.arrived == {
        "POST /in/K%C3%B6ln%2FS%C3%BCd?q=Main%20%22street%22%0A5": 1,
        "POST /in/Bonn?q=%7Bx%7D%20%26%20y": 1,
    }
    assert {row["id"] for row in rows_of(output)} == {"a", "b"}
    piped = house.process("-", "--template", '{"path": "/{n}"}', stdin="id;n;\nx;1;\n;;\ny;2;\n", cwd=tmp_path)
    assert piped.returncode == 0, piped.stderr
    assert "<stdin>: columns are separated by semicolons" in piped.stderr
    assert {row["id"] for row in rows_in(piped.stdout)} == {"x", "y"}


def test_a_template_that_does_not_fit_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """An unknown column is named, with the one that was meant; and CSV needs a template."""
    source = tmp_path / "places.csv"
    source.write_text("id,address\n1,here\n")
    for template, message in (
        ('{"path": "/", "query": {"q": "{adress}"}}', "query.q has {adress}"),
        ('{"path": "/", "query": {"q": "{adress}"}}', "did you mean 'address'?"),
        ('{"pth": "/"}', "did you mean 'path'?"),
        ("{", "the template is not a call: not JSON"),
        (None, "CSV needs --template"),
    ):
        option = () if template is None else ("--template", template)
        done = run("process", source, *option, "--output", "out", *NOBODY, cwd=tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == ["places.csv"]
        assert done.returncode == 2
        assert message in done.stderr
        assert "UNAVAILABLE" not in done.stderr


# -- an output that is there already ---------------------------------------------------------------


def test_a_finished_job_sends_nothing_again(tmp_path: Path, house: House) -> None:
    """The same output is left as it is, and the exit code is that of the job; calls added to the file are sent."""
    source, output = write_lines(tmp_path / "calls.jsonl", mixed(20, ids=False)), tmp_path / "out.jsonl"
    first = house.process(source, "--output", output, cwd=tmp_path)
    before = output.read_bytes()
    second = house.process(source, "--output", output, cwd=tmp_path)
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert "20 calls had their result" in second.stderr
    assert output.read_bytes() == before
    write_lines(source, mixed(25, ids=False))
    third = house.process(source, "--output", output, cwd=tmp_path)
    assert third.returncode == 0, third.stderr
    assert set(house.upstream.arrived.values()) == {1}
    assert indexes(rows_of(output)) == list(range(25))


def test_how_far_it_got_is_told_of_the_whole_job(tmp_path: Path) -> None:
    """Results of earlier runs count: a run that is cut short doesn't begin again at 0."""
    source, output = write_lines(tmp_path / "calls.jsonl", mixed(5_000, ids=False)), tmp_path / "out.jsonl"
    write_lines(output, [{"index": index, "response": {"statusCode": 200}} for index in range(1_500)])
    done = run("process", source, "--output", output, *NOBODY, cwd=tmp_path)
    assert done.returncode == 4
    assert "1,500 of 5,000 results were written" in done.stderr


def test_results_of_other_calls_are_left_alone(tmp_path: Path, house: House) -> None:
    """Nothing is sent and nothing lost; with --overwrite it begins anew. With ids the file may change."""
    source, output = write_lines(tmp_path / "calls.jsonl", mixed(10, ids=False)), tmp_path / "out.jsonl"
    upstream = house.upstream
    assert house.process(source, "--output", output, cwd=tmp_path).returncode == 0
    before = output.read_bytes()
    write_lines(source, [{"path": f"/other/{number}"} for number in range(10)])
    refused = house.process(source, "--output", output, cwd=tmp_path)
    assert refused.returncode == 2
    assert "another job" in refused.stderr
    assert output.read_bytes() == before
    anew = house.process(source, "--output", output, "--overwrite", cwd=tmp_path)
    assert anew.returncode == 0, anew.stderr
    assert upstream.arrived.total() == 20
    upstream.begin()
    named = mixed(10, ids=True)
    write_lines(source, named[:7])
    assert house.process(source, "--output", output, "--overwrite", cwd=tmp_path).returncode == 0
    write_lines(source, [named[9], *reversed(named[:9])])
    assert house.process(source, "--output", output, cwd=tmp_path).returncode == 0
    assert upstream.arrived.total() == 10
    assert {row["id"] for row in rows_of(output)} == {call["id"] for call in named}
    assert len(rows_of(output)) == 10


def test_another_job_is_refused_by_what_its_calls_ask_for(tmp_path: Path, house: House) -> None:
    """With ids nothing is sent, and the first call that isn't what it was is named; what is the same goes on."""
    output = tmp_path / "out.jsonl"
    first, second = tmp_path / "j1.csv", tmp_path / "j2.csv"
    first.write_text("id,addr\n1,a\n2,b\n3,c\n")
    second.write_text("id,addr\n1,a\n2,other\n3,c\n4,d\n")
    get, delete = '{"path": "/v1/{addr}"}', '{"method": "DELETE", "path": "/v2/{addr}"}'
    assert house.process(first, "--template", get, "--output", output, cwd=tmp_path).returncode == 0
    before = output.read_bytes()
    for source, template, line in ((first, delete, 2), (second, get, 3), (second, delete, 2)):
        refused = house.process(source, "--template", template, "--output", output, cwd=tmp_path)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"{source}:{line}: " in refused.stderr
        assert "belongs to another job" in refused.stderr
        assert output.read_bytes() == before
    assert house.upstream.arrived.total() == 3
    first.write_text("id,addr\n4,d\n3,c\n1,a\n")
    longer = get[:-1] + ', "timeout": 9}'
    again = house.process(first, "--template", longer, "--output", output, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert house.upstream.arrived.total() == 4


@pytest.mark.parametrize("ids", [True, False])
def test_another_job_through_a_pipe_is_refused_at_its_line(tmp_path: Path, house: House, ids: bool) -> None:
    """The call that isn't what it was ends the reading; nothing after it is sent."""
    output = tmp_path / "out.jsonl"
    calls = mixed(5, ids=ids)
    for _ in range(2):
        assert house.process("-", "--output", output, stdin=lines_of(*calls), cwd=tmp_path).returncode == 0
    before = output.read_bytes()
    calls[2]["path"] = "/other"
    text = lines_of(*calls, {"path": "/more"})
    refused = house.process("-", "--output", output, "--skip-bad-lines", stdin=text, cwd=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert "<stdin>:3: " in refused.stderr
    assert "belongs to another job" in refused.stderr
    assert output.read_bytes() == before
    assert house.upstream.arrived.total() == 5


def test_an_output_that_is_none_of_ours_is_left_alone(tmp_path: Path) -> None:
    """Neither a file of something else nor the input itself is written to."""
    source = write_lines(tmp_path / "calls.jsonl", mixed(3, ids=False))
    other = tmp_path / "notes.txt"
    other.write_text("first\nsecond\n")
    short = tmp_path / "short.txt"
    short.write_text("a line without its end")
    for output, message in (
        (other, "notes.txt:1: is not a result"),
        (short, "short.txt:1: is not a result"),
        (source, "is the input"),
    ):
        before = output.read_bytes()
        done = run("process", source, "--output", output, *NOBODY, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
        assert output.read_bytes() == before


def test_one_run_at_a_time_has_an_output(tmp_path: Path, house: House) -> None:
    """A second run is refused and sends nothing."""
    source, output = write_lines(tmp_path / "calls.jsonl", mixed(10, ids=False)), tmp_path / "out.jsonl"
    with Output(output, Known()):
        second = house.process(source, "--output", output, cwd=tmp_path)
    assert second.returncode == 2
    assert "another run" in second.stderr
    assert house.upstream.arrived.total() == 0


def test_failed_calls_are_retried_when_asked(tmp_path: Path, house: House) -> None:
    """--retry-failed sends again what failed and replaces its line; the others stay, POSTs in doubt too."""
    source, output = tmp_path / "calls.jsonl", tmp_path / "out.jsonl"
    calls = [{"method": "POST" if number % 2 else "GET", "path": f"/once/{number}"} for number in range(6)]
    write_lines(source, [call | {"id": f"call-{number}"} for number, call in enumerate(calls)])
    arguments = (source, "--output", output, "--pool", "once")
    failed = house.process(*arguments, cwd=tmp_path)
    assert failed.returncode == 3, failed.stderr
    rows = rows_of(output)
    assert [row["response"]["statusCode"] for row in rows] == [500] * 6
    doubtful = {
        "index": 5,
        "id": "call-5",
        "failure": "UNKNOWN",
        "error": {"code": 2, "reason": "UNKNOWN", "message": "", "mayHaveRun": True, "idempotent": False},
    }
    write_lines(output, [*(row for row in rows if row["index"] != 5), doubtful])
    left = house.process(*arguments, cwd=tmp_path)
    assert left.returncode == 3
    assert "--retry-failed sends 5 again" in left.stderr
    assert house.upstream.arrived.total() == 6
    done = house.process(*arguments, "--retry-failed", cwd=tmp_path)
    assert "5 failed calls are sent again" in done.stderr
    assert done.returncode == 3  # the one in doubt
    assert house.upstream.arrived == {f"{call['method']} {call['path']}": 2 for call in calls[:5]} | {"POST /once/5": 1}
    rows = rows_of(output)
    assert indexes(rows) == list(range(6))
    assert [row["response"]["statusCode"] for row in rows[:5]] == [200] * 5
    assert rows[5] == doubtful


def test_a_call_that_failed_may_be_changed_and_retried(tmp_path: Path, house: House) -> None:
    """With --retry-failed the line may say something else; without it, it may not."""
    source, output = tmp_path / "calls.jsonl", tmp_path / "out.jsonl"
    arguments = (source, "--output", output, "--pool", "once")
    write_lines(source, [{"path": "/status/500", "id": "a"}])
    assert house.process(*arguments, cwd=tmp_path).returncode == 3
    write_lines(source, [{"path": "/2", "id": "a"}])
    assert house.process(*arguments, cwd=tmp_path).returncode == 2
    done = house.process(*arguments, "--retry-failed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert house.upstream.arrived["GET /2"] == 1
    assert house.process(*arguments, cwd=tmp_path).returncode == 0
