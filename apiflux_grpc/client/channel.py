"""How a client reaches its server: channel options, TLS, the token.

Rule: both clients open their channel by this one description, so they can't differ; a secret goes into the metadata or
the credentials, and never into a repr or a message.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

    Options = Sequence[tuple[str, Any]]

CHANNEL_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    # The service runs beside its callers; a web proxy from the environment is not on the way.
    ("grpc.enable_http_proxy", 0),
    # A server that is gone without a word is noticed in 40 s; one that comes back is found in 5.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """TLS to the server. All files are PEM; each is read when the client is opened.

    `ca_file` says whom to trust (None: the well-known authorities that come with grpc). `cert_file` and `key_file` are
    the client's own certificate, for servers that ask for one. `server_name` is the name the server's certificate must
    have, where it isn't that of the target. Raises ValueError where one of the two files of a certificate is missing.
    """

    ca_file: Path | str | None = None
    cert_file: Path | str | None = None
    key_file: Path | str | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: one of the two is missing")

    def credentials(self) -> grpc.ChannelCredentials:
        """The credentials of a channel. Raises OSError where a file can't be read."""
        ca, cert, key = (
            None if name is None else Path(name).read_bytes() for name in (self.ca_file, self.cert_file, self.key_file)
        )
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


class Route:
    """The way to one server, as both clients open it. Its repr has no secret."""

    def __init__(
        self,
        target: str,
        options: Options,
        tls: TlsOptions | None,
        credentials: grpc.ChannelCredentials | None,
        token: str | None,
    ) -> None:
        if tls is not None and credentials is not None:
            raise ValueError("tls and credentials exclude each other")
        if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
            raise ValueError("the token must be printable ASCII without spaces")
        self.target = target
        self.options = [*CHANNEL_OPTIONS, *options]
        if tls is not None and tls.server_name:
            self.options.append(("grpc.ssl_target_name_override", tls.server_name))
        self._tls = tls
        self._credentials = credentials
        self.metadata: tuple[tuple[str, str], ...] = ()
        if token is not None:
            self.metadata = (("authorization", f"Bearer {token}"),)

    def credentials(self) -> grpc.ChannelCredentials | None:
        """None: without TLS. Raises OSError where a file of TlsOptions can't be read."""
        return self._credentials if self._tls is None else self._tls.credentials()

    def __repr__(self) -> str:
        return f"<Route to {self.target}>"
