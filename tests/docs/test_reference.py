"""The reference pages say what the code says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from apiflux_grpc.client import errors as client_errors
from apiflux_grpc.core import errors
from apiflux_grpc.core.outcome import Reason
from apiflux_grpc.v1 import admin_pb2
from apiflux_grpc.v1 import apiflux_pb2 as pb
from docs.command_line import exit_codes
from docs.common import ROOT, cell
from docs.configuration import check_words
from docs.contract import PROTOS, Declared, contract
from docs.generate import PAGES
from docs.settings import environment, sections
from tests.docs.pages import page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import FileDescriptor


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    """Committed as it is generated; `python -m docs.generate` writes them anew."""
    assert (ROOT / name).read_text(encoding="utf-8") == PAGES[name](), "python -m docs.generate"


def test_a_bar_in_a_cell_is_shown_as_one() -> None:
    """Within code too, where a site shows the backslash that a table on GitHub needs."""
    assert cell("`a|<b>` or c|d, `e`") == r"<code>a&#124;&lt;b&gt;</code> or c\|d, `e`"


def test_every_setting_has_words_and_all_words_have_a_setting() -> None:
    """docs/_settings.toml and the settings fit together, both ways."""
    assert check_words() == []


def test_every_setting_is_named() -> None:
    """Each name that a file or the environment can set has its row, with a link of its own."""
    text = page("reference/configuration.md")
    wanted = [
        f"[`{setting.name}`](#{section.key or 'file'}.{setting.name})"
        for section in [*sections(), environment()]
        for setting in section.settings
    ]
    assert [name for name in wanted if name not in text] == []
    assert len(wanted) > 60


def test_no_setting_is_said_not_to_be_supported() -> None:
    """All that a file can say does something."""
    assert "not supported by this version" not in page("reference/configuration.md").lower()


def test_every_exit_code_is_there() -> None:
    """0 to 4, as cli.py has them."""
    assert [code for code, _ in exit_codes()] == ["0", "1", "2", "3", "4"]


FILES = {"apiflux.proto": pb.DESCRIPTOR, "admin.proto": admin_pb2.DESCRIPTOR}


@pytest.mark.parametrize("file", FILES)
def test_the_contract_is_read_whole(file: str) -> None:
    """Every service, method, message, field and oneof of the compiled contract is found in its file, and no other."""
    assert set(_declared(contract((PROTOS / file).read_text(encoding="utf-8"), file))) == set(_described(FILES[file]))
    assert set(FILES) == {path.name for path in PROTOS.iterdir()}


@pytest.mark.parametrize("file", FILES)
def test_everything_in_the_contract_has_a_comment(file: str) -> None:
    """Else a row of the page would be empty."""
    bare = [
        f"{outer.name}.{one.name}"
        for outer in contract((PROTOS / file).read_text(encoding="utf-8"), file).inner
        for one in [*outer.inner, *(each for inner in outer.inner for each in inner.inner)]
        if not one.comment
    ]
    assert bare == []


def _declared(root: Declared) -> Iterator[str]:
    for outer in root.inner:
        yield outer.name
        for one in outer.inner:
            yield f"{outer.name}.{one.name}"
            for each in one.inner:  # of a oneof
                yield f"{outer.name}.{each.name}"


def _described(file: FileDescriptor) -> Iterator[str]:
    for service in file.services_by_name.values():
        yield service.name
        for method in service.methods:
            yield f"{service.name}.{method.name}"
    for message in file.message_types_by_name.values():
        yield message.name
        for field in message.fields:
            yield f"{message.name}.{field.name}"
        for oneof in message.oneofs:
            if not oneof.name.startswith("_"):  # made up for an optional field
                yield f"{message.name}.{oneof.name}"
    for enum in file.enum_types_by_name.values():
        yield enum.name
        for value in enum.values:
            yield f"{enum.name}.{value.name}"


# -- errors --------------------------------------------------------------------------------------


def reasons() -> set[str]:
    """Every word that a caller may see: of calls, of requests, and those that the contract names."""
    found = {reason.value for reason in Reason}
    kinds: list[type[errors.FluxError]] = [errors.FluxError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if isinstance(kind.reason, str):
            found.add(kind.reason)
    return found


def http_reasons() -> set[str]:
    """Those that the operations port has beside the RPC's."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "apiflux_grpc" / "ops").glob("*.py")]
    return {reason for source in sources for reason in re.findall(r'HTTPStatus[.(]\w+\)?,\s+"([A-Z_]+)"', source)}


def test_every_reason_of_http_is_documented() -> None:
    """With the status that goes with it."""
    text = page("reference/errors.md")
    assert len(http_reasons()) >= 8
    assert [reason for reason in sorted(http_reasons()) if f"`{reason}`" not in text] == []


def test_every_reason_is_documented() -> None:
    """Each has a row that says what it means and what to do."""
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \|(.*)\|$", page("reference/errors.md"), re.MULTILINE)
    known = reasons()
    assert known - {name for name, _ in rows} == set()
    assert {name for name, _ in rows} - known - http_reasons() == set(), "no such reason"
    assert [name for name, rest in rows if not rest.rpartition("|")[2].strip()] == [], "says not what to do"


def test_every_reason_that_the_contract_names_is_one() -> None:
    """A word in capitals in a comment of the contract is a reason, or a gRPC status."""
    text = "\n".join((PROTOS / file).read_text(encoding="utf-8") for file in FILES)
    words = set(re.findall(r"\b[A-Z]+(?:_[A-Z0-9]+)+\b", text))
    words -= {
        value.name for file in FILES.values() for enum in file.enum_types_by_name.values() for value in enum.values
    }
    statuses = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "FAILED_PRECONDITION"}
    modes = {"TEST_MODE"}
    assert words - reasons() - statuses - modes == set()


def test_every_exception_of_the_client_is_documented() -> None:
    """Those of apiflux_grpc.client.errors."""
    names = [
        name
        for name, kind in vars(client_errors).items()
        if isinstance(kind, type) and issubclass(kind, client_errors.ApifluxError)
    ]
    text = page("reference/errors.md")
    assert [name for name in names if f"| `{name}` |" not in text] == []
