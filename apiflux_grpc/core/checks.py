"""What is wrong with a call, or with the options of a batch.

Rule: what is wrong is refused and never repaired, because a repaired call is another one than its caller wrote. Each
fault is a field path and a text that says what to do; all faults are found, not the first alone. Fields are named
from the message that has them: `path` of a call, `retry.reasons[0]` of a batch.

Plain values come in, so that the server can use this for messages and a client for files before it sends anything.
Times are integer nanoseconds; None and "" mean that the caller left a field out. A usual call passes through a
handful of tests and makes nothing: batches have tens of thousands of them.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from apiflux_grpc.core.bucket import largest
from apiflux_grpc.core.call import IDEMPOTENT_METHODS, SENDER_HEADERS
from apiflux_grpc.core.classes import classes_of
from apiflux_grpc.core.cost import LARGEST_COST
from apiflux_grpc.core.model import RETRY_REASONS, Counts, HeaderKey, RetryPolicy
from apiflux_grpc.core.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apiflux_grpc.core.classes import Classes
    from apiflux_grpc.core.model import Pool

LONGEST_ID: Final = 256  # bytes
MOST_FIELDS: Final = 10_000  # headers, or parameters, of one call: they are checked at once, in 10 ms
MOST_FAULTS: Final = 20  # that are told of one call, and of one request: the others are counted
MOST_REASONS: Final = 100  # of a retry policy; there are six
LONGEST_BACKOFF: Final = 60 * SECOND
LOWEST_PRIORITY: Final = -3
HIGHEST_PRIORITY: Final = 3
MOST_ESTIMATED: Final = 10**12  # calls that one estimate may ask about
_SPLIT: Final = "Split it, or use ProcessStream, which takes a batch of any length"

# RFC 3986, section 3.3: pchar and "/"; a percent sign must begin a whole escape.
_PCHAR: Final = r"A-Za-z0-9\-._~!$&'()*+,;=:@"
_GOOD_START: Final = re.compile(rf"(?:[{_PCHAR}/]|%[0-9A-Fa-f]{{2}})*").match
_DOTS: Final = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE).search
# What some servers take for such a segment: they read an escaped slash or backslash as a slash (nginx, IIS), or leave
# out what follows a semicolon (Java's). A path of a prefix must not lead out of it there.
_ALMOST_DOTS: Final = re.compile(r"(?:/|%2f|%5c)(?:\.|%2e){1,2}(?:/|%2f|%5c|;|%3b|$)", re.IGNORECASE).search
# Most paths: no segment is empty, "." or "..", no escape hides a dot, and the first segment can't be a scheme. Nothing
# can be wrong with these. The quantifiers are possessive, or a long bad path would take exponential time.
_SEGMENT: Final = r"(?!\.\.?(?:/|$))(?:[{chars}]++|%(?!2[Ee])[0-9A-Fa-f]{{2}})++"
_USUAL_PATH: Final = re.compile(
    rf"(?:{_SEGMENT.format(chars=_PCHAR.replace(':', ''))})?+(?:/{_SEGMENT.format(chars=_PCHAR)})*+/?"
).fullmatch
_METHOD: Final = re.compile(r"[A-Z]{1,20}").fullmatch
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+").fullmatch  # RFC 9110, section 5.6.2
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*").fullmatch
_CORRELATION: Final = re.compile(r"[\x21-\x7e]{1,128}").fullmatch

# Authorization may carry the key, so no call may set it, in pools whose key goes elsewhere neither.
OUR_HEADERS: Final = SENDER_HEADERS | {"authorization"}


class Fault(NamedTuple):
    """One thing that is wrong: the path of the field, and what to do about it."""

    field: str
    text: str

    def of(self, parent: str) -> Fault:
        """The same, with the field named from the message around `parent`."""
        return self._replace(field=f"{parent}.{self.field}")


class Faults:
    """The first that were found in one request, and how many there are `more`: a request can have millions."""

    def __init__(self) -> None:
        self.told: list[Fault] = []
        self.more = 0

    def add(self, faults: Sequence[Fault], parent: str = "") -> None:
        """Those of the message around `parent`, if there is one."""
        room = MOST_FAULTS - len(self.told)
        self.told += [fault.of(parent) if parent else fault for fault in faults[:room]]
        self.more += max(0, len(faults) - room)


class Checks:
    """The checks of calls and batches for one pool. Every method returns the faults that it found."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._reserved_headers = OUR_HEADERS
        self._reserved_query: str | None = None
        if isinstance(pool.key_in, HeaderKey):
            self._reserved_headers = OUR_HEADERS | {pool.key_in.name.lower()}
        else:
            self._reserved_query = pool.key_in.name
        self.classes = classes_of(pool)
        self._max_costs = [_max_cost(pool, self.classes, number) for number in range(self.classes.count)]
        # None: the costs of calls that don't say theirs are 1, or nothing counts them.
        self.cost_rule = pool.cost if _counts_cost(pool) else None

    def call(
        self,
        id: str,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        query: Sequence[tuple[str, str]],
        timeout: int | None,
        cost: int | None,
    ) -> list[Fault]:
        """One call."""
        faults: list[Fault] = []
        # A character is 1 to 4 bytes: nearly every id is shorter than what needs counting.
        if len(id) > LONGEST_ID // 4 and (size := len(id.encode())) > LONGEST_ID:
            faults.append(Fault("id", f"has {size} bytes; use at most {LONGEST_ID}"))
        if method and method not in IDEMPOTENT_METHODS and not is_sendable(method):
            faults.append(_method(method))
        if not _USUAL_PATH(path) and (fault := _path(path)):
            faults.append(fault)
        elif self._pool.allow_paths:
            faults += self._allowed(path)
        if headers:
            faults += self._headers(headers)
        if query and self._reserved_query is not None:
            faults += self._query(query, self._reserved_query)
        if timeout is not None and not 0 < timeout <= self._pool.timeout:
            longest = self._pool.timeout / SECOND
            faults.append(Fault("timeout", f"is {timeout / SECOND:g} s; set more than 0 and at most {longest:g} s"))
        if cost is not None:
            faults += self._cost("cost", cost, self._max_cost(path))
        return faults

    def _allowed(self, path: str) -> list[Fault]:
        full = path if path.startswith("/") else f"/{path}"
        if full.startswith(self._pool.allow_paths):
            return leading_out(full)
        prefixes = ", ".join(self._pool.allow_paths)
        return [Fault("path", f"is not allowed: paths of pool {self._pool.name!r} start with {prefixes}")]

    def _headers(self, headers: Iterable[tuple[str, str]]) -> list[Fault]:
        faults = []
        for place, (name, value) in enumerate(headers):
            at, shown = f"headers[{place}]", name[:64]
            if not _TOKEN(name):
                faults.append(
                    Fault(f"{at}.name", f"{shown!r} is not a header name; use A-Z, a-z, 0-9, !#$%&'*+-.^_`|~")
                )
            elif name.lower() in self._reserved_headers:
                faults.append(Fault(f"{at}.name", f"{shown!r} is set by the service; remove it"))
            if not _VALUE(value):
                faults.append(
                    Fault(f"{at}.value", "has a control or non-ASCII character; use printable ASCII and tabs")
                )
            if len(faults) >= MOST_FAULTS:  # as many others may follow as fit into a request
                break
        return faults

    @staticmethod
    def _query(query: Iterable[tuple[str, str]], reserved: str) -> list[Fault]:
        found = (
            Fault(f"query[{place}].name", f"is {reserved!r}, which carries the pool's key; remove it")
            for place, (name, _) in enumerate(query)
            if name == reserved
        )
        return list(islice(found, MOST_FAULTS))

    def _max_cost(self, path: str) -> int:
        """The largest cost of a call with this path."""
        return self._max_costs[self.classes.of(path) if len(self._max_costs) > 1 else 0]

    @staticmethod
    def _cost(field: str, cost: int, most: int) -> list[Fault]:
        if cost < 0:
            return [Fault(field, f"is {cost}; set 0 or more")]
        if cost > most:
            return [Fault(field, f"is {cost}; no key of this pool takes more than {most} at once")]
        return []

    def read_cost(self, cost: int, path: str) -> list[Fault]:
        """A cost that `cost_rule` makes of a call with this path."""
        most = self._max_cost(path)
        if cost <= most:
            return []
        return [Fault("cost", f"is {cost} ({self.cost_rule}); no key of this pool takes more than {most} at once")]

    def batch(self, priority: int, correlation_id: str) -> list[Fault]:
        """The options of a batch, but for its retry policy."""
        faults = []
        if not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
            faults.append(Fault("priority", f"is {priority}; set {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}"))
        if correlation_id and not _CORRELATION(correlation_id):
            faults.append(Fault("correlation_id", "must be at most 128 printable ASCII characters without spaces"))
        return faults

    def retry(
        self, max_attempts: int, initial_backoff: int | None, max_backoff: int | None, reasons: Sequence[str]
    ) -> tuple[RetryPolicy, list[Fault]]:
        """The policy that is meant, and what is wrong with it; 0, None and an empty list mean the pool's own."""
        own = self._pool.retry
        if not max_attempts and initial_backoff is None and max_backoff is None and not reasons:
            return own, []
        faults = []
        most = max_attempts or own.max_attempts
        if not 1 <= most <= own.max_attempts:
            faults.append(Fault("retry.max_attempts", f"is {most}; this pool allows 1 to {own.max_attempts}"))
        first = own.initial_backoff if initial_backoff is None else initial_backoff
        if not MILLISECOND <= first <= LONGEST_BACKOFF:
            faults.append(Fault("retry.initial_backoff", f"is {first / SECOND:g} s; set 0.001 to 60 s"))
        last = max(own.max_backoff, first) if max_backoff is None else max_backoff
        if not first <= last <= LONGEST_BACKOFF:
            least = first / SECOND
            faults.append(Fault("retry.max_backoff", f"is {last / SECOND:g} s; set {least:g} (the initial) to 60 s"))
        known = {reason.value: reason for reason in RETRY_REASONS}
        for place, word in enumerate(reasons):
            if word not in known:
                words = ", ".join(sorted(known))
                faults.append(Fault(f"retry.reasons[{place}]", f"{word[:32]!r} is not one of {words}"))
        asked = {known[word] for word in reasons if word in known}
        return RetryPolicy(most, first, last, own.reasons & asked if reasons else own.reasons), faults

    def repeat(self, count: int, template_id: str, *, with_calls: bool) -> list[Fault]:
        """One call many times, but for the call itself."""
        faults = []
        if with_calls:
            faults.append(Fault("repeat", "conflicts with `calls`; set one of them"))
        if not self._pool.allow_repeat:
            name = self._pool.name
            faults.append(Fault("repeat", f"is for synthetic load; pool {name!r} needs allow_repeat = true for it"))
        if count < 0:
            faults.append(Fault("repeat.count", f"is {count}; set 1 or more, or 0 for the default"))
        if template_id:
            faults.append(Fault("repeat.template.id", "must be empty, because ids are unique in a batch"))
        return faults

    def expected(self, calls: int) -> list[Fault]:
        """How many calls a stream says that it will have."""
        if not 0 <= calls <= MOST_ESTIMATED:
            return [Fault("expected_calls", f"is {calls}; set 1 to {MOST_ESTIMATED}, or 0 if it isn't known")]
        return []

    def estimate(self, calls: int, cost_per_call: int) -> list[Fault]:
        """A batch that is asked about."""
        faults = []
        if not 0 < calls <= MOST_ESTIMATED:
            faults.append(Fault("calls", f"is {calls}; set 1 to {MOST_ESTIMATED}"))
        return faults + self._cost("cost_per_call", cost_per_call, self._max_costs[0])


