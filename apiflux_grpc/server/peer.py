"""Who is at the other end of a connection, by the certificate that it was made with.

Rule: a peer has an identity only if its certificate was checked, as gRPC does before the first request. Without
client_ca_file no certificate is asked for, and nobody has one. What is told here are plain values, for rules to use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Peer:
    """What a client's certificate says of it.

    `subject` is as OpenSSL writes it by RFC 2253, the last part first: `CN=team-a,O=Example`. `uris` are the URIs among
    its alternative names (SPIFFE IDs are such). `certificate` and `chain` are PEM: its own, and those it sent along.
    """

    subject: str
    common_name: str = ""
    uris: tuple[str, ...] = ()
    certificate: bytes = field(default=b"", repr=False)
    chain: bytes = field(default=b"", repr=False)


def peer_of(context: Any) -> Peer | None:
    """Of an RPC's context; None: it has shown no certificate."""
    told: Mapping[str, Sequence[bytes]] = context.auth_context()
    certificate = told.get("x509_pem_cert")
    if not certificate:
        return None
    return Peer(
        _text(told.get("x509_subject")),
        _text(told.get("x509_common_name")),
        tuple(_text([uri]) for uri in told.get("peer_uri", ())),
        certificate[0],
        b"".join(told.get("x509_pem_cert_chain", ())),
    )


def _text(values: Sequence[bytes] | None) -> str:
    # What is no UTF-8 stays apart from every text that a rule can have.
    return values[0].decode("utf-8", "backslashreplace") if values else ""
