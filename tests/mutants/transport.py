"""Broken variants of TLS, on the server and in the client; as in variants.py."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

CERTIFICATES: Final = "apiflux_grpc/server/certificates.py"
OF_CERTIFICATES: Final = ("tests/server/test_certificates.py",)

TRANSPORT: Final = (
    Variant(
        "files that change while they are read count",
        CERTIFICATES,
        "if stamps(self._files) != seen:",
        "if False:",
        OF_CERTIFICATES,
    ),
    Variant(
        "new connections get the certificate of the start",
        CERTIFICATES,
        "if pair is self._handed:",
        "if True:",
        ("tests/server/test_tls.py",),
    ),
    Variant(
        "an authority that is removed leaves its connected clients",
        "apiflux_grpc/server/peers.py",
        "if self._issuers is None and before <= self._authorities:",
        "if self._issuers is None:",
        ("tests/server/test_peers.py::test_more_authorities_end_nothing",),
    ),
    Variant(
        "an authority is known by its name",
        "apiflux_grpc/server/issuers.py",
        "        one.verify_directly_issued_by(issuer)\n",
        "        if one.issuer != issuer.subject:\n            raise ValueError\n",
        ("tests/server/test_peers.py::test_signatures_count_and_not_names",),
    ),
    Variant(
        "plaintext beyond loopback is allowed by the file whatever the environment says",
        "apiflux_grpc/settings/transport.py",
        "server.allow_plaintext if env.APIFLUX_ALLOW_PLAINTEXT is None else env.APIFLUX_ALLOW_PLAINTEXT",
        "server.allow_plaintext or bool(env.APIFLUX_ALLOW_PLAINTEXT)",
        ("tests/settings/test_transport.py",),
    ),
    Variant(
        "a client goes on with the files that it began with",
        "apiflux_grpc/client/roster.py",
        "            server.use(channel, stub)\n",
        "            pass\n",
        ("tests/client/test_tls_files.py::test_new_files_count_for_what_begins",),
    ),
)
