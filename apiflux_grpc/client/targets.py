"""The servers that a client is given: one, several, or all behind one name.

Rule: what is given twice, or can't be a target, is refused before anything is connected.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import grpc

from apiflux_grpc.client.channel import check_target
from apiflux_grpc.client.errors import Unavailable
from apiflux_grpc.core.units import format_address, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_TARGETS: Final = 100
_DNS: Final = "dns:///"


def targets_of(given: str | Sequence[str]) -> list[str]:
    """HOST:PORT of each server, or dns:///NAME:PORT for all that have the name; commas may stand between several.

    Raises ValueError for one that can't be, for the same one twice, and for none or more than MOST_TARGETS.
    """
    parts = [part.strip() for one in ([given] if isinstance(given, str) else given) for part in one.split(",")]
    for part in parts:
        check_target(part.removeprefix(_DNS))
    return _checked(parts)


def _checked(targets: list[str]) -> list[str]:
    if not targets:
        raise ValueError("there must be at least one target")
    seen: set[str] = set()
    for place, target in enumerate(targets):
        if target.lower() in seen:
            raise ValueError(f"the target {target} is there twice; name each server once")
        if place == MOST_TARGETS:
            raise ValueError(f"there can be at most {MOST_TARGETS} targets")
        seen.add(target.lower())
    return targets


def is_name(target: str) -> bool:
    """Whether it stands for all servers whose addresses a name has."""
    return target.startswith(_DNS)


def lookup(name: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    """The addresses that a name has now. Raises OSError."""
    answers = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [(answer[0], str(answer[4][0])) for answer in answers]


def resolved(targets: Iterable[str]) -> list[tuple[str, str]]:
    """(HOST:PORT, the name whose address it is; "": it was given so) of each server; it waits for the names. A name has
    the addresses of one family, IPv4 if there are any, for a server usually has one of each. Raises Unavailable, and
    ValueError."""
    found: dict[str, str] = {}
    for target in targets:
        if not is_name(target):
            found[target] = ""
            continue
        name, port = parse_address(target.removeprefix(_DNS))
        try:
            answers = lookup(name, port)
        except OSError as error:
            message = f"the name {name} has no address: {error.strerror or error}"
            raise Unavailable(message, code=grpc.StatusCode.UNAVAILABLE) from None
        first = min(family for family, _ in answers)  # AF_INET is below AF_INET6
        hosts = sorted({host for family, host in answers if family == first})
        found.update({format_address(host, port): name for host in hosts})
    _checked(list(found))
    return list(found.items())
