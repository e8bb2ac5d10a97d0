"""What one value may be: each function reads one and returns it as the program uses it.

Rule: a function raises ValueError saying what the value must be, without repeating it. Nothing here needs a second
field, a file or a variable.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

from apiflux_grpc.core.call import SENDER_HEADERS
from apiflux_grpc.core.callers import Rate, parse_digest
from apiflux_grpc.core.checks import is_sendable
from apiflux_grpc.core.claims import ALGORITHMS
from apiflux_grpc.core.units import (
    LONGEST,
    format_duration,
    is_host,
    is_loopback,
    parse_address,
    parse_duration,
)

if TYPE_CHECKING:
    from collections.abc import Callable


NAME_RULE: Final = "must be 1 to 64 of A-Z, a-z, 0-9, dot, underscore and hyphen"
LONGEST_SECRET: Final = 8192  # characters

is_name: Final = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*").fullmatch
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,128}").fullmatch  # RFC 9110, section 5.6.2
_PARAMETER: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}").fullmatch
_PATH: Final = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@/%]*").fullmatch
_STATUS: Final = re.compile(r"([1-5])xx|([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?").fullmatch
_SWITCH: Final = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(("false", "0", "no", "off"), False)


def duration(low: int, high: int = LONGEST) -> Callable[[object], int]:
    """A reader of durations from `low` to `high` (ns)."""

    def read_duration(value: object) -> int:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError('needs a unit: write a string such as "60s" or "250ms"')
        if not isinstance(value, str):
            raise ValueError('must be a string such as "60s" or "250ms"')
        length = parse_duration(value)
        if not low <= length <= high:
            least = "above 0" if low == 1 else f"at least {format_duration(low)}"
            raise ValueError(f"must be {least}" if length < low else f"must be at most {format_duration(high)}")
        return length

    return read_duration


def latency(value: object) -> tuple[int, int]:
    """Two durations, the shorter one first."""
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError('must be two durations, such as ["10ms", "50ms"]')
    low, high = map(duration(0), value)
    if low > high:
        raise ValueError("must have the shorter duration first")
    return low, high


def bind(value: object) -> tuple[str, int]:
    """Where to listen."""
    if not isinstance(value, str):
        raise ValueError('must be HOST:PORT, a string such as "127.0.0.1:50051" or "[::1]:50051"')
    return parse_address(value)


def host(text: str) -> str:
    """A name or an address of this server, in lower case."""
    if not is_host(text):
        raise ValueError("must be a name or an address, without a port")
    return text.lower()


def status_range(value: object) -> tuple[int, int]:
    """`2xx`, `404` or `200-299` as the first and the last status."""
    match = _STATUS(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('must be a string such as "2xx", "404" or "200-299"')
    if match[1]:
        return int(match[1]) * 100, int(match[1]) * 100 + 99
    low, high = int(match[2]), int(match[3] or match[2])
    if low > high:
        raise ValueError("must have the lower status first")
    return low, high


def _url(text: str) -> SplitResult:
    """What base_url and egress_proxy have in common."""
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError("must be a URL, without spaces and in ASCII")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("must be a URL with a valid host and port") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    if "?" in text or "#" in text:
        raise ValueError("must not have a query or a fragment")
    if port == 0 or parts.netloc.endswith(":") or not is_host(parts.hostname or ""):
        raise ValueError("must name a host, and a port from 1 to 65535 if any")
    return parts


def base_url(text: str) -> str:
    """Scheme, host and path of an upstream, without a slash at the end."""
    parts = _url(text)
    if "@" in parts.netloc:
        raise ValueError("must not have user info; secrets belong in `keys`")
    path = parts.path
    if path and (not _PATH(path) or "//" in path or {".", ".."} & set(path.split("/"))):
        raise ValueError('must have a path without "//", "." and "..", and with other characters percent-encoded')
    if re.search(r"%(?![0-9A-Fa-f]{2})", path):
        raise ValueError('must have two hexadecimal digits after each "%"')
    return f"{parts.scheme}://{parts.netloc}{path.rstrip('/')}"


def proxy_url(text: str) -> str:
    """Where a proxy is; it may have user info."""
    if _url(text).path not in ("", "/"):
        raise ValueError("must not have a path")
    return text


def name(text: str) -> str:
    """A label."""
    if not is_name(text):
        raise ValueError(NAME_RULE)
    return text


def variable(text: str) -> str:
    """The name of an environment variable."""
    if not _VARIABLE(text):
        raise ValueError("must be the name of an environment variable")
    return text


def answer_header(text: str) -> str:
    """The name of a header of an answer."""
    if not _TOKEN(text):
        raise ValueError("must be the name of a header")
    return text


def request_header(text: str) -> str:
    """The name of a header that the key may go into."""
    answer_header(text)
    if text.lower() in SENDER_HEADERS:
        raise ValueError("must be another header, because the service sets this one itself")
    return text


def json_path(text: str) -> str:
    """Names joined by dots."""
    if len(text) > 256 or not all(text.split(".")):
        raise ValueError('must be names joined by dots, such as "usage.total_tokens"')
    return text


def prefix(text: str) -> str:
    """What goes before a key in its header."""
    if not _PRINTABLE(text) or text.startswith(" "):
        raise ValueError("must be printable ASCII that doesn't begin with a space")
    return text


def parameter(text: str) -> str:
    """The name of a query parameter."""
    if not _PARAMETER(text):
        raise ValueError("must be the name of a query parameter: A-Z, a-z, 0-9, dot, underscore, tilde and hyphen")
    return text


def token_digest(text: str) -> bytes:
    """What is kept of a token."""
    return parse_digest(text)


def identity(text: str) -> str:
    """A name in a certificate."""
    if not text.isprintable() or not 3 <= len(text) <= 1024 or ("://" not in text and "=" not in text):
        raise ValueError('must be a URI or a subject of a certificate, such as "spiffe://a.org/b" or "CN=team-a"')
    return text


def claim(text: str) -> str:
    """The name of a claim, or what it must say."""
    if not text or len(text) > 1024 or not text.isprintable():
        raise ValueError("must be text of 1 to 1024 printable characters")
    return text


def algorithm(text: str) -> str:
    """How an issuer signs."""
    if text not in ALGORITHMS:
        raise ValueError(f"must be one of {', '.join(ALGORITHMS)}")
    return text


def keys_url(text: str) -> str:
    """Where an issuer's keys are."""
    parts = urlsplit(text) if re.fullmatch(r"[\x21-\x7e]{1,2048}", text) else urlsplit("")
    try:
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not is_host(host) or "@" in parts.netloc or parts.fragment:
        raise ValueError("must be a URL with a valid host, and without user info or a fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError("must begin with https://, or whoever is on the way could say who calls")
    return text


def rate(value: object) -> Rate:
    """`100/1s`: so many calls in such a time."""
    most, _, per = value.partition("/") if isinstance(value, str) else ("", "", "")
    if not re.fullmatch(r"[1-9][0-9]{0,11}", most) or not per:
        raise ValueError('must be calls per time, a string such as "100/1s"')
    return Rate(int(most), duration(1)(per))


def path_prefix(text: str) -> str:
    """The beginning of a path."""
    if not _PATH(text):
        raise ValueError('must begin with "/" and have only characters of a path')
    return text


def method(text: str) -> str:
    """A method that a call may have."""
    if not is_sendable(text):
        raise ValueError('must be a method that can be sent, in capitals, such as "POST"')
    return text


def directory(text: str) -> str:
    """The path of a directory; "": none."""
    if not text.isprintable():
        raise ValueError("must be a path without control characters")
    return text


def all_or_some(value: object) -> object:
    """A list of tables; `true` is one that says nothing more, `false` none."""
    if isinstance(value, bool):
        return [{}] if value else []
    if not isinstance(value, list):
        raise ValueError("must be true, false or a list of tables")
    return value


def one_or_many(value: object) -> object:
    """A list of tables; a table alone is a list of one."""
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, list):
        raise ValueError("must be a table, or a list of tables")
    return value


def number(text: str) -> int:
    """A whole number in a variable."""
    if not re.fullmatch(r"-?[0-9]{1,18}", text.strip()):
        raise ValueError("must be a whole number")
    return int(text)


def switch(text: str) -> bool:
    """True or false in a variable."""
    try:
        return _SWITCH[text.strip().lower()]
    except KeyError:
        raise ValueError("must be true or false (or 1, 0, yes, no, on, off)") from None


def secret_fault(secret: str) -> str | None:
    """Why this can't be sent as a key."""
    if not secret:
        return "is empty"
    if len(secret) > LONGEST_SECRET:
        return f"is longer than {LONGEST_SECRET} characters"
    if not _PRINTABLE(secret):
        return "has a control character or one outside ASCII, which a header can't carry"
    if secret != secret.strip(" "):
        return "begins or ends with a space"
    return None
