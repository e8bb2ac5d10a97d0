"""What a call looks like on the wire, for both HTTP senders: the same call gives the same bytes with either.

Rule: a path goes out as the caller encoded it (wire.py refused what isn't encoded), a query is encoded here, once.
The key is put in here and nowhere else; what an upstream sends back of it is masked.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from yarl import URL

from apiflux_grpc.adapters.masking import Mask
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import BODY_CAP, IDLE_TIMEOUT, MAX_CONNECTIONS, X_API_KEY, HeaderKey, QueryKey
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from apiflux_grpc.core.model import Key

NO_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # an empty body needs no length here


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How a pool's calls go out; `key_in` says where the upstream expects the key.

    Raises ValueError for a `base_url` or a `key_file` that can't be used.
    """

    base_url: str
    key_in: HeaderKey | QueryKey = X_API_KEY
    user_agent: str = "apiflux"  # of calls that don't name their own
    body_cap: int = BODY_CAP  # bytes of an answer's body that are kept, after decompression
    head_cap: int = 64 << 10  # bytes of an answer's head; chunk sizes and trailers have as much again
    connect_timeout: int = 10 * SECOND  # ns: name, connect and TLS
    idle_timeout: int = IDLE_TIMEOUT  # ns; of upstreams that don't say how long they keep an idle connection
    max_connections: int = MAX_CONNECTIONS
    ca_file: str | None = None  # None: the system's
    cert_file: str | None = None  # the client's certificate, if the upstream asks for one
    key_file: str | None = field(default=None, repr=False)
    egress_proxy: str | None = None
    mask_secrets: bool = True

    def __post_init__(self) -> None:
        url = URL(self.base_url)
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError("base_url must be http://... or https://... with a host")
        if url.user is not None or url.password is not None:
            raise ValueError("base_url must not hold credentials")
        if url.query_string or url.fragment:
            raise ValueError("base_url must not have a query or a fragment")
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file")

    def tls(self) -> ssl.SSLContext | None:
        """How to speak TLS; None: plain. Raises OSError or ssl.SSLError for files that can't be used."""
        if URL(self.base_url).scheme != "https":
            return None
        context = ssl.create_default_context(cafile=self.ca_file)
        context.set_alpn_protocols(["http/1.1"])
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context


class Requests:
    """Makes the requests of one pool."""

    def __init__(self, settings: HttpSettings) -> None:
        url = URL(settings.base_url)
        assert url.raw_host is not None
        self.host = url.raw_host
        self.port = url.port or 0
        self.authority = url.host_port_subcomponent or ""
        self.origin = f"{url.scheme}://{self.authority}"
        self._prefix = url.raw_path.rstrip("/")
        self._settings = settings
        self._key_in = settings.key_in
        self._ours = {"host", "content-length", "transfer-encoding", "accept-encoding"}
        if isinstance(settings.key_in, HeaderKey):
            self._ours.add(settings.key_in.name.lower())
        self._masks: dict[str, Mask] = {}  # by secret: a label keeps its name when its secret is changed
        self._heads: dict[str, tuple[bytes, bytes]] = {}  # by secret too
        self._secrets: dict[str, str] = {}  # by label: the one that these are made of

    def target(self, call: Call, key: Key) -> str:
        """Path and query, as they stand in the request line."""
        path = call.path
        target = f"{self._prefix}{path}" if path.startswith("/") else f"{self._prefix}/{path}"
        key_in = self._key_in
        in_query = isinstance(key_in, QueryKey)
        if not in_query and not call.query:
            return target
        query = [*call.query, (key_in.name, key.secret)] if in_query else call.query
        return f"{target}?{urlencode(query, quote_via=quote, safe='')}"

    def headers(self, call: Call, key: Key) -> list[tuple[str, str]]:
        """All headers in their order but Host, which goes first, and Content-Length, which goes last."""
        headers: list[tuple[str, str]] = []
        # A repeated name is spelled as it was first: of two spellings aiohttp 3.14 drops what came with the first.
        spelled: dict[str, str] = {}
        for name, value in call.headers:
            lower = name.lower()
            if lower not in self._ours:
                headers.append((spelled.setdefault(lower, name), value))
        if "user-agent" not in spelled:
            headers.append(("User-Agent", self._settings.user_agent))
        if "accept" not in spelled:
            headers.append(("Accept", "*/*"))
        headers.append(("Accept-Encoding", "identity"))
        if isinstance(self._key_in, HeaderKey):
            headers.append((self._key_in.name, self._key_in.prefix + key.secret))
        return headers

    def made(self, call: Call, key: Key) -> bytes:
        """The whole request: head and body."""
        secret = key.secret
        host, fixed = self._heads.get(secret) or self._make_head(key)
        if call.headers:
            lines = "".join([f"{name}: {value}\r\n" for name, value in self.headers(call, key)])
            fixed = lines.encode("latin-1")
        body = call.body
        length = b"\r\n" if not body and call.method in NO_BODY else b"Content-Length: %d\r\n\r\n" % len(body)
        line = f"{call.method} {self.target(call, key)}"
        return b"".join((line.encode("ascii"), host, fixed, length, body))

    def _make_head(self, key: Key) -> tuple[bytes, bytes]:
        """What is the same for all calls of a key that bring no headers of their own."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in self.headers(Call(), key)])
        made = f" HTTP/1.1\r\nHost: {self.authority}\r\n".encode("ascii"), lines.encode("latin-1")
        self._forget_others(key)
        self._heads[key.secret] = made
        return made

    def mask(self, key: Key) -> Mask:
        """What hides the key's secret in answers."""
        mask = self._masks.get(key.secret)
        if mask is None:
            self._forget_others(key)
            mask = self._masks[key.secret] = Mask(key.secret if self._settings.mask_secrets else "")
        return mask

    def _forget_others(self, key: Key) -> None:
        """Nothing is kept of a secret that the key had before; calls that still have it make what they need again."""
        before = self._secrets.get(key.label)
        if before is not None and before != key.secret:
            self._heads.pop(before, None)
            self._masks.pop(before, None)
        self._secrets[key.label] = key.secret

    def __repr__(self) -> str:
        return f"<Requests to {self.origin}>"