def leading_out(path: str) -> list[Fault]:
    """Whether a path may lead out of the prefix that it must have, at some servers; it begins with a slash."""
    if _ALMOST_DOTS(path):
        return [Fault("path", 'has a "." or ".." beside an escaped slash or a semicolon, which may lead elsewhere')]
    return []


def empty() -> Fault:
    """A batch without calls."""
    return Fault("calls", "is empty; give at least one call, or `repeat`")


def too_large(calls: int, repeats: int, size: int, *, max_calls: int, max_bytes: int) -> list[Fault]:
    """A batch over the documented maximum; `size` is its bytes."""
    faults = []
    if repeats > max_calls:
        faults.append(Fault("repeat.count", f"is {repeats}; a batch has at most {max_calls} calls"))
    if calls > max_calls:
        faults.append(Fault("calls", f"has {calls} calls; a batch has at most {max_calls}. {_SPLIT}"))
    if size > max_bytes:
        faults.append(Fault("calls", f"makes a request of {size} bytes; a batch has at most {max_bytes}. {_SPLIT}"))
    return faults


class Ids:
    """The ids that are in use: those of a batch, or of the calls of a stream that have no result yet."""

    def __init__(self, *, streamed: bool = False) -> None:
        self._used: set[str] = set()
        self._streamed = streamed

    def take(self, id: str) -> Fault | None:
        """Use an id that isn't empty; the fault if it is in use already."""
        if id in self._used:
            if self._streamed:
                return Fault("id", f"{id[:64]!r} is that of a call without a result yet; give each its own")
            return Fault("id", f"{id[:64]!r} is used twice in this batch; give each call its own")
        self._used.add(id)
        return None

    def release(self, id: str) -> None:
        """Its call has its result: another one may use it."""
        self._used.discard(id)


