"""Quantities in words: a duration, a limit, a HOST:PORT. One parser and one printer of each, for the whole tree.

Rule: what a printer writes of a duration or an address its parser reads back exactly, and nothing is guessed or
rounded, but by `spoken`, which nothing reads back. A parser's ValueError says what the text must be and never repeats
it, since anything typed in the wrong place may be a secret: the caller puts the name of the option, or the text where
it may be shown, in front.

Inside the service every instant and length of time is an integer of nanoseconds, so that sums are exact.

Pure, and it imports nothing of ours: the judge, which must not share a fault with what it judges, and the client,
which must not need the server, may import this module and nothing else of the core.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Final, Literal, NamedTuple

MICROSECOND: Final = 1_000
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000

LONGEST: Final = 366 * 24 * 3600 * SECOND  # of a duration: instants stay far below the core's "never"
MOST: Final = 10**12  # of anything that is counted

_UNITS: Final = {
    "h": 3600 * SECOND,
    "m": 60 * SECOND,
    "s": SECOND,
    "ms": MILLISECOND,
    "us": MICROSECOND,
    "ns": 1,
}
_DURATION: Final = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,18}))?(ns|us|ms|s|m|h)").fullmatch
_LIMIT: Final = re.compile(r"([0-9]{1,18})/([^:]*)(:cost)?").fullmatch
_HOST_LABEL: Final = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"  # RFC 1123, and the underscore that container names have
_HOST: Final = re.compile(rf"(?=.{{1,253}}\Z){_HOST_LABEL}(\.{_HOST_LABEL})*\.?").fullmatch
_PORT: Final = re.compile(r"[0-9]{1,5}").fullmatch


def parse_duration(text: str) -> int:
    """`250ms`, `1.5s`, `2m`, `1h`, `100us` or `5ns` in nanoseconds, exactly. Raises ValueError."""
    match = _DURATION(text)
    if match is None:
        raise ValueError('must be a number and one of h, m, s, ms, us, ns, such as "250ms" or "1.5s"')
    whole, fraction, unit = match[1], match[2] or "", match[3]
    scale: int = 10 ** len(fraction)
    length, rest = divmod(int(whole + fraction) * _UNITS[unit], scale)
    if rest:
        raise ValueError("is finer than a nanosecond")
    if length > LONGEST:
        raise ValueError("is longer than 366 days")
    return length


def format_duration(ns: int) -> str:
    """A length of time in the largest unit up to seconds that needs no fraction: `60s`, `1500ms`."""
    for unit in ("s", "ms", "us"):
        if ns % _UNITS[unit] == 0:
            return f"{ns // _UNITS[unit]}{unit}"
    return f"{ns}ns"


def spoken(ns: int) -> str:
    """A length of time as people say it: `12.3 s`, `3 min 20 s`, `2 h 3 min`."""
    seconds = ns / SECOND
    if seconds < 1:
        return f"{ns / MILLISECOND:.{0 if ns >= 10 * MILLISECOND else 1}f} ms"
    if seconds < 120:
        return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"
    whole = round(seconds)
    big, small, size, unit = ("min", "s", 60, 1)
    if whole >= 86400:
        big, small, size, unit = ("d", "h", 86400, 3600)
    elif whole >= 3600:
        big, small, size, unit = ("h", "min", 3600, 60)
    return f"{whole // size} {big} {whole % size // unit} {small}"


def counted(number: int, one: str, many: str = "") -> str:
    """`1 call`, `2,500 calls`; `many` is the plural if it isn't `one` with an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


class LimitWords(NamedTuple):
    """A limit as it was written: at most `max` in `per` ns, counted in calls or in their cost."""

    max: int
    per: int
    counts: Literal["calls", "cost"] = "calls"


def parse_limit(text: str) -> LimitWords:
    """`1000/60s`, or `200000/60s:cost` for a limit that counts cost. Raises ValueError."""
    match = _LIMIT(text)
    if match is None:
        raise ValueError("must be MAX/DURATION, such as 1000/60s")
    try:
        most, per = int(match[1]), parse_duration(match[2])
    except ValueError as error:
        raise ValueError(f"must be MAX/DURATION, such as 1000/60s; the duration {error}") from None
    if not 1 <= most <= MOST or per < 1:
        raise ValueError(f"must be at least 1 and at most {MOST} in a time above 0")
    return LimitWords(most, per, "cost" if match[3] else "calls")


def format_limit(most: int, per: int, counts: str) -> str:
    """`1000 calls per 60s`, or `200000 cost per 60s`, as people say it."""
    return f"{most} {counts} per {format_duration(per)}"


def parse_address(text: str, least_port: int = 0) -> tuple[str, int]:
    """`127.0.0.1:50051`, `name:443` or `[::1]:50051` as host (without brackets) and port. Raises ValueError.

    `least_port` is 1 for an address to connect to; one to listen on may have port 0, for any that is free.
    """
    if "://" in text:
        raise ValueError("is a URL; write HOST:PORT")
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError("has no port; write HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051")
    if not _PORT(port) or not least_port <= int(port) <= 65535:
        raise ValueError(f"must be HOST:PORT, with a port from {least_port} to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        known = _is_ipv6(host)
    elif _is_ipv6(host):
        raise ValueError("must be HOST:PORT, with an IPv6 address in brackets, such as [::1]:50051")
    else:
        known = _HOST(host) is not None
    if not known:
        raise ValueError("must be HOST:PORT; the host is neither a name nor an address")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_host(text: str) -> bool:
    """Whether this is a host name or an IP address, without brackets."""
    return _HOST(text) is not None or _is_ipv6(text)


def _is_ipv6(text: str) -> bool:
    """Whether this is an IPv6 address, without brackets."""
    try:
        return bool(IPv6Address(text))
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that host."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
