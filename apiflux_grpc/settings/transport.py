"""How callers reach the server: where it listens, and with which certificate.

Rule: beyond this machine nothing is said in plaintext unless somebody has asked for that by name. A file that can't be
used is a fault now, and not of the first connection. A relative path is relative to the TOML file's folder.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, NamedTuple

from apiflux_grpc.core.units import is_loopback
from apiflux_grpc.server.tls_files import BadFile, TlsFiles, read
from apiflux_grpc.settings import values

if TYPE_CHECKING:
    from apiflux_grpc.settings.findings import Place
    from apiflux_grpc.settings.sources import Sources


class Transport(NamedTuple):
    """`tls` None: plaintext."""

    host: str
    port: int
    tls: TlsFiles | None


def transport_of(sources: Sources, bind: str | None, allow_plaintext: bool) -> Transport:
    """By these flags; `allow_plaintext` false says nothing."""
    env, server = sources.env, sources.file.server
    place = sources.toml_place("server", "bind")
    host, port = server.bind
    port = port if env.PORT is None else env.PORT
    if bind is not None:
        place = ("", "--bind")
        try:
            host, port = values.bind(bind)
        except ValueError as error:
            sources.findings.fault(place, str(error))
    tls = _tls(sources)
    if is_plaintext(sources, place, host, allow_plaintext):
        sources.findings.warnings.append(
            f"listens on {host} without TLS: whoever can connect can use up the keys' budgets"
        )
    return Transport(host, port, tls)


def is_plaintext(sources: Sources, place: Place, host: str, allow_plaintext: bool) -> bool:
    """Whether other machines reach that host, and without TLS. It is a fault at `place` unless it was allowed."""
    env, server = sources.env, sources.file.server
    if server.tls is not None or is_loopback(host):
        return False
    asked = server.allow_plaintext if env.APIFLUX_ALLOW_PLAINTEXT is None else env.APIFLUX_ALLOW_PLAINTEXT
    if allow_plaintext or asked:
        return True
    text = (
        f"is {host}, which other machines reach, and without TLS they would talk in plaintext; set "
        "`server.tls`, or allow that: `server.allow_plaintext = true`, --allow-plaintext or "
        "APIFLUX_ALLOW_PLAINTEXT=true"
    )
    sources.findings.fault(place, text, sources.toml_place("server", "allow_plaintext"))
    return False


def _tls(sources: Sources) -> TlsFiles | None:
    table, here = sources.file.server.tls, sources.toml_place("server", "tls")
    if table is None or sources.findings.has_below(here):
        return None
    for name in ("cert_file", "key_file"):
        if not getattr(table, name):
            sources.findings.fault((*here, name), "is missing")
    if not table.cert_file or not table.key_file:
        return None
    client_ca = None if table.client_ca_file is None else sources.path(table.client_ca_file)
    files = TlsFiles(sources.path(table.cert_file), sources.path(table.key_file), client_ca)
    try:
        read(files)
    except BadFile as error:
        sources.findings.fault((*here, error.name), f"({error.path}) {error.what}")
    else:
        _warn_of_readers(sources, (*here, "key_file"), files)
    return files


def _warn_of_readers(sources: Sources, place: Place, files: TlsFiles) -> None:
    """A group may read it: that is how Kubernetes and others hand it to a user who isn't root."""
    if files.key_file.stat().st_mode & stat.S_IROTH:
        sources.findings.warn(place, f"everybody on this machine can read {files.key_file}: chmod o-r it")
