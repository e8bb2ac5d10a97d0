"""The certificate that new connections get: as its files have it, for as long as the server serves.

Rules:
- What new connections get is whole: files that can't be used together are as if they weren't there, and the last good
  ones stay. The log says so once for each change, and never what is in a file.
- Files change one after the other. So a change counts once it has been the same for two looks.
- A connection keeps what it was made with; what that means for its peer is known in peers.py.

grpc asks for the certificate of each new connection in a thread of its own: it is told of one that it hasn't yet.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import grpc

from apiflux_grpc.server.tls_files import BadFile, read, stamps

if TYPE_CHECKING:
    from apiflux_grpc.server.tls_files import Pair, TlsFiles

_log = logging.getLogger("apiflux.server")

LOOK_EVERY: Final = 1.0  # seconds
_ANYWHERE: Final = "127.0.0.1:0"


class Certificates:
    """What the files have had that was good."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen = self._tried = stamps(files)  # before they are read: a change meanwhile is one
        self.pair = read(files)
        self._check(self.pair)
        self._handed = self.pair  # to grpc

    def look(self) -> Pair | None:
        """What connections get from now on, if that has changed. It reads files: not for an event loop."""
        seen, self._seen = self._seen, stamps(self._files)
        if self._seen == self._tried or self._seen != seen:
            return None
        self._tried = seen
        fault: BadFile | None = None
        try:
            pair = read(self._files)
            self._check(pair)
        except BadFile as error:
            fault = error
        if stamps(self._files) != seen:
            return None  # it may be half of each: the next look reads them again
        if fault is not None:
            _log.warning("TLS files can't be used", extra={"why": str(fault)})
            return None
        self.pair = pair
        _log.info("TLS files changed")
        return pair

    def credentials(self) -> grpc.ServerCredentials:
        """Of a port, which follows the files."""
        news: Any = self._news  # its stub doesn't know that None is an answer
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self.pair), news, require_client_authentication=bool(self.pair.client_ca)
        )

    def _news(self) -> grpc.ServerCertificateConfiguration | None:
        """For grpc, which has one thread at a time ask; only it writes what was handed over."""
        pair = self.pair
        if pair is self._handed:
            return None
        self._handed = pair
        return _configuration(pair)

    def _check(self, pair: Pair) -> None:
        """grpc has a TLS of its own, which is stricter here and there. Raises BadFile if it doesn't take the pair."""
        server = grpc.server(ThreadPoolExecutor(1))
        try:
            server.add_insecure_port(_ANYWHERE)
        except RuntimeError:
            return  # nothing can listen there, which says nothing of the files
        credentials = grpc.ssl_server_credentials(
            [(pair.key, pair.chain)], b"\n".join(pair.client_ca) or None, require_client_auth=bool(pair.client_ca)
        )
        try:
            server.add_secure_port(_ANYWHERE, credentials)
        except RuntimeError:
            what = "or its key is of a kind that gRPC doesn't take"
            raise BadFile("cert_file", self._files.cert_file, what) from None
        finally:
            server.start()  # else nothing would close its sockets
            server.stop(None).wait()


def _configuration(pair: Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], b"\n".join(pair.client_ca) or None)
