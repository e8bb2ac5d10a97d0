"""How a client reaches its server: the target, the channel's options.

Rule: both clients open their channel by this one description, so they can't differ; a secret goes into the
credentials, and never into a repr or a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from apiflux_grpc.core.units import parse_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from apiflux_grpc.client.tls import TlsOptions

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


LONGEST: Final = 1e9  # seconds of a timeout, some 30 years: gRPC counts in nanoseconds


def check_target(target: str) -> str:
    """HOST:PORT, as it is. Raises ValueError saying what else it is; gRPC would guess."""
    try:
        parse_address(target, least_port=1)
    except ValueError as error:
        raise ValueError(f"the target {target[:100]!r} {error}") from None
    return target


def check_timeout(timeout: float | None) -> float | None:
    """A timeout in seconds that gRPC can keep, as it is; None: none. Raises ValueError.

    gRPC turns one that is too long, or no number, into a deadline that has passed already.
    """
    if timeout is not None and not -LONGEST <= timeout <= LONGEST:
        raise ValueError(f"a timeout is at most {LONGEST:.0f} seconds, not {timeout:g}")
    return timeout


class Route:
    """The way to one server, as both clients open it. Its repr has no secret."""

    def __init__(
        self,
        target: str,
        options: Options,
        tls: TlsOptions | None,
        credentials: grpc.ChannelCredentials | None,
    ) -> None:
        if tls is not None and credentials is not None:
            raise ValueError("tls conflicts with credentials; set one of them")
        self.target = check_target(target)
        self.options = [*CHANNEL_OPTIONS, *options]
        if tls is not None and tls.server_name:
            self.options.append(("grpc.ssl_target_name_override", tls.server_name))
        self._tls = tls
        self._credentials = credentials

    def credentials(self) -> grpc.ChannelCredentials | None:
        """None: without TLS. Raises as TlsOptions.credentials."""
        return self._credentials if self._tls is None else self._tls.credentials()

    def __repr__(self) -> str:
        return f"<Route to {self.target}>"
