"""The certificate files of a pool: whom to trust, and the client's own certificate.

Rule: a file that can't be used is a fault now, and not of the first call. A relative path is relative to the TOML
file's folder.
"""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, NamedTuple

from apiflux_grpc.settings.sources import why

if TYPE_CHECKING:
    from apiflux_grpc.settings.findings import Place
    from apiflux_grpc.settings.sources import Sources
    from apiflux_grpc.settings.tables import PoolTable


class TlsFiles(NamedTuple):
    """Paths; None: not set."""

    ca_file: str | None
    cert_file: str | None
    key_file: str | None


def tls_files(sources: Sources, here: Place, pool: PoolTable) -> TlsFiles:
    """The files of a pool, which can be used."""
    ca_file, cert_file, key_file = (
        None if name is None else str(sources.path(name)) for name in (pool.ca_file, pool.cert_file, pool.key_file)
    )
    if ca_file is not None:
        _check_ca(sources, (*here, "ca_file"), pool, ca_file)
    if cert_file is not None:
        _check_certificate(sources, (*here, "cert_file"), pool, cert_file, key_file)
    elif key_file is not None:
        sources.findings.fault((*here, "key_file"), "needs cert_file; set it too")
    return TlsFiles(ca_file, cert_file, key_file)


def _check_https(sources: Sources, place: Place, pool: PoolTable) -> None:
    if pool.base_url and pool.base_url.startswith("http:"):
        sources.findings.fault(place, "has no effect, because base_url is not https; remove it")


def _check_ca(sources: Sources, place: Place, pool: PoolTable, path: str) -> None:
    _check_https(sources, place, pool)
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        sources.findings.fault(place, "has no certificate in PEM form")
    except (OSError, ValueError) as error:
        sources.findings.fault(place, f"{json.dumps(pool.ca_file)} can't be read: {why(error)}")


def _check_certificate(sources: Sources, place: Place, pool: PoolTable, path: str, key: str | None) -> None:
    """Checks both files together; without a key_file the certificate's file holds the key too."""
    _check_https(sources, place, pool)
    try:
        # An empty password, or OpenSSL would ask for one on the terminal.
        ssl.create_default_context().load_cert_chain(path, key, password="")
    except ssl.SSLError:
        sources.findings.fault(place, "and its key must be a pair in PEM form without a password")
    except (OSError, ValueError) as error:
        sources.findings.fault(place, f"or key_file can't be read: {why(error)}")
