"""A peer is who its certificate says, in plain values."""

from __future__ import annotations

from typing import Any

from apiflux_grpc.server.peer import peer_of


class Context:
    """What grpc tells of a connection."""

    def __init__(self, **told: list[bytes]) -> None:
        self._told = told

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._told


def told(**more: list[bytes]) -> Any:
    return Context(x509_pem_cert=[b"PEM"], **more)


def test_without_a_certificate_there_is_no_peer() -> None:
    """Neither in plaintext nor over TLS that asks for none."""
    assert peer_of(Context()) is None
    assert peer_of(Context(transport_security_type=[b"ssl"], security_level=[b"TSI_PRIVACY_AND_INTEGRITY"])) is None


def test_a_certificate_names_its_subject_and_all_its_uris() -> None:
    """As grpc tells them; what isn't there is empty."""
    uris = [b"spiffe://example.org/team-a", b"https://example.org/"]
    peer = peer_of(told(x509_subject=[b"CN=team-a,O=Ex\\, ample"], x509_common_name=[b"team-a"], peer_uri=uris))
    assert peer is not None
    assert (peer.subject, peer.common_name) == ("CN=team-a,O=Ex\\, ample", "team-a")
    assert peer.uris == ("spiffe://example.org/team-a", "https://example.org/")
    nameless = peer_of(told(x509_subject=[b""]))
    assert nameless is not None
    assert (nameless.subject, nameless.common_name, nameless.uris) == ("", "", ())


def test_a_name_that_is_no_text_equals_none_that_is() -> None:
    """A byte that is no UTF-8 doesn't become a character that a rule could have."""
    peer = peer_of(told(x509_common_name=[b"team-\xff"]))
    assert peer is not None
    assert peer.common_name == "team-\\xff"
