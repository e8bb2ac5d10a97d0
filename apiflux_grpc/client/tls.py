"""TLS to the server, from files.

Rule: a file that can't be used is named before the first connection. OpenSSL would say only that a handshake failed,
and gRPC would try again for ever.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from apiflux_grpc.core.pem import certificates_in, check_key, check_pair

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_EVERY: Final = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """TLS to the server. All files are PEM; each is read when the client is opened, and again when it has changed.

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


class Watch:
    """Whether these files have changed; it looks at most once in LOOK_EVERY seconds. For any thread."""

    def __init__(self, options: TlsOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = [name for name in (options.ca_file, options.cert_file, options.key_file) if name is not None]
        self._lock = threading.Lock()
        self._clock = clock
        self._looked_at = clock()
        self._stamps = self._look()

    def has_changed(self) -> bool:
        """Since the last time that this was asked."""
        now = self._clock()
        with self._lock:
            if now - self._looked_at < LOOK_EVERY:
                return False
            self._looked_at = now
            before, self._stamps = self._stamps, self._look()
            return self._stamps != before

    def _look(self) -> list[tuple[int, ...]]:
        return [_stamp(name) for name in self._files]


def _stamp(name: Path | str) -> tuple[int, ...]:
    """What changes when a file does: it is written, replaced, or what a link leads to is another."""
    try:
        found = os.stat(name)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


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
