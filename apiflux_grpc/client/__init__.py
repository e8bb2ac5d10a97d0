"""The typed Python client: `Client` (async) and `SyncClient`, their calls, results and errors.

Rule: what is named here is what users import; everything else in this package may change. It needs nothing of the
server.
"""

from apiflux_grpc.client.aio import Client, Stream
from apiflux_grpc.client.answer import Headers, Response
from apiflux_grpc.client.calls import Call, Retry
from apiflux_grpc.client.errors import (
    ApifluxError,
    CallFailed,
    DeadlineExceeded,
    DeadlineInfeasible,
    InternalError,
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    PoolNotFound,
    Unauthenticated,
    Unavailable,
)
from apiflux_grpc.client.feed import CallSource
from apiflux_grpc.client.info import BudgetStore, Estimate, Info, Key, KeyLimit, Pool
from apiflux_grpc.client.results import CallError, Held, Progress, Result, Summary
from apiflux_grpc.client.sync import SyncClient, SyncStream
from apiflux_grpc.client.tls import TlsOptions
from apiflux_grpc.client.token import TokenFile

__all__ = [
    "ApifluxError",
    "BudgetStore",
    "Call",
    "CallError",
    "CallFailed",
    "CallSource",
    "Client",
    "DeadlineExceeded",
    "DeadlineInfeasible",
    "Estimate",
    "Headers",
    "Held",
    "Info",
    "InternalError",
    "InvalidRequest",
    "Key",
    "KeyLimit",
    "Overloaded",
    "PermissionDenied",
    "Pool",
    "PoolNotFound",
    "Progress",
    "Response",
    "Result",
    "Retry",
    "Stream",
    "Summary",
    "SyncClient",
    "SyncStream",
    "TlsOptions",
    "TokenFile",
    "Unauthenticated",
    "Unavailable",
]
