"""A key's secret in a file, read when the server starts and again when the file changes.

Rule: the file has the secret and at most the end of its line; what can't be sent is refused in the same words however
late it is read. Whoever has settings already needs nothing slow for this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.settings.values import LONGEST_SECRET, secret_fault

if TYPE_CHECKING:
    from pathlib import Path


def content_of(path: Path) -> str:
    """What is in the file. Raises OSError; ValueError if it is no path."""
    with path.open("rb") as file:
        content = file.read(LONGEST_SECRET + 3)  # a line's end, and one more to see that it is too long
    # Latin-1 reads any byte; what isn't ASCII is refused as for any other secret.
    return content.decode("latin-1").removesuffix("\n").removesuffix("\r")


def read_secret(path: Path) -> str:
    """The secret in the file now. Raises ValueError, with the path, if what is there can't be sent."""
    try:
        secret = content_of(path)
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from None
    if fault := secret_fault(secret):
        raise ValueError(f"{path} has a secret that {fault}")
    return secret
