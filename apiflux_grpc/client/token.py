"""The token that says who calls.

Rule: it goes into the metadata of requests, and never into a repr or a message. It doesn't go over plaintext to another
machine, where whoever is on the way could read it and call as its owner, unless that is asked for by name.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.units import is_loopback, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable

_log: Final = logging.getLogger("apiflux_grpc.client")
_LARGEST: Final = 1 << 16  # bytes of a file


def check_token(token: str) -> str:
    """What can be sent as a token, as it is. Raises ValueError, without telling it."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token must be printable ASCII without spaces")
    return token


class TokenFile:
    """A file with the token, which is read again when it has changed: so a token can be replaced while a program runs.

    Raises OSError if it can't be read, and ValueError if what is in it can't be a token. Later it goes on with the one
    that it has.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._seen = _stamp(os.stat(self._path))
        self._token = self._read()

    def current(self) -> str:
        """The token, as the file has it now."""
        try:
            stamp = _stamp(os.stat(self._path))
            if stamp != self._seen:
                self._token = self._read()
                self._seen = stamp
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            _log.warning("the token file %s has changed and can't be used (%s); the last one goes on", self._path, why)
        return self._token

    def _read(self) -> str:
        with self._path.open("rb") as file:
            content = file.read(_LARGEST)
        try:
            return check_token(content.decode("ascii", "replace").strip())
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}") from None

    def __repr__(self) -> str:
        return f"TokenFile({str(self._path)!r})"


class Tokens:
    """What a client sends with its requests. `token` None: nothing. Raises ValueError for what can't be sent."""

    def __init__(self, token: str | TokenFile | None, *, over_plaintext: bool = False) -> None:
        self._token = check_token(token) if isinstance(token, str) else token
        self._over_plaintext = over_plaintext

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of a request that begins now."""
        token = self._token.current() if isinstance(self._token, TokenFile) else self._token
        return () if token is None else (("authorization", f"Bearer {token}"),)

    def check_plaintext(self, hosts: Iterable[str]) -> None:
        """Raises ValueError if a token would go to one of these, HOST:PORT each, without TLS."""
        if self._token is None or self._over_plaintext:
            return
        for host in hosts:
            if not is_loopback(parse_address(host)[0]):
                raise ValueError(
                    f"without TLS the token could be read on its way to {host}; use TLS, or allow a plaintext token if "
                    "nobody else is on that way"
                )

    def __repr__(self) -> str:
        return "<no token>" if self._token is None else "<a token>"


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
