"""CSV as spreadsheets write it: how columns are told apart, what is no row, and columns that hold JSON."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from apiflux_grpc.jobs.job import Job, Refused
from apiflux_grpc.jobs.lines import Entry, lines_of
from apiflux_grpc.jobs.source import Source
from apiflux_grpc.jobs.spreadsheet import Spreadsheet, delimiter_of
from apiflux_grpc.jobs.template import Template

CITY = '{"path": "/{city}"}'


def read(text: str, template: str = CITY, delimiter: str | None = None) -> tuple[list[Entry], list[str]]:
    """The rows, and what was told."""
    told: list[str] = []
    sheet = Spreadsheet(Template(template), delimiter, told.append)
    return list(sheet.entries(lines_of(io.BytesIO(text.encode())))), told


def calls(text: str, template: str = CITY, delimiter: str | None = None) -> list[tuple[int, str, str]]:
    """(line, id, path) of rows that are all good."""
    found, _ = read(text, template, delimiter)
    assert [entry.fault for entry in found if entry.fault] == []
    return [(entry.line, entry.call.id, entry.call.path) for entry in found if entry.call]


# -- columns -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "told"),
    [
        ("id,city\n1,a;b\n", "/a%3Bb", ""),
        ("id;city\n1;a,b\n", "/a%2Cb", "separated by semicolons; .* --delimiter"),
        ("id\tcity\n1\ta,b;c\n", "/a%2Cb%3Bc", "separated by tabs; .* --delimiter"),
        ("city\na;b\n", "/a%3Bb", ""),
        ('"a;b",city\nx,y\n', "/y", ""),
        ('"a,b";city\nx;y\n', "/y", "semicolons"),
        ('"a\nb";city\nx;y\n', "/y", "semicolons"),
        ("a,b;city\nx;y\n", "/y", "semicolons"),
        ("sep=|\nid|city\n1|x\n", "/x", ""),
        ('"SEP=;"\r\nid;city\r\n1;x\r\n', "/x", ""),
        ("sep=\t\nid\tcity\n1\tx\n", "/x", ""),
        ("\ufeffsep=;\nid;city\n1;x\n", "/x", ""),
    ],
)
def test_what_separates_columns_shows(text: str, path: str, told: str) -> None:
    """By a line `sep=`, else by a header that fits the template: then it is told, unless it is the comma."""
    found, words = read(text)
    assert [entry.call.path for entry in found if entry.call] == [path]
    assert len(words) == (told != "")
    assert re.search(told, "".join(words))


def test_the_comma_comes_first() -> None:
    """A header that fits with it is read so, whatever else would fit."""
    found, told = read("a,b;c\n1,2;3\n", '{"path": "/"}')
    assert ([entry.fault for entry in found], told) == ([""], [])


def test_it_is_told_once_in_two_readings() -> None:
    """A file is read to be checked, and again to be sent."""
    told: list[str] = []
    sheet = Spreadsheet(Template(CITY), None, told.append)
    for _ in range(2):
        assert len(list(sheet.entries(iter([b"id;city\n", b"1;x\n"])))) == 1
    assert len(told) == 1


@pytest.mark.parametrize("head", ["", "sep=;\n"])
def test_what_is_said_holds_against_what_shows(head: str) -> None:
    """--delimiter comes before `sep=` and before what would fit."""
    assert calls(f"{head}id,x|city\n1,2|a;b\n", delimiter="|") == [(2 + head.count("\n"), "", "/a%3Bb")]
    with pytest.raises(ValueError, match="did you mean 'id;city'"):
        read("id;city\n1;x\n", delimiter=",")


@pytest.mark.parametrize(
    ("header", "is_told"), [("id;town", True), ("id|city", True), ("id,town", False), ("id", False)]
)
def test_a_header_of_one_column_that_may_be_several_is_told_of_the_option(header: str, is_told: bool) -> None:
    """With semicolons and a typo in the template nothing fits, and the fault shows the whole header as one column."""
    with pytest.raises(ValueError, match="the header has no such column") as fault:
        read(f"{header}\n")
    assert str(fault.value).endswith("; --delimiter says what separates columns") == is_told


@pytest.mark.parametrize(
    ("given", "delimiter"), [(";", ";"), ("tab", "\t"), ("TAB", "\t"), (r"\t", "\t"), ("\t", "\t")]
)
def test_a_tab_can_be_typed(given: str, delimiter: str) -> None:
    """By its name, or as most languages write it."""
    assert delimiter_of(given) == delimiter


@pytest.mark.parametrize("given", ["", ";;", "comma", '"', "\n"])
def test_a_delimiter_is_one_character(given: str) -> None:
    """And none that CSV needs otherwise."""
    with pytest.raises(ValueError, match="give one character"):
        delimiter_of(given)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("c.jsonl", "--delimiter is for CSV; leave it out"),
        ("c", "--delimiter is for CSV, which needs --template too"),
        ("c.csv", "CSV needs --template"),
    ],
)
def test_a_delimiter_is_for_csv(tmp_path: Path, name: str, said: str) -> None:
    """It is refused where nothing would ask for it."""
    (tmp_path / name).write_text("{}\n")
    with pytest.raises(Refused, match=said):
        Source(Job(tmp_path / name, target="", delimiter=";"))


def test_a_tsv_has_tabs_and_names_its_file(tmp_path: Path) -> None:
    """Without a word; what shows in another file is told with its name."""
    told: list[str] = []
    for name in ("rows.tsv", "rows.csv"):
        file = tmp_path / name
        file.write_text("a,b\tcity\n1\t2\n")
        source = Source(Job(file, target="", template=CITY))
        source.read_for("", told.append)
        assert [entry.call.path for entry in source.read() if entry.call] == ["/2"]
    assert told == [f"{tmp_path}/rows.csv: columns are separated by tabs; if they aren't, say so with --delimiter"]


def test_columns_without_a_name_are_nobody_s() -> None:
    """There may be many, wherever they are; a template can't use them, nor are they told as columns that exist."""
    assert calls("id,,city,,\n1,x,a,y,\n2,,b,,z\n") == [(2, "1", "/a"), (3, "2", "/b")]
    for place in ("{}", "{ }"):
        with pytest.raises(ValueError, match=r"has \{\}.*the columns are 'id', 'city'$"):
            read("id,,city\n1,2,3\n", f'{{"path": "/{place}"}}')


