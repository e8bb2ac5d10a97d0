"""TLS to the server, from files.

Rule: a file that can't be used is named before the first connection. OpenSSL would say only that a handshake failed,
and gRPC would try again for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from apiflux_grpc.core.pem import certificates_in, check_key, check_pair

if TYPE_CHECKING:
    from collections.abc import Callable


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
        ca, cert = _read(self.ca_file, certificates_in), _read(self.cert_file, certificates_in)
        key = _read(self.key_file, check_key)
        if self.cert_file is not None and self.key_file is not None:
            try:
                check_pair(str(self.cert_file), str(self.key_file))
            except ValueError as error:
                raise ValueError(f"{self.key_file} {error}") from None
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def _read(name: Path | str | None, check: Callable[[bytes], object]) -> bytes | None:
    """What is in that file, checked; None: no file."""
    if name is None:
        return None
    data = Path(name).read_bytes()
    try:
        check(data)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
    return data
