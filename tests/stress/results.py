"""Results of a run that never ran."""

from __future__ import annotations

from apiflux_grpc.core.units import SECOND
from apiflux_grpc.stress.figures import Measured, Request
from apiflux_grpc.v1 import apiflux_pb2 as pb

MINUTE = 60 * SECOND
START = 1_764_000_000 * SECOND  # by the server's clock


def took(measured: Measured, request: int, key: str, sent: int, latency: int, came: float, status: int = 200) -> None:
    """A result: sent so many ns after START."""
    result = pb.CallResult(response=pb.HttpResponse(status_code=status), key_label=key, attempts=1)
    result.completed_at.FromNanoseconds(START + sent + latency)
    result.latency.FromNanoseconds(latency)
    measured.add(result)
    measured.requests[request].came.append(came)


def two_requests(**limits: list[tuple[int, int]]) -> Measured:
    """Four calls each: one request has all its results, the other half of them."""
    measured = Measured([Request(), Request()], 4, limits)
    for place in range(4):
        took(measured, 0, "a", place * SECOND, SECOND // 10, place + 0.1)
    took(measured, 1, "b", SECOND // 2, SECOND // 5, 0.7)
    took(measured, 1, "b", SECOND, SECOND // 5, 1.2, status=429)
    measured.requests[0].ended = 3.2
    measured.elapsed = 4.0
    return measured
