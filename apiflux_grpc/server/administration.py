"""What an operator does to keys while the server works: pause, resume, give another secret.

Rules:
- Who is paused is written down before it's done, so what was answered holds over a restart; and looked at each second,
  so that it holds for every process with the same state_dir. Without one it is known here alone.
- A secret comes only from the file that the configuration names for its key. It counts once the file has been the same
  for two looks, and what can't be sent changes nothing: the key goes on with the old one, and the log says so once for
  each change of the file. No secret is in any log, error or repr.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from apiflux_grpc.core.callers import EVERYTHING, narrowed
from apiflux_grpc.core.errors import KeyNotFound, NotKept, PoolNotFound
from apiflux_grpc.server.paused import PausedFile, PausedFileError
from apiflux_grpc.server.tls_files import stamp_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from apiflux_grpc.core.callers import Access
    from apiflux_grpc.engine.engine import Engine
    from apiflux_grpc.server.paused import Place
    from apiflux_grpc.server.tls_files import Stamp

_log = logging.getLogger("apiflux.admin")

LOOK_EVERY: Final = 1.0  # seconds


class SecretFile(NamedTuple):
    """Where the secret of a key is. `read` returns it, or raises ValueError that says what is wrong with it."""

    path: Path
    read: Callable[[], str]


class Rotation(NamedTuple):
    """Keys by what became of them."""

    changed: list[Place]
    same: list[Place]
    fixed: list[Place]  # their secret isn't in a file
    failed: list[Place]


class _Watched:
    """The file of one secret, as it was seen last, and when it was read last."""

    def __init__(self, file: SecretFile, secret: str) -> None:
        self.file = file
        self.secret = secret
        self.seen: Stamp | None = stamp_of(file.path)
        self.tried = self.seen

    def is_news(self) -> bool:
        """Whether it has changed, and was the same at the last look."""
        before, self.seen = self.seen, stamp_of(self.file.path)
        return self.seen != self.tried and self.seen == before

    def read(self) -> str:
        """What is in it. Raises ValueError."""
        self.tried = stamp_of(self.file.path)
        return self.file.read()


class Administration:
    """Of one server. `directory` None: a pause is kept nowhere; `is_kept`: it is still there after a restart."""

    def __init__(
        self,
        engine: Engine,
        directory: Path | None = None,
        files: Mapping[Place, SecretFile] | None = None,
        *,
        is_kept: bool = True,
    ) -> None:
        self._engine = engine
        self._file = None if directory is None else PausedFile(directory)
        self.is_kept = is_kept and self._file is not None
        self._stamp: Stamp | None = None
        self._paused: frozenset[Place] = frozenset()
        secrets = {(pool.name, key.label): key.secret for pool in engine.pools.values() for key in pool.keys}
        self._watched = {place: _Watched(file, secrets[place]) for place, file in (files or {}).items()}
        self._busy = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None

    def choose(self, pool: str, labels: Sequence[str], access: Access = EVERYTHING) -> list[Place]:
        """The keys that a request means. Raises PoolNotFound, KeyNotFound."""
        seen = [one for _, one in sorted(narrowed(self._engine.pools, access).items())]
        pools = [one for one in seen if pool in ("", one.name)]
        if not pools:
            raise PoolNotFound(pool[:64], [one.name for one in seen])
        asked = set(labels)  # a request has room for hundreds of thousands
        known = [key.label for one in pools for key in one.keys]
        if not asked.issubset(known):
            asked.difference_update(known)
            unknown = next(label for label in labels if label in asked)
            raise KeyNotFound(unknown[:64], known)
        return [(one.name, key.label) for one in pools for key in one.keys if not asked or key.label in asked]

    async def begin(self) -> None:
        """The engine is up: pause who is paused, before any call comes, and look at the files from now on."""
        await self.look()
        if self._file is not None or self._watched:
            self._following = asyncio.get_running_loop().create_task(self._follow())

    async def close(self) -> None:
        """Look no more."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    async def pause(self, places: Iterable[Place], *, paused: bool) -> int:
        """Pause or resume these. Returns for how many that was a change. Raises NotKept: then nothing is."""
        places = frozenset(places)
        async with self._busy:
            before = self._paused
            if self._file is None:
                now = before | places if paused else before - places
            else:
                try:
                    now = await asyncio.to_thread(self._file.change, places, paused=paused)
                except PausedFileError as error:
                    raise NotKept(str(error)) from None
            self._apply(now)
        return len(places - before if paused else places & before)

    async def rotate(self, places: Iterable[Place]) -> Rotation:
        """Read the secrets of these again, now."""
        found = Rotation([], [], [], [])
        async with self._busy:
            for place in places:
                watched = self._watched.get(place)
                if watched is None:
                    found.fixed.append(place)
                    continue
                changed = await self._read(place, watched)
                (found.failed if changed is None else found.changed if changed else found.same).append(place)
        return found

    async def look(self) -> None:
        """At all files, now."""
        async with self._busy:
            if self._file is not None and (stamp := stamp_of(self._file.path)) != self._stamp:
                self._stamp = stamp
                try:
                    self._apply(await asyncio.to_thread(self._file.read))
                except PausedFileError as error:
                    _log.error("%s; what was paused stays so", error)
            for place, watched in self._watched.items():
                if watched.is_news():
                    await self._read(place, watched)

    async def _read(self, place: Place, watched: _Watched) -> bool | None:
        """Whether the key has another secret now; None: it can't have what is there."""
        pool, label = place
        try:
            secret = await asyncio.to_thread(watched.read)
        except ValueError as error:
            extra = {"pool": pool, "key": label, "why": str(error)}
            _log.error("the secret of a key can't be used; it goes on with the old one", extra=extra)
            return None
        if secret == watched.secret:
            return False
        watched.secret = secret
        self._engine.rotate(pool, label, secret)
        return True

    def _apply(self, now: frozenset[Place]) -> None:
        known = {(name, key.label) for name, pool in self._engine.pools.items() for key in pool.keys}
        for (pool, label), paused in [
            *((place, True) for place in sorted(known & (now - self._paused))),
            *((place, False) for place in sorted(known & (self._paused - now))),
        ]:
            self._engine.pause(pool, label, paused=paused)
        self._paused = now

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.look()
            except Exception:  # whatever a disk can do: the server goes on, and looks again
                _log.exception("can't look at the files of keys")
