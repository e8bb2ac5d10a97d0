"""Between protobuf and core: validation on the way in, encoding in place on the way out.

Rule: a request is checked as a whole before anything is sent, and every fault is named by its field path; what is
wrong is refused, never mended. The request message is kept, and a call is unpacked when its turn comes: a queued
call costs what its bytes cost. Durations are checked and turned into integer nanoseconds here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeVar, overload

from apiflux_grpc.core.budget import largest
from apiflux_grpc.core.call import IDEMPOTENT_METHODS, SENDER_HEADERS, Call
from apiflux_grpc.core.cost import LARGEST_COST
from apiflux_grpc.core.errors import BatchTooLarge, InvalidRequest
from apiflux_grpc.core.model import MILLISECOND, RETRY_REASONS, SECOND, Counts, HeaderKey, RetryPolicy
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.server.status import result_error
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.duration_pb2 import Duration

    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.core.outcome import Result
    from apiflux_grpc.engine.messages import Over, Standing

T = TypeVar("T")

MOST_ESTIMATED: Final = 10**12
SLICE: Final = 2_000  # calls checked without giving the loop a turn
LONGEST_BACKOFF: Final = 60 * SECOND

# RFC 3986, section 3.3: pchar and "/"; a percent sign must begin a whole escape.
_PATH: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*").fullmatch
_DOTS: Final = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE).search
_METHOD: Final = re.compile(r"[A-Z]{1,20}").fullmatch
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+").fullmatch  # RFC 9110, section 5.6.2
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*").fullmatch
_CORRELATION: Final = re.compile(r"[\x21-\x7e]{1,128}").fullmatch

# Authorization may carry a key, so no call may set it.
OUR_HEADERS: Final = SENDER_HEADERS | {"authorization"}


class _Calls(Sequence[Call]):
    """The calls of a request message, each unpacked when it is asked for."""

    __slots__ = ("_message",)

    def __init__(self, message: pb.ProcessRequest) -> None:
        self._message = message

    def __len__(self) -> int:
        return len(self._message.calls)

    @overload
    def __getitem__(self, index: int) -> Call: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Call]: ...
    def __getitem__(self, index: int | slice) -> Call | Sequence[Call]:
        if isinstance(index, slice):
            return [_call(call) for call in self._message.calls[index]]
        return _call(self._message.calls[index])


class _Same(Sequence[T]):
    """One thing, many times."""

    __slots__ = ("_count", "_one")

    def __init__(self, one: T, count: int) -> None:
        self._one = one
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self._one] * len(range(self._count)[index])
        if not -self._count <= index < self._count:
            raise IndexError(index)  # what ends an iteration
        return self._one


def _call(message: pb.Call) -> Call:
    method = message.method or "GET"
    return Call(
        method=method,
        path=message.path or "/",
        query=dict(message.query) if message.query else {},
        headers=dict(message.headers) if message.headers else {},
        body=message.body,
        timeout=_nanoseconds(message.timeout) if message.HasField("timeout") else None,
        idempotent=message.idempotent if message.HasField("idempotent") else method in IDEMPOTENT_METHODS,
        id=message.id,
    )


def _nanoseconds(duration: Duration) -> int:
    return duration.seconds * SECOND + duration.nanos


def _sendable(method: str) -> bool:
    return _METHOD(method) is not None and method not in ("CONNECT", "TRACE")


class Checks:
    """What is wrong with calls and with a batch's options, by field path: `faults`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.faults: list[tuple[str, str]] = []
        header = isinstance(pool.key_in, HeaderKey)
        self._reserved = OUR_HEADERS | {pool.key_in.name.lower()} if header else OUR_HEADERS
        self._reserved_query = None if header else pool.key_in.name
        self._max_cost = _max_cost(pool)

    def _fault(self, field: str, what: str) -> None:
        self.faults.append((field, what))

    def check(self, where: str, call: pb.Call) -> None:
        """One call. The usual one passes through a handful of tests; `where` is its field path."""
        if len(call.id) > 256:
            self._fault(f"{where}.id", "is longer than 256 characters")
        method = call.method
        if method and method not in IDEMPOTENT_METHODS and not _sendable(method):
            hint = f"; did you mean {method.upper()!r}?" if _sendable(method.upper()) else ""
            self._fault(f"{where}.method", f"{method[:32]!r} is not a method that can be sent{hint}")
        self._path(where, call.path)
        if call.headers:
            self._headers(where, call)
        if call.query and self._reserved_query is not None and self._reserved_query in call.query:
            self._fault(f"{where}.query", f"has {self._reserved_query!r}, which carries the pool's key")
        if call.HasField("timeout"):
            timeout = _nanoseconds(call.timeout)
            if not 0 < timeout <= self._pool.timeout:
                longest = self._pool.timeout / SECOND
                self._fault(f"{where}.timeout", f"is {timeout / SECOND:g} s; it is above 0 and at most {longest:g} s")
        if call.HasField("cost"):
            self._cost(where, call.cost)

    def _path(self, where: str, path: str) -> None:
        if not _PATH(path):
            what = "has a character that must be percent-encoded, or a bad percent sign"
            if "?" in path or "#" in path:
                what = 'has "?" or "#": parameters go into `query`, fragments are never sent'
            self._fault(f"{where}.path", what)
        elif path.startswith("//"):
            self._fault(f"{where}.path", 'begins with "//", which names a host; a path is relative to the pool')
        elif ":" in path.split("/", 1)[0]:
            self._fault(f"{where}.path", "looks like a whole URL; a path is relative to the pool's base URL")
        elif ("." in path or "%2" in path) and _DOTS(path):
            self._fault(f"{where}.path", 'has a "." or ".." segment')
        elif self._pool.allow_paths:
            full = path if path.startswith("/") else f"/{path}"
            if not full.startswith(self._pool.allow_paths):
                self._fault(f"{where}.path", f"pool {self._pool.name!r} allows {', '.join(self._pool.allow_paths)}")

    def _headers(self, where: str, call: pb.Call) -> None:
        seen: set[str] = set()
        for name, value in call.headers.items():
            lower = name.lower()
            place = f"{where}.headers[{name[:64]!r}]"
            if not _TOKEN(name):
                self._fault(place, "is not a header name")
            elif lower in self._reserved:
                self._fault(place, "is set by the service")
            elif lower in seen:
                self._fault(place, "stands twice, in different case")
            if not _VALUE(value):
                self._fault(place, "has a character that a header can't carry (CR, LF, NUL, other controls, non-ASCII)")
            seen.add(lower)

    def _cost(self, where: str, cost: int) -> None:
        if cost < 0:
            self._fault(f"{where}.cost", f"is {cost}; it is 0 or more")
        elif cost > self._max_cost:
            self._fault(f"{where}.cost", f"is {cost}; no key of this pool takes more than {self._max_cost} at once")

    def options(self, request: pb.ProcessRequest | pb.ProcessStreamOpen) -> RetryPolicy:
        """What concerns the batch as a whole; returns its policy."""
        if request.priority < -3 or request.priority > 3:
            self._fault("priority", f"is {request.priority}; it goes from -3 to 3")
        if request.correlation_id and not _CORRELATION(request.correlation_id):
            self._fault("correlation_id", "takes up to 128 printable ASCII characters without spaces")
        own = self._pool.retry
        if not request.HasField("retry"):
            return own
        asked = request.retry
        most = asked.max_attempts or own.max_attempts
        if not 1 <= most <= own.max_attempts:
            self._fault("retry.max_attempts", f"is {most}; this pool allows 1 to {own.max_attempts}")
        first = _nanoseconds(asked.initial_backoff) if asked.HasField("initial_backoff") else own.initial_backoff
        if not MILLISECOND <= first <= LONGEST_BACKOFF:
            self._fault("retry.initial_backoff", f"is {first / SECOND:g} s; it is 0.001 to 60 s")
        last = _nanoseconds(asked.max_backoff) if asked.HasField("max_backoff") else max(own.max_backoff, first)
        if not first <= last <= LONGEST_BACKOFF:
            self._fault("retry.max_backoff", f"is {last / SECOND:g} s; it is {first / SECOND:g} (initial) to 60 s")
        reasons = own.reasons
        if asked.reasons:
            words = {reason.value: reason for reason in RETRY_REASONS}
            for place, word in enumerate(asked.reasons):
                if word not in words:
                    known = ", ".join(sorted(words))
                    self._fault(f"retry.reasons[{place}]", f"{word[:32]!r} is not one of {known}")
            reasons = own.reasons & {words[word] for word in asked.reasons if word in words}
        return RetryPolicy(most, first, last, reasons)


