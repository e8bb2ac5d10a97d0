"""Where a Redis is, as its URL says.

Rule: the URL may hold a password, so no error and no text of a place repeats a part that may be one.

    redis://[USER:PASSWORD@]HOST[:PORT][/DB]       one server; rediss:// over TLS
    unix://[USER:PASSWORD@]/PATH[?db=DB]           one server of this host
    redis+sentinel://...@HOST:PORT,.../NAME[/DB]   the primary that these Sentinels know by this name
    redis+cluster://...@HOST:PORT,...              a Redis Cluster that these nodes belong to

The last two are written as other Python libraries write them; rediss+sentinel:// and rediss+cluster:// are over TLS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote

from apiflux_grpc.core.units import format_address, parse_address

FORMS: Final = (
    "redis://HOST:PORT/DB, unix:///PATH, redis+sentinel://HOST:PORT,HOST:PORT/NAME or "
    "redis+cluster://HOST:PORT,HOST:PORT, with rediss for TLS"
)
Kind = Literal["one", "sentinel", "cluster"]

_KINDS: Final[dict[str, Kind]] = {"": "one", "sentinel": "sentinel", "cluster": "cluster"}
_PORTS: Final = {"one": 6379, "sentinel": 26379, "cluster": 6379}
_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TEXTS: Final = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True)
class RedisUrl:
    """`hosts` are the server, the Sentinels or some nodes of the cluster; `socket` is the path of a unix socket.

    `ssl` and `sentinel` are options of the client, by redis-py's names.
    """

    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    socket: str = ""
    service: str = ""
    db: int = 0
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    ssl: dict[str, str | bool] = field(default_factory=dict, repr=False)
    sentinel: dict[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """For people: without user and password."""
        if self.socket:
            return f"unix://{self.socket}" + (f"?db={self.db}" if self.db else "")
        scheme = ("rediss" if self.tls else "redis") + ("" if self.kind == "one" else f"+{self.kind}")
        path = (f"/{self.service}" if self.service else "") + (f"/{self.db}" if self.db else "")
        return f"{scheme}://{','.join(format_address(*host) for host in self.hosts)}{path}"


def parse_redis_url(url: str) -> RedisUrl:
    """The place that this URL names. Raises ValueError, which says what it must be."""
    scheme, found, rest = url.partition("://")
    transport, _, kind = scheme.lower().partition("+")
    if not found or transport not in ("redis", "rediss", "unix") or kind not in _KINDS:
        raise ValueError(f"must be a URL of the form {FORMS}")
    rest, _, query = rest.partition("?")
    options = _options(query, sentinel=kind == "sentinel")
    login, _, rest = rest.rpartition("@")
    username, _, password = map(unquote, login.partition(":"))
    if transport == "unix":
        if kind or not rest.startswith("/"):
            raise ValueError("must name the socket by its whole path, as in unix:///run/redis.sock")
        return RedisUrl(
            "one", (), socket=unquote(rest), db=_db(options.get("db", "")), username=username, password=password
        )
    ssl = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if ssl and transport != "rediss":
        raise ValueError("has options of TLS, which only rediss:// speaks")
    hosts, _, path = rest.partition("/")
    service, _, db = path.partition("/") if kind == "sentinel" else ("", "", path)
    if kind == "sentinel" and not service:
        raise ValueError("must name the primary that the Sentinels watch, as in redis+sentinel://HOST:26379/mymaster")
    if kind == "cluster" and _db(db):
        raise ValueError("must not name a database: a Redis Cluster has only one")
    form = _KINDS[kind]
    return RedisUrl(
        form,
        _hosts(hosts, _PORTS[form], several=bool(kind)),
        tls=transport == "rediss",
        service=unquote(service),
        db=_db(options.get("db", "") or db),
        username=username,
        password=password,
        ssl={name: value == "true" if name == "ssl_check_hostname" else value for name, value in ssl.items()},
        sentinel={name.removeprefix("sentinel_"): value for name, value in options.items() if name in _TEXTS},
    )


def _hosts(text: str, port: int, *, several: bool) -> tuple[tuple[str, int], ...]:
    hosts = []
    for one in text.split(","):
        try:
            has_port = ":" in one.rpartition("]")[2]
            hosts.append(parse_address(one if has_port else f"{one}:{port}", least_port=1))
        except ValueError:
            # Its text may be a part of a password with an @ or a / in it.
            raise ValueError(
                f"must be a URL of the form {FORMS}; a password with one of @ / ? # % in it must have it "
                "percent-encoded"
            ) from None
    if len(hosts) > 1 and not several:
        raise ValueError("names several servers; write redis+sentinel:// or redis+cluster://")
    return tuple(hosts)


def _db(text: str) -> int:
    text = text.strip("/")
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError("must end with the number of the database, if with anything, as in redis://HOST:6379/0")
    return int(text or 0)


def _options(query: str, *, sentinel: bool) -> dict[str, str]:
    known = ("db", *_FILES, "ssl_check_hostname", *(_TEXTS if sentinel else ()))
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not options.keys() <= {*known}:
        raise ValueError(f"has an option that isn't known; these are: {', '.join(known)}")
    if options.get("ssl_check_hostname", "true") not in ("true", "false"):
        raise ValueError("must have true or false as its ssl_check_hostname")
    return options