def test_rows_without_a_value_are_no_rows() -> None:
    """Neither above the header nor below, whatever their number of columns; lines are counted on."""
    assert calls(',,\n \nid,city\n\n1,a\n,\n ,\t\n,,,,\n"",""\n2,b\n,\n') == [(5, "1", "/a"), (10, "2", "/b")]
    found, _ = read("id,city\n1,\n")
    assert [entry.call.id for entry in found if entry.call] == ["1"]


def test_what_is_no_utf_8_says_how_to_save_it() -> None:
    """Excel's other kinds of CSV: in an old code page, and in UTF-16."""
    sheet = Spreadsheet(Template(CITY), None, print)
    (entry,) = sheet.entries(lines_of(io.BytesIO("city\nKöln\n".encode("cp1252"))))
    assert (entry.line, entry.fault) == (2, "not UTF-8; save the file as UTF-8")
    for encoding in ("utf-16", "utf-16-be"):
        with pytest.raises(ValueError, match="is UTF-16; save it as UTF-8"):
            list(sheet.entries(lines_of(io.BytesIO("\ufeffcity\nx\n".encode(encoding)))))


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ('city\n"a"b\nc\n', ["a quoted value goes on after its closing quote; write a quote within it twice", ""]),
        ('city\na\n"b\nc\n', ["", "a quoted value has no closing quote"]),
        ("city\na\rb\nc\n", ["a CR outside of quotes ends no line; save the file with LF or CRLF", ""]),
    ],
)
def test_what_is_no_csv_is_said_in_plain_words(text: str, faults: list[str]) -> None:
    """Not in Python's; what follows is read if it can be."""
    assert [entry.fault for entry in read(text)[0]] == faults