def too_many(headers: int, parameters: int) -> list[Fault]:
    """Whether a call has more of them than are read."""
    counts = (("headers", headers), ("query", parameters))
    return [Fault(field, f"has {count}; use at most {MOST_FIELDS}") for field, count in counts if count > MOST_FIELDS]


def is_sendable(method: str) -> bool:
    """Whether a call may have this method."""
    return _METHOD(method) is not None and method not in ("CONNECT", "TRACE")


def _method(method: str) -> Fault:
    if is_sendable(method.upper()):
        return Fault("method", f"{method[:32]!r} is not a method that can be sent; did you mean {method.upper()!r}?")
    return Fault("method", f"{method[:32]!r} is not a method that can be sent; use one such as GET or POST")


def _path(path: str) -> Fault | None:
    start = _GOOD_START(path)
    assert start is not None  # it matches the empty string too
    bad = path[start.end() : start.end() + 1]
    if "?" in path or "#" in path:
        return Fault("path", 'has "?" or "#"; put parameters into `query`, and leave out fragments')
    if bad == "%":
        return Fault("path", "has a % without two hex digits after it; write a percent sign as %25")
    if bad:
        return Fault("path", f"has {bad!r}, which must be percent-encoded")
    if path.startswith("//"):
        return Fault("path", 'begins with "//", which names a host; begin it with one "/"')
    if ":" in path.split("/", 1)[0]:
        return Fault("path", "looks like a whole URL; give the part that follows the pool's base URL")
    if _DOTS(path):
        return Fault("path", 'has a "." or ".." segment; give the path that it leads to')
    return None


def _counts_cost(pool: Pool) -> bool:
    lists = [key.limits for key in pool.keys] + [group.limits for group in pool.groups]
    return any(limit.counts is Counts.COST for limits in lists for limit in limits)


def _max_cost(pool: Pool, classes: Classes, number: int) -> int:
    """The largest cost that some key could ever take at once of a call of this path class, by its limits and its
    group's."""
    shared = {label: group.limits for group in pool.groups for label in group.keys}
    best = 0
    for key in pool.keys:
        limits = [limit for limit in (*key.limits, *shared.get(key.label, ())) if limit.counts is Counts.COST]
        limits = [limit for limit in limits if classes.meets(number, limit)]
        best = max(best, min((largest(limit, pool.arrival_jitter) for limit in limits), default=LARGEST_COST))
    return best
