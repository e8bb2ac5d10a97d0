"""TLS to the server, from files.

Rule: a file that can't be used is named before the first connection. OpenSSL would say only that a handshake failed,
and gRPC would try again for ever.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n(.*?)-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """TLS to the server. All files are PEM; each is read when the client is opened.

    `ca_file` says whom to trust (None: the well-known authorities that come with grpc). `cert_file` and `key_file` are
    the client's own certificate, for servers that ask for one. `server_name` is the name the server's certificate must
    have, if it isn't that of the target. Raises ValueError if one of the two files of a certificate is missing.
    """

    ca_file: Path | str | None = None
    cert_file: Path | str | None = None
    key_file: Path | str | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together; set both")

    def credentials(self) -> grpc.ChannelCredentials:
        """The credentials of a channel. Raises OSError if a file can't be read, ValueError if it isn't PEM."""
        ca, cert = _certificates(self.ca_file), _certificates(self.cert_file)
        key = None if self.key_file is None else _private_key(self.key_file)
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def _certificates(name: Path | str | None) -> bytes | None:
    """A file of certificates. OpenSSL would say of a bad one only that the handshake failed."""
    if name is None:
        return None
    data = Path(name).read_bytes()
    blocks = [match[0].decode("ascii", "replace") for match in _PEM.finditer(data) if match[1] == b"CERTIFICATE"]
    if not blocks:
        raise ValueError(f"{name} has no certificate in PEM form")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="\n".join(blocks))
    except (ssl.SSLError, ValueError):
        raise ValueError(f"{name} has a certificate that can't be read") from None
    return data


def _private_key(name: Path | str) -> bytes:
    data = Path(name).read_bytes()
    found = next((match for match in _PEM.finditer(data) if match[1].endswith(b"PRIVATE KEY")), None)
    if found is None:
        raise ValueError(f"{name} has no private key in PEM form")
    if found[1].startswith(b"ENCRYPTED") or b"ENCRYPTED" in found[2]:
        raise ValueError(f"the private key in {name} is encrypted, and nobody is asked for its password")
    try:
        base64.b64decode(b"".join(found[2].split()), validate=True)
    except binascii.Error:
        raise ValueError(f"{name} has a private key that can't be read") from None
    return data