def test_a_header_that_is_no_csv_is_told_in_the_same_words() -> None:
    """As the first line of a file from an old Macintosh."""
    with pytest.raises(
        ValueError, match=r"^the header is not CSV: a CR outside of quotes ends no line; save the file with LF or CRLF$"
    ):
        read("id,city\r1,a\r2,b\r")


# -- JSON in a column --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ("7", "7"),
        (" 1.10 ", "1.10"),
        ("12345678901234567890", "12345678901234567890"),
        ('"[1, {""a"": 1, ""a"": ""ü""}]"', '[1, {"a": 1, "a": "ü"}]'),
        ("true", "true"),
        ('""""""', '""'),
    ],
)
def test_a_column_goes_in_as_json(value: str, body: str) -> None:
    """As it is written, beside text, and as the whole of `json` too."""
    found, _ = read(f"id,qty\n1,{value}\n", '{"json": {"n": "{qty:json}", "t": ["{ qty : json }"]}}')
    assert found[0].call is not None
    assert found[0].call.body == f'{{"n":{body},"t":[{body}]}}'.encode()
    found, _ = read(f"id,qty\n1,{value}\n", '{"json": "{qty:json}"}')
    assert found[0].call is not None
    assert found[0].call.body == body.encode()


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ('"1,5"', "column 'qty' has '1,5', which is not JSON: Extra data at character 2"),
        ("", "column 'qty' is empty; as JSON it needs a value, such as null"),
        ('" "', "column 'qty' is empty; as JSON it needs a value, such as null"),
        ("TRUE", "column 'qty' has 'TRUE', which is not JSON: Expecting value at character 1"),
        ('"""x"', "column 'qty' has '\"x', which is not JSON: Unterminated string starting at character 1"),
        ("NaN", "column 'qty' has 'NaN', which is not JSON: JSON can't carry NaN"),
        ("[" * 100_000, f"column 'qty' has '{'[' * 64}', which is not JSON: it is nested too deeply"),
        ("1}", "column 'qty' has '1}', which is not JSON: Extra data at character 2"),
    ],
)
def test_what_is_no_json_is_a_fault_of_its_line(value: str, fault: str) -> None:
    """With the column; other lines are read."""
    found, _ = read(f"id,qty\n1,{value}\n2,3\n", '{"json": {"n": "{qty:json}"}}')
    assert [(entry.line, entry.fault) for entry in found] == [(2, fault), (3, "")]


def test_other_fields_take_json_of_a_column_too() -> None:
    """So that a column can say what no text can: whether a call may run twice, or all of its parameters."""
    template = '{"idempotent": "{again:json}", "cost": "{n:json}", "query": "{q:json}"}'
    found, _ = read(
        'again,n,q\ntrue,5,"{""a"": ""b""}"\nyes,5,{}\ntrue,5,7\ntrue,5,"{""a"":"""",""a"":""""}"\n', template
    )
    call = found[0].call
    assert call is not None
    assert (call.idempotent, call.cost, call.query[0].value) == (True, 5, "b")
    assert [entry.fault for entry in found[1:]] == [
        "column 'again' has 'yes', which is not JSON: Expecting value at character 1",
        "query must be an object, or a list of [name, value]",
        "the name 'a' is used twice in one object",
    ]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ('{"json": "n = {qty:json}"}', r"json has \{qty:json\} within a text; only a whole string can be JSON"),
        ('{"path": "/{qty:json}"}', r"path has \{qty:json\} within a text"),
        ('{"json": ["{qyt:json}"]}', r"json\[0\] has \{qyt\}.*did you mean 'qty'\?"),
        ('{"json": "{:json}"}', r"json has \{\}"),
    ],
)
def test_json_is_a_whole_string(template: str, said: str) -> None:
    """Within a text it would be no JSON; and a column that doesn't exist is told before the first row is read."""
    with pytest.raises(ValueError, match=said):
        read("id,qty\n1,2\n", template)


def test_a_column_may_be_called_so() -> None:
    """Then it is a text, as it was before there was JSON in columns."""
    found, _ = read("qty:json,qty\n1,2\n", '{"json": "{qty:json}"}')
    assert found[0].call is not None
    assert found[0].call.body == b'"1"'
