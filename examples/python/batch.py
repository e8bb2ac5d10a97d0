"""A batch of calls: results as they complete, a deadline, a correlation id, and the errors of a whole request.

python examples/python/batch.py 127.0.0.1:50051
"""

import asyncio
import sys

from apiflux_grpc.client import ApifluxError, Call, CallFailed, Client


async def main(target: str) -> int:
    calls = [Call.get(f"/v1/places/{number}", params={"lang": "en"}, id=f"place-{number}") for number in range(20)]
    async with Client(target) as client:
        stream = client.process(calls, timeout=60.0, correlation_id="places-2024")  # seconds for the whole
        try:
            async for result in stream:
                try:
                    place = result.raise_for_status().json()
                except CallFailed as error:  # this call alone
                    print(error, file=sys.stderr)
                else:
                    print(result.id, result.status_code, place, result.key, f"{result.latency:.3f} s")
        except ApifluxError as error:  # the request as a whole
            again = f", try again in {error.retry_delay:.0f} s" if error.retry_delay is not None else ""
            print(f"{error}{again}", file=sys.stderr)
            return 4
    assert stream.summary is not None  # it comes with the last result
    print(f"{stream.summary.succeeded} of {stream.summary.total} succeeded in {stream.summary.elapsed:.1f} s")
    return 0 if stream.summary.failed == 0 else 3


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
