"""`[[callers]]`: each fault has its place, and none shows what may be a token."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiflux_grpc.core.callers import Access, Caller, Rate, Role, digest_of
from apiflux_grpc.core.units import SECOND
from tests.settings.writing import CANARY, GOOD, faults, loaded

TOKEN = f"apiflux_{CANARY}"
DIGEST = f"sha256:{digest_of(TOKEN).hex()}"
OTHER = f"sha256:{digest_of('other').hex()}"


def with_callers(*tables: str) -> str:
    return GOOD + "".join(f"\n[[callers]]\n{table}\n" for table in tables)


def test_a_caller_has_all_that_can_be_said(tmp_path: Path) -> None:
    """Tokens of the file and of the configuration, names, and what it may do."""
    (tmp_path / "tokens").write_text(f"# made in May\n{DIGEST}  # the old one\n\n")
    text = f"""
name = "team-a"
tokens = ["{OTHER}"]
tokens_file = "tokens"
identities = ["spiffe://a.org/b", "CN=team-a"]
role = "admin"
pools = ["default"]
methods = ["GET"]
paths = ["/v1/"]
weight = 2.0
max_queued_calls = 5
max_batches = 3
rate = "100/1s"
"""
    settings = loaded(tmp_path, "[server]\nopen_health = false\n" + with_callers(text))
    access = Access(Role.ADMIN, frozenset({"default"}), frozenset({"GET"}), ("/v1/",), 2.0, 5, 3, Rate(100, SECOND))
    digests = (digest_of("other"), digest_of(TOKEN))
    assert settings.callers == (Caller("team-a", access, digests, ("spiffe://a.org/b", "CN=team-a")),)
    assert not settings.open_health


def test_a_caller_may_do_what_pool_and_server_allow(tmp_path: Path) -> None:
    """What isn't said isn't narrowed, and health is open."""
    settings = loaded(tmp_path, with_callers(f'name = "a"\ntokens = ["{DIGEST}"]'))
    assert settings.callers == (Caller("a", Access(), (digest_of(TOKEN),)),)
    assert settings.open_health


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        (f'name = "a"\ntokens = ["{TOKEN}"]', "tokens[0]: must be `sha256:` and 64 hexadecimal digits"),
        (f'tokens = ["{DIGEST}"]', "name: is missing"),
        ('name = "a"', "tokens: is missing; set `tokens`, `tokens_file` or `identities`"),
        ('name = "a"\ntokens = []', "tokens: is empty"),
        (f'name = "a"\ntokens_file = "{TOKEN}"', "tokens_file: that file can't be read"),
        ('name = "a"\nidentities = ["team-a"]', "identities[0]: must be a URI or a subject"),
        (f'name = "a"\ntokens = ["{DIGEST}", "{DIGEST}"]', None),
        (f'name = "a"\ntokens = ["{DIGEST}"]\nrole = "root"', "role: must be 'reader', 'caller' or 'admin'"),
        (f'name = "a"\ntokens = ["{DIGEST}"]\npools = ["b"]', "pools[0]: there is no such pool; use one of default"),
        (f'name = "a"\ntokens = ["{DIGEST}"]\npools = []', "pools: is empty"),
        (f'name = "a"\ntokens = ["{DIGEST}"]\nmethods = ["get"]', "methods[0]: must be a method that can be sent"),
        (f'name = "a"\ntokens = ["{DIGEST}"]\npaths = ["v1"]', "paths[0]: must begin with"),
        (f'name = "a"\ntokens = ["{DIGEST}"]\nweight = 0.0', "weight: must be at least 0.001"),
        (f'name = "a"\ntokens = ["{DIGEST}"]\nrate = "100"', "rate: must be calls per time"),
        (f'name = "a"\ntokens = ["{DIGEST}"]\nrate = "0/1s"', "rate: must be calls per time"),
        (f'name = "a"\ntokens = ["{DIGEST}"]\nrate = "5/1 hour"', "rate: "),
        (f'name = "a"\ntokens = ["{DIGEST}"]\ntoken = "{TOKEN}"', "token: unknown name; did you mean 'tokens'?"),
        (f'name = "a"\ntokens = ["{DIGEST}"]\nmax_batches = 0', "max_batches: must be at least 1"),
    ],
)  # fmt: skip
def test_a_fault_names_its_place(tmp_path: Path, table: str, fault: str | None) -> None:
    """Of a caller in the file; a token that stands where its digest belongs isn't repeated."""
    if fault is None:  # the same twice at one caller harms nobody
        loaded(tmp_path, with_callers(table))
        return
    (told,) = faults(tmp_path, with_callers(table))
    assert told.startswith(f"callers[0].{fault}"), told


def test_a_credential_belongs_to_one_caller(tmp_path: Path) -> None:
    """A token or a name of two callers would make one of them the other."""
    both = f'tokens = ["{DIGEST}"]\nidentities = ["CN=x"]'
    assert faults(tmp_path, with_callers(f'name = "a"\n{both}', f'name = "a"\n{both}')) == [
        "callers[1].name: is the name of callers[0] too; choose another",
        "callers[1].tokens[0]: is one of callers[0] too; each belongs to one caller",
        "callers[1].identities[0]: is one of callers[0] too; each belongs to one caller",
    ]


def test_a_bad_line_of_a_file_is_named_and_not_shown(tmp_path: Path) -> None:
    """It may be the token itself."""
    (tmp_path / "tokens").write_text(f"{DIGEST}\n{TOKEN}\n")
    (told,) = faults(tmp_path, with_callers('name = "a"\ntokens_file = "tokens"'))
    assert told.startswith("callers[0].tokens_file: line 2 must be `sha256:`")
