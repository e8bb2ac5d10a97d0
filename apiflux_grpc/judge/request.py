"""One request while it is read, and how it is recorded as an arrival.

The rule: a request arrives when its first byte is read, and the ledger decides on that stamp as soon as the head is
whole, so that an arrival counts even if its body never ends. Only if the body tells the cost, or what is asked of an
API, does the decision wait for it. Which call it was is said by X-Call-Id, else by method, target and body: two POSTs
of different bodies are two calls. A fault is chosen when the call is known, and counted when the request was read: from
then on it is certain, unless the client goes.
"""

import json
import math
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus

from apiflux_grpc.core.units import MOST
from apiflux_grpc.judge.judge import Judge
from apiflux_grpc.judge.ledger import Verdict
from apiflux_grpc.judge.speaking import Heard

if TYPE_CHECKING:
    from apiflux_grpc.judge.faults import Fault

UNDECIDED: Final = Verdict(0)
UNHEARD: Final = Heard()


class Request:
    """What was read so far of one request that `started` then (ns). `verdict` is the ledger's, once it has decided."""

    __slots__ = (
        "_attempt", "_body", "_call_id", "_cost_said", "_has_body", "_heads", "_judge", "_key_said", "_method",
        "_named", "_script", "_target", "call_id", "cost", "fault", "heard", "is_control", "key", "started", "url",
        "verdict",
    )  # fmt: skip

    def __init__(self, judge: Judge, started: int) -> None:
        self._judge = judge
        self.started = started
        self.url = self._key_said = self._call_id = self._attempt = self._script = self._cost_said = b""
        self._method = self._target = b""
        self._heads: set[bytes] = set()  # those that the API asks for
        self._has_body = self._named = self.is_control = False
        self._body = bytearray()
        self.cost = 1
        self.key = self.call_id = ""
        self.verdict = UNDECIDED
        self.heard = UNHEARD
        self.fault: Fault | None = None

    def header(self, name: bytes, value: bytes) -> None:
        """`name` is in lower case, and one of the judge's `read_headers`."""
        judge = self._judge
        if name == judge.key_header:
            self._key_said = value
        elif name == b"x-call-id":
            self._call_id = value
        elif name == b"x-attempt":
            self._attempt = value
        elif name == b"x-judge-fault":
            self._script += b"," + value if self._script else value
        elif name in (b"content-length", b"transfer-encoding"):
            self._has_body = value != b"0"
        if name == judge.cost_header:
            self._cost_said = value
        if name in judge.speaker.headers:
            self._heads.add(name)

    def head_complete(self, method: bytes) -> None:
        """Raises ValueError for an X-Judge-Fault that can't be read; that is recorded."""
        self.is_control = self.url.startswith(b"/_judge/")
        if self.is_control:
            return
        self._method = method
        self.key, self._target = self._take_key()
        self.call_id = _text(self._call_id or method + b" " + self._target)
        if not self._has_body or (self._judge.cost_path is None and self._judge.speaker.plain):
            self._decide()
            if self._call_id or not self._has_body:
                self._name()

    def body(self, piece: bytes) -> None:
        if not self._named:
            self._body += piece

    def complete(self) -> None:
        """The body is whole. Raises ValueError as `head_complete` does."""
        if self.is_control or self._named:
            return
        if self.verdict is UNDECIDED:
            self._decide()
        if self._body and not self._call_id:
            self.call_id = with_body(self.call_id, self._body)
        self._name()

    def abandoned(self) -> None:
        """Its client has gone, or was refused, before its body was whole; it did arrive."""
        if self.is_control or self._named or not self.call_id:
            return
        if self.verdict is UNDECIDED:
            self._admit(1)
        self._script = b""
        self._name()

    def _decide(self) -> None:
        judge = self._judge
        if not judge.speaker.plain:
            self.heard = judge.speaker.hear(_text(self._method), _text(self._target), self._heads, self._body)
        if judge.cost_by_usage:
            self._admit(self.heard.cost)
        elif judge.cost_path is not None:
            self._admit(_cost_in(self._body, judge.cost_path))
        else:
            self._admit(_cost(_text(self._cost_said)) if self._cost_said else 1)

    def _admit(self, cost: int) -> None:
        self.cost = cost
        self.verdict = self._judge.ledger.admit(self.key, self.started, cost)

    def _name(self) -> None:
        self._named = True
        said = self._attempt
        attempt = int(said) if said.isdigit() and len(said) < 10 else 0
        ledger = self._judge.ledger
        accepted = self.verdict.status == 200
        ledger.name(self.call_id, attempt, accepted=accepted)
        if accepted:
            try:
                self.fault = self._judge.fault(self._script, self.call_id, self.key, self.started)
            except ValueError as error:
                ledger.fault(self.call_id, self.key, "400")
                raise ValueError(f"X-Judge-Fault: {error}") from None

    def _take_key(self) -> tuple[str, bytes]:
        """The secret as it came, and the target without it."""
        kind, name = self._judge.key_in
        if kind == "header":
            return _text(self._key_said), self.url
        if kind == "bearer":
            scheme, _, secret = self._key_said.partition(b" ")
            return (_text(secret.strip()) if scheme.lower() == b"bearer" else ""), self.url
        path, _, query = self.url.partition(b"?")
        key, kept = "", []
        for pair in query.split(b"&"):
            field_name, _, value = pair.partition(b"=")
            if unquote_plus(_text(field_name)) == name:
                key = unquote_plus(_text(value))
            else:
                kept.append(pair)
        rest = b"&".join(kept)
        return key, path + b"?" + rest if rest else path


def with_body(name: str, body: bytes | bytearray) -> str:
    """The name of a call without X-Call-Id: method and target, and where there is a body, a mark of it."""
    return f"{name} #{blake2b(body, digest_size=8).hexdigest()}" if body else name


def _cost_in(body: bytes | bytearray, path: tuple[str, ...]) -> int:
    """The number at this place of a JSON body; 1 where there is none."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return 1
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return _cost(str(found)) if isinstance(found, int | float) and not isinstance(found, bool) else 1


def _cost(text: str) -> int:
    """A cost as a whole number, rounded up; 1 where it can't be read."""
    try:
        cost = float(text)
    except ValueError:
        return 1
    return math.ceil(cost) if 0 <= cost <= MOST else 1


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