class Checking:
    """One request on its way to a BatchSpec.

    `slices()` does the work a slice at a time, so that the server's loop gets a turn in between; then `spec` is
    the batch. Raises InvalidRequest with every violation found, BatchTooLarge where it is over the maximum.
    """

    def __init__(
        self,
        request: pb.ProcessRequest,
        pool: Pool,
        caller: str,
        *,
        default_repeat: int,
        max_calls: int,
        max_bytes: int,
    ) -> None:
        self._request = request
        self._pool = pool
        self._caller = caller
        self._default_repeat = default_repeat
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._size = request.ByteSize()
        self._checks = Checks(pool)
        self._ids: set[str] = set()
        self._costs: list[int] | None = None

    def slices(self) -> Iterator[None]:
        """Check everything; yields where the loop may take a turn."""
        request = self._request
        total = len(request.calls)
        if total > self._max_calls or self._size > self._max_bytes:
            self._refuse_large(total, self._size)
        if request.HasField("repeat"):
            self._repeat(request.repeat)
        elif not total:
            self._fault("calls", "is empty, and there is no repeat; a batch has at least one call")
        for start in range(0, total, SLICE):
            for index in range(start, min(start + SLICE, total)):
                self._check(index, request.calls[index])
            yield
        self._policy = self._checks.options(request)
        if self._checks.faults:
            raise InvalidRequest(self._checks.faults)

    def spec(self, deadline: int | None = None) -> BatchSpec:
        """The batch, with ns to its deadline; only after `slices` has run to its end."""
        request = self._request
        calls: Sequence[Call] = _Calls(request)
        costs: Sequence[int] | None = self._costs
        if request.HasField("repeat"):
            count = request.repeat.count or self._default_repeat
            calls = _Same(_call(request.repeat.template), count)
            if request.repeat.template.HasField("cost"):
                costs = _Same(request.repeat.template.cost, count)
        return BatchSpec(
            pool=self._pool.name,
            caller=self._caller,
            calls=calls,
            retry=self._policy,
            size=self._size,
            costs=costs,
            weight=2.0**request.priority,
            ordered=request.ordered,
            deadline=deadline,
        )

    def _fault(self, field: str, what: str) -> None:
        self._checks.faults.append((field, what))

    def _check(self, index: int, call: pb.Call) -> None:
        where = f"calls[{index}]"
        self._checks.check(where, call)
        if id := call.id:
            if id in self._ids:
                self._fault(f"{where}.id", f"{id[:64]!r} is used twice in this batch")
            self._ids.add(id)
        if call.HasField("cost"):
            if self._costs is None:
                self._costs = [1] * len(self._request.calls)
            self._costs[index] = call.cost

    def _refuse_large(self, total: int, size: int) -> None:
        faults = []
        if total > self._max_calls:
            faults.append(("calls", f"has {total} calls; a batch has at most {self._max_calls}"))
        if size > self._max_bytes:
            faults.append(("calls", f"makes a request of {size} bytes; a batch has at most {self._max_bytes}"))
        field, what = faults[-1]
        faults[-1] = (field, f"{what}. Split it, or use ProcessStream, which takes a batch of any length")
        raise BatchTooLarge(faults)

    def _repeat(self, repeat: pb.RepeatedCall) -> None:
        if self._request.calls:
            self._fault("repeat", "and calls exclude each other")
        if not self._pool.allow_repeat:
            self._fault(
                "repeat", f"is for synthetic load, and pool {self._pool.name!r} doesn't allow it (allow_repeat)"
            )
        if repeat.count < 0:
            self._fault("repeat.count", f"is {repeat.count}; it is 0 (the default) or more")
        if repeat.count > self._max_calls:
            raise BatchTooLarge([("repeat.count", f"is {repeat.count}; a batch has at most {self._max_calls} calls")])
        if repeat.template.id:
            self._fault("repeat.template.id", "must be empty: ids are unique in a batch")
        self._checks.check("repeat.template", repeat.template)


