"""The `url` of a line as the path of a call below its pool's base URL.

Rules
- What base URL and `url` have in common is counted once: the last segments of the one, if they are the first of the
  other. So `/v1/chat/completions` is the same call with the base https://api.openai.com and with that base and `/v1`.
- A whole URL has to begin with the base URL. What leads elsewhere is refused, and so is a second version (`/v1beta`
  and `/v1`), since no upstream has both.
- Nothing is decoded and made anew but the query, which a call has as names and values.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, unquote_plus

_WHOLE: Final = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.\-]*):)?//([^/?#]*)")
_VERSION: Final = re.compile(r"v[0-9]+[a-z0-9]*")
_PORTS: Final = {"http": ":80", "https": ":443"}


class BaseUrl:
    """The base URL of a pool; "" is that of the simulator, which takes any path."""

    def __init__(self, url: str) -> None:
        self._url = url
        whole = _WHOLE.match(url)
        self._origin = _origin(whole)
        self._segments = _segments(url[whole.end() :] if whole else url)

    def path_of(self, url: str) -> tuple[str, tuple[tuple[str, str], ...]]:
        """The path that follows the base, and the query. Raises ValueError if `url` doesn't lead below the base."""
        rest, mark, query = url.partition("?")
        if not rest:
            raise ValueError("url is empty; write /v1/chat/completions, or the like")
        if "#" in url:
            raise ValueError("url has a fragment (#); leave it out")
        whole = _WHOLE.match(rest)
        segments = _segments(rest[whole.end() :] if whole else rest)
        if any(unquote(segment) in (".", "..") for segment in segments):
            raise ValueError('url has a "." or ".." segment; give the path that it leads to')
        if whole is None:
            segments = self._below(segments)
        elif self._url:
            count = len(self._segments)
            if _origin(whole) != self._origin or segments[:count] != self._segments:
                raise ValueError(f"url leaves the pool's base URL {self._url}; write the part that follows it")
            segments = segments[count:]
        return f"/{'/'.join(segments)}", _pairs(query) if mark else ()

    def _below(self, segments: list[str]) -> list[str]:
        base = self._segments
        for count in range(min(len(base), len(segments)), 0, -1):
            if base[-count:] == segments[:count]:
                return segments[count:]
        if segments and _VERSION.fullmatch(segments[0]) and any(map(_VERSION.fullmatch, base)):
            raise ValueError(
                f"url begins with /{segments[0]}, which is not the version in the pool's base URL {self._url}; "
                f"write /{'/'.join(segments[1:])}"
            )
        return segments


def _origin(whole: re.Match[str] | None) -> tuple[str, str]:
    """Scheme and authority, so that two ways to write the same are equal."""
    if whole is None:
        return "", ""
    scheme, authority = (whole[1] or "").lower(), whole[2].lower()
    return scheme, authority.removesuffix(_PORTS.get(scheme, ""))


def _segments(path: str) -> list[str]:
    return path.removeprefix("/").split("/") if path not in ("", "/") else []


def _pairs(query: str) -> tuple[tuple[str, str], ...]:
    """Raises ValueError for what can't be read without a guess."""
    pairs = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if not name:
            raise ValueError("url has a parameter without a name; leave it out")
        try:
            pairs.append((unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")))
        except UnicodeDecodeError:
            raise ValueError("url has a parameter that is not UTF-8") from None
    return tuple(pairs)
