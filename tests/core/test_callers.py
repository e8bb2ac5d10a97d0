"""Who may call: found by digest or by certificate, refused without a word about why."""

from __future__ import annotations

import pytest

from apiflux_grpc.core.callers import (
    LONGEST_TOKEN,
    Access,
    Caller,
    Callers,
    Credentials,
    Role,
    digest_of,
    parse_digest,
)
from apiflux_grpc.core.errors import CredentialsInvalid, CredentialsMissing, Forbidden, Unauthenticated

OLD, NEW, OTHER = "apiflux_old-canary", "apiflux_new-canary", "apiflux_other-canary"
URI = "spiffe://example.org/team-b"
CALLERS = Callers(
    [
        Caller("team-a", Access(), (digest_of(OLD), digest_of(NEW))),
        Caller("team-b", Access(Role.READER), (digest_of(OTHER),), (URI,)),
    ]
)


def header(*values: str) -> Credentials:
    return Credentials(values)


@pytest.mark.parametrize(
    ("credentials", "name"),
    [
        (header(f"Bearer {OLD}"), "team-a"),
        (header(f"bearer  {NEW}"), "team-a"),
        (header(f"BEARER {OTHER}"), "team-b"),
        (Credentials(names=("CN=somebody", URI)), "team-b"),
        (Credentials((f"Bearer {OLD}",), (URI,)), "team-a"),
    ],
    ids=["old", "new", "other", "certificate", "token-first"],
)
def test_who_is_known_is_admitted(credentials: Credentials, name: str) -> None:
    """Every token of a caller is valid at once, and a token goes before a certificate."""
    assert CALLERS.admit(credentials).name == name


@pytest.mark.parametrize(
    "credentials",
    [
        header(f"Bearer {OLD}x"),
        header(f"Bearer {OLD[:-1]}"),
        header(f"Bearer {OLD.upper()}"),
        header("Bearer sha256:" + digest_of(OLD).hex()),
        header("Bearer " + digest_of(OLD).hex()),
        header("Bearer "),
        header("Bearer"),
        header(""),
        header(OLD),
        header(f"Basic {OLD}"),
        header(f"Bearer {OLD}", f"Bearer {OLD}"),
        header("Bearer " + "x" * (LONGEST_TOKEN + 1)),
        header("Bearer \udcff"),
        Credentials(names=("CN=somebody",)),
        Credentials(("Bearer wrong",), (URI,)),
    ],
)
def test_who_is_not_known_is_refused(credentials: Credentials) -> None:
    """All of them are refused in the same words: neither what was sent nor what came near is told."""
    with pytest.raises(CredentialsInvalid) as caught:
        CALLERS.admit(credentials)
    assert str(caught.value) == str(CredentialsInvalid())


def test_no_credentials_are_none() -> None:
    """Who shows nothing is told how to; a server without callers checks nothing."""
    with pytest.raises(CredentialsMissing):
        CALLERS.admit(Credentials())
    assert CALLERS
    assert not Callers()


def test_a_digest_of_zeros_admits_nobody() -> None:
    """What an unknown token is compared with is the digest of nothing that is known."""
    with pytest.raises(Unauthenticated):
        Callers([Caller("a", Access(), (digest_of(OLD),))]).of_token("x")


@pytest.mark.parametrize(("role", "may"), [("reader", 1), ("caller", 2), ("admin", 3)])
def test_a_role_may_do_what_those_before_it_may(role: str, may: int) -> None:
    """Reader, caller, admin: each has the rights of the one before."""
    (identity,) = [Callers([Caller("a", Access(Role(role)), (digest_of(OLD),))]).of_token(OLD)]
    assert [identity.may(one) for one in Role] == [place < may for place in range(3)]
    for one in Role:
        if not identity.may(one):
            with pytest.raises(Forbidden):
                identity.require(one)


def test_reprs_have_no_digest_and_no_token() -> None:
    """A digest isn't secret, but it would say which token leaked; neither is in a repr."""
    caller = Caller("a", Access(), (digest_of(OLD),))
    said = repr([caller, CALLERS, header(f"Bearer {OLD}"), CALLERS.of_token(OLD)])
    assert "canary" not in said
    assert digest_of(OLD).hex() not in said
    assert repr(digest_of(OLD)) not in said


@pytest.mark.parametrize(
    "text", [OLD, "", "sha256:", "sha256:00", f"sha256:{'0' * 63} ", f"sha256:{'é' * 64}", "0" * 64]
)
def test_what_is_no_digest_is_not_repeated(text: str) -> None:
    """A token in the place of its digest is a fault that doesn't show it."""
    with pytest.raises(ValueError, match="must be `sha256:`") as caught:
        parse_digest(text)
    assert "canary" not in str(caught.value)
    assert parse_digest(f"sha256:{digest_of(OLD).hex()}") == digest_of(OLD)
