"""Runs a batch of calls and prints each result as it comes, one JSON object a line, with nothing but the stubs.

    python clients/python/run_batch.py [--pool NAME] [--tries N] HOST:PORT PATH...

Exit codes: 0 every call succeeded; 2 usage, or a request that the server can't accept; 3 some calls failed; 4 the
server isn't there, isn't healthy, stayed full, or the batch was cut short; 130 Ctrl-C, which cancels the batch.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc

FINE, BAD_REQUEST, CALLS_FAILED, CUT_SHORT, INTERRUPTED = 0, 2, 3, 4, 130

HEALTH_TIMEOUT: Final = 10.0  # seconds
OPTIONS: Final = (
    ("grpc.max_receive_message_length", 64 << 20),  # gRPC's default is 4 MiB
    ("grpc.enable_http_proxy", 0),  # the service runs beside its callers
)


class Failed(Exception):
    """A failure that is no gRPC status."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs a batch of calls and prints each result as it comes.")
    parser.add_argument("--pool", default="", help="the pool to use")
    parser.add_argument("--tries", type=int, default=5, help="how often to ask a server that is full")
    parser.add_argument("target", metavar="HOST:PORT")
    parser.add_argument("paths", metavar="PATH", nargs="+")
    options = parser.parse_args()
    if options.tries < 1:
        parser.error("--tries is a number from 1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with grpc.insecure_channel(options.target, options=OPTIONS) as channel:
        try:
            check_health(channel)
            request = pb.ProcessRequest(pool=options.pool, calls=[pb.Call(path=path) for path in options.paths])
            summary = run_batch(channel, request, options.tries)
        except KeyboardInterrupt:
            print("interrupted: the batch was cancelled", file=sys.stderr)
            return INTERRUPTED
        except Failed as error:
            print(f"{options.target}: {error}", file=sys.stderr)
            return CUT_SHORT
        except grpc.RpcError as error:
            print(f"{options.target}: {describe(error)}", file=sys.stderr)
            refused = error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
            return BAD_REQUEST if refused else CUT_SHORT
        except BrokenPipeError:  # nobody reads on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return CUT_SHORT
    elapsed = summary.elapsed.ToTimedelta().total_seconds()
    print(f"{summary.succeeded} of {summary.total} succeeded in {elapsed:.3f}s", file=sys.stderr)
    return FINE if summary.succeeded == summary.total else CALLS_FAILED


def check_health(channel: grpc.Channel) -> None:
    """Ask the standard health service about ours. Raises Failed."""
    service = pb.DESCRIPTOR.services_by_name["FluxService"].full_name
    request = health_pb2.HealthCheckRequest(service=service)
    stub: Any = health_pb2_grpc.HealthStub(channel)  # its type stub names no methods
    try:
        status = stub.Check(request, timeout=HEALTH_TIMEOUT).status
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            raise Failed(f"the server has no {service}") from None
        raise
    if status != health_pb2.HealthCheckResponse.SERVING:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
        raise Failed(f"the server isn't healthy: {name}")


def run_batch(channel: grpc.Channel, request: pb.ProcessRequest, tries: int) -> pb.Summary:
    """Run the batch and return its summary. Raises Failed.

    A full server has sent nothing of it and says when to come back; it is asked again then, so many times in all.
    """
    for left in range(tries - 1, -1, -1):
        try:
            return run_once(channel, request)
        except grpc.RpcError as error:
            delay = retry_delay(error)
            if delay is None or not left:
                raise
            print(f"{describe(error)}; trying again in {delay:g}s", file=sys.stderr, flush=True)
            time.sleep(delay)
    raise AssertionError("not reached")


def run_once(channel: grpc.Channel, request: pb.ProcessRequest) -> pb.Summary:
    token = os.environ.get("APIFLUX_TOKEN")  # without TLS it can be read on its way
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    stream = apiflux_pb2_grpc.FluxServiceStub(channel).Process(request, metadata=metadata)
    summary: pb.Summary | None = None
    try:
        for message in stream:
            for result in message.results:
                print(json.dumps(line_of(result, request), ensure_ascii=False), flush=True)
            if message.HasField("summary"):
                summary = message.summary
    finally:
        stream.cancel()  # of no effect when the stream has ended
    if summary is None:
        raise Failed("the batch was cut short: no summary came")
    return summary


def line_of(result: pb.CallResult, request: pb.ProcessRequest) -> dict[str, Any]:
    path = request.calls[result.index].path
    line = {"index": result.index, "path": path, "key": result.key_label, "attempts": result.attempts}
    if result.HasField("error"):
        info = error_details_pb2.ErrorInfo()
        for detail in result.error.details:
            detail.Unpack(info)
        return {**line, "error": {"reason": info.reason, "message": result.error.message}}
    response = result.response
    return {**line, "status": response.status_code, "body": response.body.decode("utf-8", "replace")}


def retry_delay(error: Any) -> float | None:
    """How long to wait, in seconds, if the server was full; None for any other error."""
    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return None
    info = error_details_pb2.RetryInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info):
                    return info.retry_delay.ToTimedelta().total_seconds()
    return None  # gRPC's own: a message is too large, and will be


def describe(error: Any) -> str:
    return f"{error.code().name}: {error.details()}"


if __name__ == "__main__":
    sys.exit(main())
