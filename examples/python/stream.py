"""A batch of any length from a generator, in constant memory, that tells how it stands and outlives a restart of the
server.

The producer is asked for more only as results come. A call that may have run is sent again only if it is idempotent;
the others end with the error UNKNOWN.

    python examples/python/stream.py 127.0.0.1:50051 100000
"""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator

from apiflux_grpc.client import Call, Client, Progress


async def calls(count: int) -> AsyncIterator[Call]:
    """From a database, a queue, a file: whatever can be iterated over."""
    for number in range(count):
        yield Call.post(f"/v1/places/{number}", json={"name": f"place {number}"})


def show(progress: Progress) -> None:
    """About once a second, and at the end; with what the calls wait for, a limit, or a 429 and until when."""
    eta = "" if progress.eta is None else f", about {progress.eta:.0f} s to go"
    why = [*progress.held_by, *([progress.waits_for] if progress.waits_for else [])]
    waits = f", {why[0]}" if why else ""
    print(f"{progress.done} of {progress.total + progress.to_come} done{eta}{waits}", file=sys.stderr)


async def main(target: str, count: int) -> int:
    async with Client(target) as client:
        await client.wait_ready(timeout=10.0)
        estimate = await client.estimate(count)
        if estimate.makespan is not None:
            print(f"about {estimate.makespan:.1f} s, bound by {estimate.binding_limit or 'no limit'}")
        ends: Counter[str] = Counter()
        stream = client.process_stream(calls(count), expected=count, resume=True, window=1_000, on_progress=show)
        async for result in stream:
            ends[result.failure or "ok"] += 1
    print(", ".join(f"{reason} {number}" for reason, number in ends.items()))
    return 0 if set(ends) <= {"ok"} else 3


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[2]))))
