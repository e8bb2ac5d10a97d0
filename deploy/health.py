"""The HEALTHCHECK of the image: exit code 0 while the server says SERVING, 1 otherwise.

It asks the standard health service, which isn't logged. With TLS --ca-file says whom to trust, --cert-file and
--key-file are its own certificate if callers need one, and --server-name is the name in the server's, if that isn't the
target's.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def main(*arguments: str) -> int:
    parser = argparse.ArgumentParser(description="Ask a server for its health.")
    parser.add_argument("target", metavar="HOST:PORT")
    for name in ("--ca-file", "--cert-file", "--key-file"):
        parser.add_argument(name, type=Path, metavar="FILE")
    parser.add_argument("--server-name", metavar="NAME")
    options = parser.parse_args(arguments)
    try:
        files = [path and path.read_bytes() for path in (options.ca_file, options.key_file, options.cert_file)]
    except OSError as error:
        print(f"can't read {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    with _channel(options.target, files, options.server_name) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its stub file names no methods
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=4.0)
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


def _channel(target: str, files: list[bytes | None], name: str | None) -> grpc.Channel:
    if not any(files):
        return grpc.insecure_channel(target)
    options = [("grpc.ssl_target_name_override", name)] if name else []
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(*files), options=options)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
