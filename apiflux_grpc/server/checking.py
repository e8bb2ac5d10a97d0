"""A request on its way to a batch: everything in it is checked before anything is sent.

Rule: a batch is refused as a whole, with the first faults and their field paths. A stream is checked message by
message, and a wrong call is refused alone, unless the caller asked for a strict stream. What is wrong is
core/checks.py's to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.batch import FedCall
from apiflux_grpc.core.caller_checks import checks_for
from apiflux_grpc.core.callers import Access
from apiflux_grpc.core.checks import Checks, Faults, Ids, empty, too_large
from apiflux_grpc.core.errors import BatchTooLarge, InvalidRequest
from apiflux_grpc.core.same import Same
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.server import wire
from apiflux_grpc.server.calls import check_call, cost_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apiflux_grpc.core.call import Call
    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.v1 import apiflux_pb2 as pb

ALL: Final = Access()
SLICE: Final = 2_000  # calls checked without giving the loop a turn: some 5 ms
SLICE_BYTES: Final = 1 << 18  # at worst all headers, or a body that a cost is read from: some 80 ms


class Checking:
    """One request on its way to a BatchSpec.

    `slices()` does the work a slice at a time, so that the server's loop gets a turn in between; then `spec` is
    the batch. Raises InvalidRequest with its faults, or BatchTooLarge if the batch is over the maximum.
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
        access: Access = ALL,
    ) -> None:
        self._request = request
        self._pool = pool
        self._caller = caller
        self._default_repeat = default_repeat
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self.size = request.ByteSize()
        # Of a batch that is over the maximum, which `slices` says.
        self.calls = min(
            max_calls, request.repeat.count or default_repeat if request.HasField("repeat") else len(request.calls)
        )
        self._access = access
        self._checks = checks_for(pool, access)
        self._ids = Ids()
        self._faults = Faults()
        self._costs: list[int] | None = None
        self._repeat_cost = 1
        self._path_classes = self._checks.classes
        # Found here, a slice at a time: the engine's loop would stand still for it.
        self._classes: bytearray | None = bytearray() if self._path_classes.count > 1 else None

    def slices(self) -> Iterator[None]:
        """Check everything; yields when the loop may take a turn."""
        calls = self._request.calls
        total = len(calls)
        self._batch(total)
        start = 0
        for end in _ends(calls, SLICE, self.size):
            for index in range(start, end):
                self._call(index, calls[index])
            start = end
            yield
        self._policy, faults = wire.check_options(self._checks, self._request)
        self._faults.add(faults)
        _refuse(self._faults)

    def spec(self, deadline: int | None = None) -> BatchSpec:
        """The batch, with ns to its deadline; only after `slices` has run to its end."""
        request = self._request
        calls: Sequence[Call] = wire.Calls(request, self._pool.idempotent)
        costs: Sequence[int] | None = self._costs
        classes = None if self._classes is None else bytes(self._classes)
        if request.HasField("repeat"):
            count = request.repeat.count or self._default_repeat
            calls = Same(wire.call_of(request.repeat.template, self._pool.idempotent), count)
            costs = None if self._repeat_cost == 1 else Same(self._repeat_cost, count)
            if classes is not None:
                classes = bytes([self._path_classes.of(request.repeat.template.path)]) * count
        return BatchSpec(
            pool=self._pool.name,
            caller=self._caller,
            calls=calls,
            retry=self._policy,
            size=self.size,
            costs=costs,
            classes=classes,
            weight=2.0**request.priority,
            caller_weight=self._access.weight,
            ordered=request.ordered,
            deadline=deadline,
        )

    def _batch(self, total: int) -> None:
        repeat = self._request.repeat
        large = too_large(total, repeat.count, self.size, max_calls=self._max_calls, max_bytes=self._max_bytes)
        if large:
            raise BatchTooLarge(large)
        if self._request.HasField("repeat"):
            self._faults.add(self._checks.repeat(repeat.count, repeat.template.id, with_calls=total > 0))
            faults = check_call(self._checks, repeat.template)
            self._repeat_cost = cost_of(self._checks, repeat.template, faults)
            self._faults.add(faults, "repeat.template")
        elif not total:
            self._faults.add([empty()])

    def _call(self, index: int, call: pb.Call) -> None:
        faults = check_call(self._checks, call)
        if call.HasField("cost") or self._checks.cost_rule is not None:
            if self._costs is None:  # most batches have no costs, and need no list
                self._costs = [1] * len(self._request.calls)
            self._costs[index] = cost_of(self._checks, call, faults)
        if self._classes is not None:
            self._classes.append(self._path_classes.of(call.path))
        if (id := call.id) and (taken := self._ids.take(id)):
            faults.append(taken)
        if faults:
            self._faults.add(faults, f"calls[{index}]")


