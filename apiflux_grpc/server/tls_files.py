"""The files of the server's TLS: what is in them, whether it can be used, and whether it has changed.

Rule: all files are read and judged together, and a fault names the one to look at, but nothing that is in it. Settings
are judged by this too; so grpc, which is slow to import, isn't needed here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from apiflux_grpc.core.pem import certificates_in, check_key, check_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. `client_ca_file`: clients must show a certificate that one of these authorities issued."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


class BadFile(Exception):
    """The file of this setting can't be used: `what` fits after its path, and the text names the setting."""

    def __init__(self, name: str, path: Path, what: str) -> None:
        self.name = name
        self.path = path
        self.what = what
        super().__init__(f"server.tls.{name} ({path}) {what}")


@dataclass(frozen=True, slots=True)
class Pair:
    """What connections are made with: PEM. The file of a certificate may have its key in it too."""

    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    client_ca: tuple[bytes, ...] = ()


def read(files: TlsFiles) -> Pair:
    """What is in the files now. Raises BadFile."""
    chain = _read("cert_file", files.cert_file, certificates_in)
    key = _read("key_file", files.key_file, check_key)
    try:
        check_pair(str(files.cert_file), str(files.key_file))
    except OSError as error:
        raise BadFile("key_file", files.key_file, f"can't be read: {error.strerror}") from None
    except ValueError as error:
        raise BadFile("key_file", files.key_file, str(error)) from None
    client_ca: tuple[bytes, ...] = ()
    if files.client_ca_file is not None:
        client_ca = tuple(certificates_in(_read("client_ca_file", files.client_ca_file, certificates_in)))
        _check_issuers(files.client_ca_file, client_ca)
    return Pair(chain, key, client_ca)


def _read(name: str, path: Path, check: Callable[[bytes], object]) -> bytes:
    try:
        data = path.read_bytes()
        check(data)
    except OSError as error:
        raise BadFile(name, path, f"can't be read: {error.strerror}") from None
    except ValueError as error:
        raise BadFile(name, path, str(error)) from None
    return data


def _check_issuers(path: Path, client_ca: tuple[bytes, ...]) -> None:
    """Once one of them is removed, peers are checked against the others: what that takes must be there."""
    from apiflux_grpc.server.issuers import Issuers

    try:
        Issuers(client_ca)
    except ImportError:
        raise BadFile("client_ca_file", path, "needs cryptography: pip install 'apiflux-grpc[mtls]'") from None
    except ValueError:
        raise BadFile("client_ca_file", path, "has a certificate that can't be read") from None


class Stamp(NamedTuple):
    """What changes when a file does: it is written, replaced, or what a link leads to is another."""

    device: int
    number: int
    size: int
    modified: int
    changed: int


def stamps(files: TlsFiles) -> tuple[Stamp | None, ...]:
    """Of each file; None: there is none."""
    return tuple(stamp_of(path) for path in (files.cert_file, files.key_file, files.client_ca_file) if path is not None)


def stamp_of(path: Path) -> Stamp | None:
    """Of a file; None: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
