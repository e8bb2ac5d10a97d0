"""The operations port: where it listens, and what this server is called there.

Rule: there is none unless `ops_bind` asks for it. What holds for gRPC's port beyond this machine holds for it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.settings.transport import is_plaintext
from apiflux_grpc.settings.types import OpsSettings

if TYPE_CHECKING:
    from apiflux_grpc.settings.sources import Sources
    from apiflux_grpc.settings.transport import Transport


def ops_of(sources: Sources, transport: Transport, allow_plaintext: bool) -> OpsSettings | None:
    """The port that the file asks for, beside gRPC's; `allow_plaintext` is the flag."""
    server, findings = sources.file.server, sources.findings
    place = sources.toml_place("server", "ops_bind")
    if server.ops_bind is None:
        if server.ops_hosts is not None:
            findings.fault(sources.toml_place("server", "ops_hosts"), "needs `ops_bind`; set it, or remove this", place)
        return None
    host, port = server.ops_bind
    if port and port == transport.port:
        findings.fault(place, f"has gRPC's port, {port}; choose another", sources.toml_place("server", "bind"))
    if is_plaintext(sources, place, host, allow_plaintext):
        findings.warn(place, f"listens on {host} without TLS: who can listen in reads what is sent to it, tokens too")
    return OpsSettings(host, port, frozenset(filter(None, server.ops_hosts or [])))
