"""How a batch stands that several servers work at, from what each of them says of its part.

Rules:
- What can be counted is added up. Calls that no server has yet are counted too.
- The calls that are left are done by all servers together: each does its own at the rate that its `eta` tells, and
  whoever is done takes from the others. A server whose `eta` isn't known does none of them. One that hasn't reckoned
  yet will: until then no time is told, for without its part the others would need up to as many times as long as there
  are servers. Of limits that the servers share through a store each reckons with its share.
- Of what calls wait for, each cause is told once; of limits the one that is over first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.client.books import Books


def combined(told: Sequence[pb.Progress], books: Books, to_come: int, paces: Sequence[float | None]) -> pb.Progress:
    """The progress of the whole; `to_come` calls are still expected of the producer. `paces`: of all servers that take
    part, also of those that have said nothing yet; None: it isn't known yet."""
    whole = pb.Progress(
        done=books.delivered, total=books.taken, in_flight=sum(one.in_flight for one in told), to_come=to_come
    )
    left = to_come + books.taken - books.delivered
    rate = sum(filter(None, paces))
    if not left:
        whole.eta.FromNanoseconds(0)
    elif rate and None not in paces:
        whole.eta.FromNanoseconds(round(left / rate * 1e9))
    if told and len(told) == len(paces) and all(one.HasField("rate") for one in told):
        whole.rate = sum(one.rate for one in told)
    for held in sorted((held for one in told for held in one.held_by), key=lambda held: -held.key_count):
        if all(held.cause != other.cause for other in whole.held_by):
            whole.held_by.append(held)
    waits = [one.waits_for for one in told if one.HasField("waits_for")]
    if waits:
        whole.waits_for.CopyFrom(min(waits, key=_wait))
    return whole


def pace(told: pb.Progress) -> float:
    """Calls a second that a server does of those that it has or expects; 0: it has none, or doesn't know."""
    calls = told.total - told.done + told.to_come
    if not calls or not told.HasField("eta"):
        return 0.0
    return calls / max(told.eta.ToNanoseconds() / 1e9, 1e-3)


def _wait(held: pb.Held) -> float:
    return held.wait.ToNanoseconds() if held.HasField("wait") else math.inf
