"""`[auth.jwt]`: what can't be guessed must be said, and each fault has its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiflux_grpc.core.callers import Access, Caller, Role
from apiflux_grpc.core.claims import OWN_ROLES, Rules
from apiflux_grpc.settings.types import JwtSettings
from tests.settings.writing import GOOD, faults, loaded

NEEDED = 'issuer = "https://i/"\naudience = "a"\nalgorithms = ["RS256", "ES256"]\n'


def test_an_issuer_has_all_that_can_be_said(tmp_path: Path) -> None:
    """And a caller without credentials is one of its."""
    text = f"""{GOOD}
[auth.jwt]
{NEEDED}
jwks_file = "keys"
caller_claim = "azp"
role_claim = "r.roles"
roles = {{ ops = "admin" }}
pools_claim = "pools"
[[callers]]
name = "bob"
max_batches = 2
"""
    settings = loaded(tmp_path, text)
    rules = Rules("https://i/", "a", ("RS256", "ES256"), "azp", "r.roles", {"ops": Role.ADMIN}, "pools")
    assert settings.jwt == JwtSettings(rules, tmp_path / "keys")
    assert settings.callers == (Caller("bob", Access(max_batches=2)),)
    less = loaded(tmp_path, f'{GOOD}\n[auth.jwt]\n{NEEDED}jwks_url = "https://i/keys?a=1"')
    assert less.jwt == JwtSettings(Rules("https://i/", "a", ("RS256", "ES256")), None, "https://i/keys?a=1")
    assert less.jwt.rules.roles == OWN_ROLES


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("", ["issuer: is missing", "audience: is missing", "algorithms: is missing", "jwks_file: is missing; set"]),
        (NEEDED + 'jwks_file = "a"\njwks_url = "https://i/"', ["jwks_url: conflicts with `jwks_file`"]),
        (NEEDED + 'jwks_url = "http://i/keys"', ["jwks_url: must begin with https://"]),
        (NEEDED + 'jwks_url = "https://u:p@i/keys"', ["jwks_url: must be a URL"]),
        (NEEDED + 'jwks_url = "https://i:x/keys"', ["jwks_url: must be a URL"]),
        (
            NEEDED + 'jwks_url = "https://i/"\nroles = { a = "root" }',
            ["roles.a: must be 'reader', 'caller'"],
        ),
        (NEEDED + 'jwks_url = "https://i/"\nroles = { a = "admin" }', ["roles: needs `role_claim`"]),
        (NEEDED + 'jwks_url = "https://i/"\nrole_claim = ""', ["role_claim: must be text of 1"]),
    ],
)
def test_a_fault_names_its_place(tmp_path: Path, table: str, told: list[str]) -> None:
    """Whether something is missing, wrong or too much."""
    found = faults(tmp_path, f"{GOOD}\n[auth.jwt]\n{table}")
    assert len(found) == len(told), found
    for one, start in zip(found, told, strict=True):
        assert one.startswith(f"auth.jwt.{start}"), one


@pytest.mark.parametrize("algorithm", ["HS256", "none", "rs256", "EdDSA", "RSA1_5"])
def test_only_asymmetric_algorithms_can_be_named(tmp_path: Path, algorithm: str) -> None:
    """With HS256 whoever knows the public key could sign."""
    table = NEEDED.replace("RS256", algorithm)
    (told,) = faults(tmp_path, f'{GOOD}\n[auth.jwt]\n{table}jwks_url = "http://127.0.0.1:1/keys"')
    assert told.startswith("auth.jwt.algorithms[0]: must be one of RS256")


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and not with the first token."""
    monkeypatch.setattr("apiflux_grpc.settings.jwt.find_spec", lambda name: None)
    (told,) = faults(tmp_path, f'{GOOD}\n[auth.jwt]\n{NEEDED}jwks_url = "https://i/"')
    assert told == "auth.jwt: needs joserfc: pip install 'apiflux-grpc[jwt]'"
