"""Certificates for tests: an authority, and files that are replaced as tools replace them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import trustme

from apiflux_grpc.client import TlsOptions
from apiflux_grpc.server.tls_files import TlsFiles


def pem(*authorities: trustme.CA) -> bytes:
    """A file of their certificates."""
    return b"".join(one.cert_pem.bytes() for one in authorities)


def chain(cert: trustme.LeafCert) -> bytes:
    return b"".join(one.bytes() for one in cert.cert_chain_pems)


def replace(path: Path, data: bytes) -> None:
    """As tools do it that write beside a file and rename."""
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    beside.rename(path)


class Served:
    """The files of a server, in a folder; `ca` issued what they have first."""

    def __init__(self, folder: Path, ca: trustme.CA, *, mutual: bool = False) -> None:
        self.files = TlsFiles(folder / "cert.pem", folder / "key.pem", folder / "clients.pem" if mutual else None)
        self.give(ca.issue_cert("localhost", "127.0.0.1"))
        if mutual:
            self.trust(ca)

    def give(self, cert: trustme.LeafCert) -> None:
        """This certificate from now on, and its key."""
        replace(self.files.cert_file, chain(cert))
        replace(self.files.key_file, cert.private_key_pem.bytes())

    def trust(self, *authorities: trustme.CA) -> None:
        """Clients that these issued, from now on."""
        assert self.files.client_ca_file is not None
        replace(self.files.client_ca_file, pem(*authorities))


def options(folder: Path, server: trustme.CA, own: trustme.LeafCert | None = None, name: str = "client") -> TlsOptions:
    """What a client needs that trusts this authority, and has this certificate of its own."""
    ca, cert, key = (folder / f"{name}-{what}.pem" for what in ("ca", "cert", "key"))
    replace(ca, pem(server))
    if own is None:
        return TlsOptions(ca)
    replace(cert, chain(own))
    replace(key, own.private_key_pem.bytes())
    return TlsOptions(ca, cert, key)


def expired(ca: trustme.CA) -> trustme.LeafCert:
    """A certificate whose time is over."""
    return ca.issue_cert("localhost", "127.0.0.1", not_before=datetime(2020, 1, 1), not_after=datetime(2020, 1, 2))