class StreamChecking:
    """The calls of one ProcessStream, message by message. `names` has the ids of calls without a result yet."""

    def __init__(self, open: pb.ProcessStreamOpen, pool: Pool) -> None:
        self._open = open
        self._pool = pool
        self._checks = Checks(pool)
        self._next = 0
        self.names: dict[int, str] = {}
        self._used: set[str] = set()

    def spec(self, caller: str) -> BatchSpec:
        """The batch, without calls. Raises InvalidRequest."""
        checks = self._checks
        policy = checks.options(self._open)
        if checks.faults:
            raise InvalidRequest([(f"open.{field}", what) for field, what in checks.faults])
        return BatchSpec(
            pool=self._pool.name,
            caller=caller,
            calls=(),
            retry=policy,
            weight=2.0**self._open.priority,
            ordered=self._open.ordered,
            fed=True,
        )

    def take(
        self, calls: Sequence[pb.Call]
    ) -> tuple[list[tuple[int, Call, int]], list[tuple[int, str]], dict[int, int]]:
        """(index, call, cost) of the good ones, (index, what is wrong) of the others, bytes of each by index.

        Raises InvalidRequest with all that is wrong where the stream is strict. An id must be unique among calls
        without a result.
        """
        good: list[tuple[int, Call, int]] = []
        wrong: list[tuple[int, str]] = []
        found: list[tuple[str, str]] = []
        checks = self._checks
        sizes: dict[int, int] = {}
        for call in calls:
            index = self._next
            sizes[index] = call.ByteSize()
            self._next += 1
            checks.faults.clear()
            checks.check(f"calls[{index}]", call)
            if id := call.id:
                if id in self._used:
                    checks.faults.append((f"calls[{index}].id", f"{id[:64]!r} is that of a call without a result yet"))
                else:
                    self._used.add(id)
                    self.names[index] = id
            if checks.faults:
                found += checks.faults
                wrong.append((index, "; ".join(f"{field}: {what}" for field, what in checks.faults)))
            else:
                good.append((index, _call(call), call.cost if call.HasField("cost") else 1))
        if found and self._open.strict:
            raise InvalidRequest(found)
        return good, wrong, sizes

    def name(self, index: int) -> str:
        """The id of a call that has its result now; it may be used again."""
        id = self.names.pop(index, "")
        self._used.discard(id)
        return id


