"""The operations port's TLS: the files of gRPC's port, by Python's own TLS, which can't take them from there.

Rule: whether files can be used, and whether they have changed, is server/transport.py's to say. With client_ca_file a
client may show a certificate, and if it does, one that an authority issued; it needs none for a probe, since those who
probe have none. New connections get a context of their own after a change: one that is changed would still know
sessions that an authority had let in which isn't trusted any more.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import BaseTransport

    from apiflux_grpc.server.tls_files import Pair, TlsFiles


def context_of(files: TlsFiles, pair: Pair) -> ssl.SSLContext:
    """What connections are made with from now on. Raises OSError (ssl.SSLError) if the files aren't those of `pair`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    # Python takes a key from a file alone. An empty password: nobody is asked for one.
    context.load_cert_chain(files.cert_file, files.key_file, password="")
    if pair.client_ca:
        context.load_verify_locations(cadata=b"\n".join(pair.client_ca).decode("ascii"))
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def certificate_of(transport: BaseTransport) -> bytes | None:
    """The peer's, in DER, which was checked; None: it has shown none, or there is no TLS."""
    connection: Any = transport.get_extra_info("ssl_object")
    return None if connection is None else connection.getpeercert(binary_form=True)


def names_in(certificate: bytes) -> tuple[str, ...]:
    """What it may be called in `identities`: its URIs, and its whole subject as RFC 2253 writes it."""
    from cryptography import x509  # slow to import; it is there if there is a client_ca_file

    read = x509.load_der_x509_certificate(certificate)
    try:
        alternative = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (read.subject.rfc4514_string(),)
    return (*alternative.get_values_for_type(x509.UniformResourceIdentifier), read.subject.rfc4514_string())