class StreamChecking:
    """The calls of one ProcessStream, message by message. `names` has the ids of calls without a result yet."""

    def __init__(self, open: pb.ProcessStreamOpen, pool: Pool, access: Access = ALL) -> None:
        self._open = open
        self._pool = pool
        self._access = access
        self._checks = checks_for(pool, access)
        self._next = 0
        self.names: dict[int, str] = {}
        self._ids = Ids(streamed=True)

    def spec(self, caller: str) -> BatchSpec:
        """The batch, without calls. Raises InvalidRequest."""
        policy, faults = wire.check_options(self._checks, self._open)
        if faults:
            raise InvalidRequest([fault.of("open") for fault in faults])
        return BatchSpec(
            pool=self._pool.name,
            caller=caller,
            calls=(),
            retry=policy,
            weight=2.0**self._open.priority,
            caller_weight=self._access.weight,
            ordered=self._open.ordered,
            fed=True,
            expected=self._open.expected_calls,
        )

    @staticmethod
    def slices(message: pb.ProcessStreamRequest, most: int) -> Iterator[Sequence[pb.Call]]:
        """The calls of a message, so many at once as `take` may take without giving the loop a turn, `most` at most."""
        start = 0
        for end in _ends(message.calls, most, message.ByteSize()):
            yield message.calls[start:end]
            start = end

    def take(self, calls: Sequence[pb.Call]) -> tuple[list[FedCall], list[tuple[int, str]], dict[int, int]]:
        """The good ones, (index, what is wrong) of the others, bytes of each by index.

        Raises InvalidRequest with the faults if one of them is wrong and the stream is strict.
        """
        good: list[FedCall] = []
        wrong: list[tuple[int, str]] = []
        found = Faults()
        sizes: dict[int, int] = {}
        for index, call in enumerate(calls, self._next):
            sizes[index] = call.ByteSize()  # a wrong call is held too, until its result was read
            faults = check_call(self._checks, call)
            cost = cost_of(self._checks, call, faults)
            if id := call.id:
                if taken := self._ids.take(id):
                    faults.append(taken)
                else:
                    self.names[index] = id
            if faults:
                placed = [fault.of(f"calls[{index}]") for fault in faults]
                found.add(placed)
                wrong.append((index, "; ".join(f"{field}: {text}" for field, text in placed)))
            else:
                good.append(FedCall(index, wire.call_of(call, self._pool.idempotent), cost))
        self._next += len(calls)
        if self._open.strict:
            _refuse(found)
        return good, wrong, sizes

    def name(self, index: int) -> str:
        """The id of a call that has its result now; it may be used again."""
        id = self.names.pop(index, "")
        self._ids.release(id)
        return id


def _refuse(faults: Faults) -> None:
    if faults.told:
        raise InvalidRequest(faults.told, faults.more)


def _ends(calls: Sequence[pb.Call], most: int, size: int) -> Iterator[int]:
    """Where slices of `most` calls end, and sooner after SLICE_BYTES, of calls with `size` bytes in all."""
    start = read = 0
    if size > SLICE_BYTES:  # most requests are small: none of their calls needs to be measured
        for end, call in enumerate(calls, 1):
            read += call.ByteSize()
            if read >= SLICE_BYTES or end - start == most:
                yield end
                start, read = end, 0
    yield from range(start + most, len(calls), most)
    if start < len(calls):
        yield len(calls)


def check_estimate(request: pb.EstimateRequest, pool: Pool) -> None:
    """Raises InvalidRequest if such a batch can't be."""
    if faults := Checks(pool).estimate(request.calls, request.cost_per_call):
        raise InvalidRequest(faults)
