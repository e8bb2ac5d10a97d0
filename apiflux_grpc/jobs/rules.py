"""What is wrong with a call by the rules of its pool, in the words that the server would say it in.

Rule: a call that its server would refuse is told with its line before anything is sent. One thing is refused here that
the server takes: a method that is hardly ever meant. A server can't know what an upstream understands, but whoever
writes GTE thousands of times wants to hear it before they are paid for; --any-method sends it.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.checks import Checks, Fault, is_sendable
from apiflux_grpc.server.calls import check_call, cost_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.v1 import apiflux_pb2 as pb

# Of IANA's registry of HTTP methods: HTTP's own (RFC 9110, RFC 5789, and QUERY), and those of WebDAV and CalDAV
# (RFC 4918, 3253's REPORT, 4791, 5323). Not here are those that nothing speaks any more, such as LINK and LABEL: there
# they would only hide what was mistyped, as would UPDATE, which people write for PUT or PATCH. "" is GET.
_HTTP: Final = ("", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY")
_WEBDAV: Final = ("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "MKCALENDAR", "SEARCH")
KNOWN_METHODS: Final = frozenset(_HTTP + _WEBDAV)


class Rules:
    """The rules that the calls of a job have to meet."""

    def __init__(self, pool: Pool, *, any_method: bool = False) -> None:
        self.cost = 0  # of the call that was judged last
        self._checks = Checks(pool)
        self._any_method = any_method

    def faults(self, call: pb.Call) -> list[Fault]:
        """What is wrong with a call."""
        found = check_call(self._checks, call)
        self.cost = cost_of(self._checks, call, found)
        method = call.method
        if method not in KNOWN_METHODS and not self._any_method and is_sendable(method):
            found.append(_unusual(method))
        return found


def told(faults: Iterable[Fault], names: Mapping[str, str]) -> str:
    """All of them in one text, with fields as the line has them, if they are in `names`."""
    return "; ".join(f"{_named(field, names)}: {text}" for field, text in faults)


def _named(field: str, names: Mapping[str, str]) -> str:
    """Of `query[0].name` a format that has the query within another field knows that field alone."""
    return names.get(re.split(r"[.\[]", field, maxsplit=1)[0], field)


def _unusual(method: str) -> Fault:
    close = difflib.get_close_matches(method, KNOWN_METHODS, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return Fault("method", f"{method!r} is not a usual method; {hint}--any-method sends it as it is")
