"""The servers of a client, one channel each, and those of one stream: what both clients share.

Rules:
- A batch that goes to one server goes to the next in turn, so that several batches go to several.
- When the files of TLS have changed, what begins from then on goes over new channels, and what was begun goes on over
  the old ones. Files that can't be used together change nothing: one may have been replaced, and the other not yet.
- A name is asked for its addresses again when a connection is lost, and now and then: a server that comes later gets
  work, and one that the name has no longer is left alone once it is lost. A name that can't be asked has what it had.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from apiflux_grpc.client.channel import Route
from apiflux_grpc.client.targets import is_name, targets_of
from apiflux_grpc.client.tls import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import grpc

    from apiflux_grpc.client.channel import Options
    from apiflux_grpc.client.tls import TlsOptions
    from apiflux_grpc.client.token import Tokens

_log: Final = logging.getLogger("apiflux_grpc.client")

LOOK_EVERY: Final = 30.0  # seconds
LOOK_PAUSE: Final = 1.0  # seconds at least between two times


C = TypeVar("C")


class Link(Generic[C]):
    """A server by its HOST:PORT, the channel to it, and the stub of the service over it; `dial` makes new ones.

    grpc keeps a channel that nobody holds for as long as requests go over it.
    """

    def __init__(self, target: str, dial: Callable[[], tuple[C, Any]]) -> None:
        self.target = target
        self.dial = dial
        self.channel, self.stub = dial()

    def use(self, channel: C, stub: Any) -> None:
        """These, for what begins from now on."""
        self.channel, self.stub = channel, stub


S = TypeVar("S", bound=Link[Any])


class Roster(Generic[S]):
    """Of these targets, as `targets_of` takes them; `options` and what follows are those of each Route."""

    def __init__(
        self,
        targets: str | Sequence[str],
        options: Options,
        tls: TlsOptions | None,
        credentials: grpc.ChannelCredentials | None,
        tokens: Tokens,
    ) -> None:
        self.targets = targets_of(targets)
        self.all: list[S] = []  # while they are open
        self._options = options
        self._tls = tls
        self._given = credentials
        self._tokens = tokens
        self._watch = None if tls is None else Watch(tls)
        self._turn = -1
        self._found_at = time.monotonic()
        self.route("localhost:1")  # what can't be is known now
        if tls is None and credentials is None:
            tokens.check_plaintext(target.removeprefix("dns:///") for target in self.targets)

    def route(self, target: str, name: str = "") -> Route:
        """The way to one of them; `name`: its certificate is for that one."""
        options = [*self._options, ("grpc.ssl_target_name_override", name)] if name else self._options
        return Route(target, options, self._tls, self._given)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of a request that begins now."""
        return self._tokens.metadata

    @property
    def has_names(self) -> bool:
        """Whether there may be other servers later."""
        return any(map(is_name, self.targets))

    @property
    def are_several(self) -> bool:
        """Whether there are, or may be later."""
        return len(self.all) > 1 or self.has_names

    @property
    def is_old(self) -> bool:
        """Whether names are to be asked again before a server is picked."""
        return self.has_names and time.monotonic() - self._found_at > LOOK_EVERY

    def found(self, addresses: Iterable[tuple[str, str]], make: Callable[[str, str], S]) -> None:
        """These are all that there are now, as `resolved` has them; those that were there before stay as they are."""
        there = {server.target: server for server in self.all}
        self.all = [there.get(target) or make(target, name) for target, name in addresses]
        self._found_at = time.monotonic()

    def refresh(self) -> None:
        """Before something begins: new channels, if the files of TLS are others now."""
        if self._watch is None or not self._watch.has_changed():
            return
        try:
            links = [(server, *server.dial()) for server in self.all]
        except (OSError, ValueError) as error:
            _log.warning("the TLS files have changed and can't be used (%s); connections stay as they are", error)
            return
        for server, channel, stub in links:
            server.use(channel, stub)

    def in_turn(self) -> list[S]:
        """All, whose turn it is first."""
        self._turn = (self._turn + 1) % len(self.all)
        return [*self.all[self._turn :], *self.all[: self._turn]]

    def __repr__(self) -> str:
        return f"<servers at {', '.join(self.targets)}>"


class News(NamedTuple):
    """What has changed since the last time."""

    joined: list[str]  # targets, which have the next places
    gone: list[int]  # places


class Places(Generic[S]):
    """The servers of one stream by their places: those that were there when it began, then those that came."""

    def __init__(self, roster: Roster[S]) -> None:
        self._roster = roster
        self.servers = list(roster.all)
        self._first = len(self.servers)
        self._gone: set[int] = set()

    @property
    def names(self) -> list[str]:
        """Their targets."""
        return [server.target for server in self.servers]

    @property
    def has_names(self) -> bool:
        """Whether there may be others later."""
        return self._roster.has_names

    def is_later(self, at: int) -> bool:
        """Whether this one came when the stream had begun."""
        return at >= self._first

    def compare(self) -> News:
        """With what there is now."""
        there = set(map(id, self._roster.all))
        gone = [at for at, one in enumerate(self.servers) if id(one) not in there and at not in self._gone]
        mine = set(map(id, self.servers))
        joined = [one for one in self._roster.all if id(one) not in mine]
        self._gone.update(gone)
        self.servers += joined
        return News([one.target for one in joined], gone)
