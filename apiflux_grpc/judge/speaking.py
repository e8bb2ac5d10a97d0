"""What a request asks of an API, and the answer in that API's words.

The rule: whatever a client sends is answered; what the API would refuse, in the shape of its errors. A request that
is refused so takes no tokens. What an API is, is in apis/; keys and limits are the ledger's.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from itertools import count
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote

from apiflux_grpc.judge.apis.api import Api, Asked, Route, Said, Trouble, Usage, phrase

NAMES: Final = re.compile(r"{(\w+)(\+?)}")


class Heard(NamedTuple):
    """A request as an API understands it, or the trouble with it. `cost` is by its usage."""

    cost: int = 1
    trouble: Trouble | None = None
    route: Route | None = None
    asked: Asked | None = None
    usage: Usage = Usage()


class Speaker:
    """Speaks one API; `wall` gives seconds since 1970."""

    def __init__(self, api: Api, wall: Callable[[], float]) -> None:
        self._api = api
        self._wall = wall
        self._ids = count(1)
        self._paths = [(route, re.compile(NAMES.sub(_segment, route.path))) for route in api.routes]
        self._find = lru_cache(maxsize=4096)(self._route)
        self.plain = not api.routes  # every path is fine, and nothing is asked about the body
        self.headers = frozenset(name.encode() for name in api.headers)

    def hear(self, method: str, target: str, headers: Iterable[bytes], body: bytes | bytearray) -> Heard:
        """What is asked for; `target` is without the key. `headers` are those of `self.headers` that it has."""
        if self.plain:
            return Heard()
        path, _, query = target.partition("?")
        route, names = self._find(method, unquote(path))
        if route is None:
            return Heard(0, Trouble(404, f"Unknown request: {method} {path}"))
        for name in sorted(self.headers.difference(headers)):
            return Heard(0, self._api.headers[name.decode()])
        try:
            read = json.loads(body) if body else {}
        except (ValueError, RecursionError):
            return Heard(0, Trouble(400, "The body of the request is not JSON."))
        if not isinstance(read, dict):
            return Heard(0, Trouble(400, "The body of the request is not a JSON object."))
        said = dict(parse_qsl(query, keep_blank_values=True))
        seed = int.from_bytes(blake2b(body or target.encode(), digest_size=8).digest(), "big")
        asked = Asked(method, path, names, said, read, len(body), seed, int(self._wall()))
        if (lacks := _lacks(route, said if route.method == "GET" else read)) is not None:
            return Heard(0, self._api.missing(lacks))
        usage = route.usage(asked)
        return Heard(self._api.cost(usage), None, route, asked, usage)

    def answer(self, heard: Heard) -> Said:
        """The answer to a request that was accepted."""
        if heard.trouble is not None:
            return self.error(heard.trouble)
        route, asked = heard.route, heard.asked
        assert route is not None
        assert asked is not None
        return Said(route.status, route.answer(asked, heard.usage), fields=self._fields(self._next_id()))

    def error(self, trouble: Trouble) -> Said:
        """What the API says of this trouble."""
        return self.refusal(self._api.error(trouble))

    def refusal(self, said: Said) -> Said:
        """With this answer's id where the API tells it."""
        if self.plain:
            return said
        name, request_id = self._api.id_in_errors, self._next_id()
        body = {**said.body, name: request_id} if name and isinstance(said.body, dict) else said.body
        return said._replace(body=body, fields=(*said.fields, *self._fields(request_id)))

    def injected(self, kind: str) -> Said:
        """What a fault of this kind says, where it says anything."""
        status = 302 if kind == "redirect" else int(kind) if kind.isdigit() else 500
        return self.error(Trouble(status, f"{phrase(status)}, injected" if self.plain else ""))

    def _next_id(self) -> str:
        return self._api.request_id.format(next(self._ids))

    def _fields(self, request_id: str) -> tuple[str, ...]:
        return tuple(field.format(id=request_id) for field in self._api.fields)

    def _route(self, method: str, path: str) -> tuple[Route | None, Mapping[str, str]]:
        method = "GET" if method == "HEAD" else method
        for route, pattern in self._paths:
            if route.method == method and (found := pattern.fullmatch(path)):
                return route, found.groupdict()
        return None, {}


def _segment(name: re.Match[str]) -> str:
    return f"(?P<{name[1]}>{'.+' if name[2] else '[^/]+'})"


def _lacks(route: Route, fields: Mapping[str, Any]) -> str | None:
    """The first of what the route needs that isn't there, or is empty."""
    for need in route.needs:
        if all(fields.get(name) in (None, "", [], {}) for name in need.split("|")):
            return need.partition("|")[0]
    return None