def check_estimate(request: pb.EstimateRequest, pool: Pool) -> None:
    """Raises InvalidRequest where what is asked about can't be."""
    faults = []
    if not 0 < request.calls <= MOST_ESTIMATED:
        faults.append(("calls", f"is {request.calls}; it is 1 to {MOST_ESTIMATED}"))
    most = _max_cost(pool)
    if request.cost_per_call < 0:
        faults.append(("cost_per_call", f"is {request.cost_per_call}; it is 0 (one) or more"))
    elif request.cost_per_call > most:
        faults.append(
            ("cost_per_call", f"is {request.cost_per_call}; no key of this pool takes more than {most} at once")
        )
    if faults:
        raise InvalidRequest(faults)


def _max_cost(pool: Pool) -> int:
    """The largest cost that some key could ever take at once, by its limits and its group's."""
    shared = {label: group.limits for group in pool.groups for label in group.keys}
    best = 0
    for key in pool.keys:
        limits = [limit for limit in (*key.limits, *shared.get(key.label, ())) if limit.counts is Counts.COST]
        best = max(best, min((largest(limit, pool.arrival_jitter) for limit in limits), default=LARGEST_COST))
    return best


# -- out -------------------------------------------------------------------------------------------


def wall_offset() -> int:
    """What to add (ns) to the engine's clock to get the time of day."""
    return time.time_ns() - time.monotonic_ns()


def encode(results: Sequence[Result], name: Callable[[int], str], offset: int) -> pb.ProcessResponse:
    """A response message with these results; `name` gives the id of a call. `offset` is wall_offset()."""
    response = pb.ProcessResponse()
    add = response.results.add
    for result in results:
        message = add()
        index = result.index
        message.index = index
        if id := name(index):
            message.id = id
        outcome = result.outcome
        if isinstance(outcome, Answer) and outcome.fault is None:
            answer = message.response
            answer.status_code = outcome.status
            answer.body = outcome.body
            headers = answer.headers  # `update` takes twice as long
            for header, value in outcome.headers.items():
                headers[header] = value
            if outcome.truncated:
                answer.truncated = True
        else:
            message.error.CopyFrom(result_error(result))
        if result.failure is not None:
            message.failure = result.failure.value
        if result.attempts:
            message.key_label = result.key
            message.attempts = result.attempts
            length = message.latency
            length.seconds, length.nanos = divmod(result.latency, SECOND)
        length = message.queue_time
        length.seconds, length.nanos = divmod(result.queue_time, SECOND)
        at = message.completed_at
        at.seconds, at.nanos = divmod(result.ended_at + offset, SECOND)
    return response


def names_of(request: pb.ProcessRequest) -> Callable[[int], str]:
    """The ids of a request's calls, by index."""
    calls = request.calls
    return (lambda index: calls[index].id) if calls else (lambda index: "")


def put_progress(response: pb.ProcessResponse, standing: Standing, total: int) -> None:
    """How the batch stands, into a response."""
    progress = response.progress
    progress.done = standing.done
    progress.total = total
    progress.in_flight = standing.in_flight
    if standing.eta is not None:
        progress.eta.FromNanoseconds(standing.eta)


def put_summary(response: pb.ProcessResponse, over: Over, correlation_id: str) -> None:
    """The batch's figures, into the last response."""
    tally, summary = over.tally, response.summary
    summary.total = tally.total
    summary.succeeded = tally.succeeded
    summary.cancelled = tally.cancelled
    summary.failed = sum(tally.failed.values())
    for reason, count in tally.failed.items():
        summary.failed_by_reason[reason.value] = count
    summary.retries = tally.retries
    summary.elapsed.FromNanoseconds(over.elapsed)
    summary.calls_by_key.update(tally.calls_by_key)
    summary.time_waiting.FromNanoseconds(tally.time_waiting)
    summary.time_in_calls.FromNanoseconds(tally.time_in_calls)
    summary.correlation_id = correlation_id
