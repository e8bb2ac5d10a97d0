"""What is wrong with a call of the contract, and what it costs.

Rule: a file's calls are judged here before they are sent, and again in the server when they arrive, so both say the
same. What is wrong is core/checks.py's to say; of the server this knows nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.checks import MOST_FIELDS, too_many
from apiflux_grpc.core.cost_of_call import cost_of_call
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.duration_pb2 import Duration

    from apiflux_grpc.core.call import Pairs
    from apiflux_grpc.core.checks import Checks, Fault
    from apiflux_grpc.v1 import apiflux_pb2 as pb


def check_call(checks: Checks, call: pb.Call) -> list[Fault]:
    """What is wrong with a call, but for a cost that is read from its body."""
    headers, query = call.headers, call.query  # each look makes an object
    if len(headers) > MOST_FIELDS or len(query) > MOST_FIELDS:
        return too_many(len(headers), len(query))
    return checks.call(
        call.id,
        call.method,
        call.path,
        pairs(headers) if headers else (),
        pairs(query) if query else (),
        nanoseconds(call.timeout) if call.HasField("timeout") else None,
        call.cost if call.HasField("cost") else None,
    )


def cost_of(checks: Checks, call: pb.Call, faults: list[Fault]) -> int:
    """What a call costs; `faults` gets what is wrong with a cost that is read from its body."""
    if call.HasField("cost"):
        return call.cost
    if checks.cost_rule is None:
        return 1
    cost = cost_of_call(checks.cost_rule, call.body)
    faults += checks.read_cost(cost, call.path)
    return cost


def pairs(fields: Iterable[pb.Header] | Iterable[pb.QueryParameter]) -> Pairs:
    """Names and values, in their order."""
    return tuple([(field.name, field.value) for field in fields])


def nanoseconds(duration: Duration) -> int:
    """A length of time, exactly."""
    return duration.seconds * SECOND + duration.nanos
