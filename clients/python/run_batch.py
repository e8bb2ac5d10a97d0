"""A batch of calls with nothing but the generated stubs: what a client in any language does.

    python clients/python/run_batch.py 127.0.0.1:50051 /v1/one /v1/two

Prints each result as it comes and the summary at the end; Ctrl-C cancels the batch. Exit code 3: some calls failed,
4: the request failed.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc


def main(target: str, paths: list[str]) -> int:
    request = pb.ProcessRequest(calls=[pb.Call(id=path, path=path) for path in paths])
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = apiflux_pb2_grpc.FluxServiceStub(channel)
        stream = stub.Process(request)
        try:
            for message in stream:
                for result in message.results:
                    print(result.id, result.response.status_code or result.error.message, result.key_label, flush=True)
                if message.HasField("summary"):
                    summary = message.summary
                    print(f"{summary.succeeded} of {summary.total} succeeded")
                    return 0 if summary.succeeded == summary.total else 3
        except KeyboardInterrupt:
            stream.cancel()
        except grpc.RpcError as error:
            explain(error)
        return 4


def explain(error: Any) -> None:
    """The status, and when to come back if the server said so."""
    print(f"{error.code().name}: {error.details()}", file=sys.stderr)
    details = [value for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin"]
    retry = error_details_pb2.RetryInfo()
    for detail in status_pb2.Status.FromString(b"".join(map(bytes, details))).details:
        if detail.Unpack(retry):
            print(f"come back in {retry.retry_delay.ToTimedelta()}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: run_batch.py HOST:PORT PATH...")
    sys.exit(main(sys.argv[1], sys.argv[2:]))
