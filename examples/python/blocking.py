"""The same without asyncio, over TLS and with a token where they are given.

python examples/python/blocking.py 127.0.0.1:50051
APIFLUX_TOKEN=... python examples/python/blocking.py flux.example.com:443 ca.pem
"""

import os
import sys

from apiflux_grpc.client import Call, SyncClient, TlsOptions


def main(target: str, ca_file: str | None = None) -> int:
    tls = None if ca_file is None else TlsOptions(ca_file)
    calls = (Call.get(f"/v1/places/{number}") for number in range(50))
    with SyncClient(target, tls=tls, token=os.environ.get("APIFLUX_TOKEN")) as client:
        client.wait_ready(timeout=10.0)
        for pool in client.info().pools:
            print(f"pool {pool.name}: {len(pool.keys)} keys")
        good = sum(result.ok for result in client.process_stream(calls, timeout=60.0))
    print(f"{good} of 50 succeeded")
    return 0 if good == 50 else 3


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
