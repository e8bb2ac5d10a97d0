"""The operations port: none unless it is asked for, and not where it would be in the way or in plaintext."""

from __future__ import annotations

from pathlib import Path

from apiflux_grpc.settings.types import OpsSettings
from tests.settings.writing import GOOD, faults, loaded


def server(*lines: str) -> str:
    return "\n".join(("[server]", *lines, GOOD))


def test_there_is_none_unless_it_is_asked_for(tmp_path: Path) -> None:
    """And then it is where the file says, under the names of the file, in lower case."""
    assert loaded(tmp_path, GOOD).ops is None
    text = server('ops_bind = "[::1]:0"', 'ops_hosts = ["Ops.Example", "10.0.0.1"]')
    assert loaded(tmp_path, text).ops == OpsSettings("::1", 0, frozenset({"ops.example", "10.0.0.1"}))


def test_each_fault_has_its_place(tmp_path: Path) -> None:
    """Another program's place, gRPC's own, plaintext beyond loopback, names of no port, and names that are none."""
    for lines, told in (
        (['ops_bind = "127.0.0.1"'], "server.ops_bind: has no port; write HOST:PORT"),
        (['bind = "127.0.0.1:7"', 'ops_bind = "127.0.0.2:7"'], "server.ops_bind: has gRPC's port, 7; choose another"),
        (['ops_bind = "0.0.0.0:7"'], "server.ops_bind: is 0.0.0.0, which other machines reach"),
        (['ops_hosts = ["a"]'], "server.ops_hosts: needs `ops_bind`; set it, or remove this"),
        (['ops_bind = "127.0.0.1:7"', 'ops_hosts = ["a:1"]'], "server.ops_hosts[0]: must be a name or an address"),
    ):
        (fault,) = faults(tmp_path, server(*lines))
        assert fault.startswith(told)


def test_plaintext_that_was_allowed_is_warned_of(tmp_path: Path) -> None:
    """As of gRPC's port, whose address may be another."""
    (warning,) = loaded(tmp_path, server('ops_bind = "0.0.0.0:7"', "allow_plaintext = true")).warnings
    assert "ops_bind: listens on 0.0.0.0 without TLS" in warning
