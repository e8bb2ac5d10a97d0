"""Which requests are from where they should be: no page of another site may use this port through its reader's browser.

Rule: a browser says where a request comes from, and to which name it was sent. A page whose own name was pointed at
this machine (DNS rebinding) sends that name as its Host, so a Host must be a name that is ours: those of the loopback,
those that the configuration has, or the very address that the connection came in at. A page of another site sends its
Origin, or Sec-Fetch-Site. What isn't a browser sends neither, and is let in. No answer ever has a CORS header.

Pure: headers in, a refusal out.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from apiflux_grpc.ops.problems import HttpRefused

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::[0-9]{1,5})?").fullmatch
_OWN_SITE: Final = ("same-origin", "none")  # none: somebody typed the address


def check_host(hosts: Sequence[str], names: Collection[str], local: str) -> None:
    """Raises HttpRefused unless there is one Host header, and it is ours.

    `names` are in lower case; `local` is the address at which the connection came in.
    """
    if len(hosts) != 1 or (found := _AUTHORITY(hosts[0])) is None:
        raise HttpRefused(
            HTTPStatus.BAD_REQUEST, "BAD_HOST", "send one Host header, with this server's name", closes=True
        )
    host = (found[1] or found[2]).lower().removesuffix(".")
    if host not in LOOPBACK and host not in names and not _is_address(host, local):
        text = f"this server isn't called {host[:64]!r}; add it to `ops_hosts` if it is"
        raise HttpRefused(HTTPStatus.MISDIRECTED_REQUEST, "BAD_HOST", text, closes=True)


def check_site(origins: Sequence[str], sites: Sequence[str], own: str) -> None:
    """Raises HttpRefused if the request is a page's that isn't ours. `own` is our origin: `http://HOST:PORT`."""
    if any(origin.lower() != own.lower() for origin in origins) or any(site not in _OWN_SITE for site in sites):
        text = "this is a page of another site; send requests from a program, or from this server's own pages"
        raise HttpRefused(HTTPStatus.FORBIDDEN, "CROSS_SITE", text, closes=True)


def _is_address(host: str, local: str) -> bool:
    """An address can't be rebound; but one that isn't ours is that of a proxy, or a mistake."""
    try:
        return plain(host) == plain(local)
    except ValueError:
        return False


def plain(address: str) -> str:
    """An address in its usual form; of IPv4, be it written as IPv6. Raises ValueError."""
    known = ip_address(address.partition("%")[0])
    if isinstance(known, IPv6Address) and known.ipv4_mapped is not None:
        known = known.ipv4_mapped
    return str(known)
