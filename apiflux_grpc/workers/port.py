"""The port of all workers, held by a socket that never listens.

Rule: whoever starts second fails. The socket is bound alone, which fails as long as anybody else has the port, and only
then lets others in (SO_REUSEPORT): the workers. The kernel shares connections among those that listen.

What can't be kept out is another program of the same user that asks for SO_REUSEPORT itself, and comes later; without
workers nobody can join.
"""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

TRIES: Final = 20  # for a port that is free at all addresses of a name


class Port:
    """The port, as long as the `with` block lasts. `number` is the one that was picked if 0 was asked for.

    Raises OSError: it is taken, or the host isn't here.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self.number = port
        self._sockets = ExitStack()

    def __enter__(self) -> Self:
        asked = self.number
        for attempt in range(TRIES):
            with ExitStack() as sockets:
                try:
                    self.number = self._hold(sockets, asked)
                except OSError as error:
                    if asked or error.errno != errno.EADDRINUSE or attempt + 1 == TRIES:
                        raise
                    continue
                self._sockets = sockets.pop_all()
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sockets.close()

    def _hold(self, sockets: ExitStack, port: int) -> int:
        held = []
        for family, address in _addresses(self._host):
            one = sockets.enter_context(socket.socket(family, socket.SOCK_STREAM))
            if family == socket.AF_INET6:
                # gRPC takes either wildcard for that of both families.
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
            try:
                port = _bind(one, (address[0], port, *address[2:]))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:  # a name may have an address of a family that isn't here
                    raise
                missing = error
            else:
                held.append(one)
        if not held:
            raise missing
        for one in held:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return port


def _addresses(host: str) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    if host in ("0.0.0.0", "::") and socket.has_dualstack_ipv6():
        return [(socket.AF_INET6, ("::", 0))]
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [(family, address) for family, _, _, _, address in found]


def _bind(one: socket.socket, address: tuple[Any, ...]) -> int:
    """The port that it has then."""
    try:
        one.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        # Connections of an earlier server may not be over yet (TIME_WAIT); like this only a listener is in the way.
        # Not at once, for two who don't listen yet could share it.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(address)
    number: int = one.getsockname()[1]
    return number
