"""Administration of the keys of running servers: what AdminService does, for scripts and the command line.

Rule: with several targets each server is asked, one after the other, for each keeps what it was told for itself unless
they share a state_dir. The first that fails ends it, and the error names it; repeating it does no harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from apiflux_grpc.client.errors import error_from
from apiflux_grpc.client.info import Key
from apiflux_grpc.client.servers_sync import SyncServers
from apiflux_grpc.client.token import TokenFile, Tokens
from apiflux_grpc.v1 import admin_pb2 as pb
from apiflux_grpc.v1 import admin_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from apiflux_grpc.client.tls import TlsOptions

TIMEOUT = 30.0  # seconds, of each request


class KeyStanding(NamedTuple):
    """How a key of a server stands."""

    target: str
    pool: str
    key: Key


class Changed(NamedTuple):
    """What pausing or resuming came to at one server: for how many keys it was a change, and whether it stays so when
    the server restarts."""

    target: str
    keys: int
    kept: bool


class Rotated(NamedTuple):
    """What became of the secrets of keys (POOL/LABEL) at one server: they are others now, or the same; they aren't in
    files, so only a restart reads them; or what is in the file can't be used, and the old one goes on."""

    target: str
    changed: tuple[str, ...]
    same: tuple[str, ...]
    fixed: tuple[str, ...]
    failed: tuple[str, ...]


class Admin:
    """Connections to servers, as SyncClient has them. Use it as `with Admin(target) as admin`.

    `pool` "" is every pool, no `keys` are all of them. All raise ApifluxError.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        tls: TlsOptions | None = None,
        token: str | TokenFile | None = None,
        plaintext_token: bool = False,
    ) -> None:
        self._servers = SyncServers(target, (), tls, None, Tokens(token, over_plaintext=plaintext_token))
        self._servers.open()

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        self._servers.close()

    def list(self, keys: Sequence[str] = (), *, pool: str = "") -> Iterator[KeyStanding]:
        """How these keys stand."""
        for target, answer in self._each("ListKeys", pb.ListKeysRequest(pool=pool, keys=keys)):
            for row in answer.keys:
                yield KeyStanding(target, row.pool, Key.of(row.key))

    def pause(self, keys: Sequence[str] = (), *, pool: str = "") -> Iterator[Changed]:
        """No call gets these keys until they are resumed; those in flight go on."""
        for target, answer in self._each("PauseKeys", pb.PauseKeysRequest(pool=pool, keys=keys)):
            yield Changed(target, answer.changed, answer.kept)

    def resume(self, keys: Sequence[str] = (), *, pool: str = "") -> Iterator[Changed]:
        """Calls may get these keys again."""
        for target, answer in self._each("ResumeKeys", pb.ResumeKeysRequest(pool=pool, keys=keys)):
            yield Changed(target, answer.changed, answer.kept)

    def rotate(self, keys: Sequence[str] = (), *, pool: str = "") -> Iterator[Rotated]:
        """Read the secrets of these keys again from their files, now."""
        for target, answer in self._each("RotateKeys", pb.RotateKeysRequest(pool=pool, keys=keys)):
            of = (answer.changed, answer.same, answer.fixed, answer.failed)
            yield Rotated(target, *map(tuple, of))

    def _each(self, method: str, request: Any) -> Iterator[tuple[str, Any]]:
        self._servers.refresh()
        for server in self._servers.all:
            ask: Callable[..., Any] = getattr(admin_pb2_grpc.AdminServiceStub(server.channel), method)
            try:
                yield server.target, ask(request, timeout=TIMEOUT, metadata=self._servers.metadata)
            except grpc.RpcError as error:
                raise error_from(error) from None
