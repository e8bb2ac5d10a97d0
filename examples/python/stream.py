"""A batch of any length from a generator, in constant memory, that outlives a restart of the server.

The producer is asked for more only as results come. A call that may have run is sent again only if it is idempotent;
the others end with the error UNKNOWN.

    python examples/python/stream.py 127.0.0.1:50051 100000
"""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator

from apiflux_grpc.client import Call, Client


async def calls(count: int) -> AsyncIterator[Call]:
    """From a database, a queue, a file: whatever can be iterated over."""
    for number in range(count):
        yield Call(f"/v1/places/{number}", method="POST", body=b"{}", headers={"Content-Type": "application/json"})


async def main(target: str, count: int) -> int:
    async with Client(target) as client:
        await client.wait_ready(timeout=10.0)
        estimate = await client.estimate(count)
        if estimate.makespan is not None:
            print(f"about {estimate.makespan:.1f} s, bound by {estimate.binding_limit or 'no limit'}")
        ends: Counter[str] = Counter()
        async for result in client.process_stream(calls(count), resume=True, window=1_000):
            ends["ok" if result.ok else result.error.reason if result.error else "not 2xx"] += 1
    print(", ".join(f"{reason} {number}" for reason, number in ends.items()))
    return 0 if set(ends) <= {"ok"} else 3


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[2]))))
