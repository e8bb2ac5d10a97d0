"""A batch of calls: results as they complete, a deadline, a correlation id, and the errors of a whole request.

python examples/python/batch.py 127.0.0.1:50051
"""

import asyncio
import sys

from apiflux_grpc.client import ApifluxError, Call, Client


async def main(target: str) -> int:
    calls = [Call(f"/v1/places/{number}", query={"lang": "en"}, id=f"place-{number}") for number in range(20)]
    async with Client(target) as client:
        stream = client.process(calls, timeout=60.0, correlation_id="places-2024")  # seconds for the whole
        try:
            async for result in stream:
                if result.response is not None:
                    print(result.id, result.response.status, result.key, f"{result.latency:.3f} s")
                elif result.error is not None:
                    print(
                        result.id, result.error.reason, "may have run" if result.error.may_have_run else "did not run"
                    )
        except ApifluxError as error:
            again = f", try again in {error.retry_delay:.0f} s" if error.retry_delay is not None else ""
            print(f"{error}{again}", file=sys.stderr)
            return 4
    assert stream.summary is not None  # it comes with the last result
    print(f"{stream.summary.succeeded} of {stream.summary.total} succeeded in {stream.summary.elapsed:.1f} s")
    return 0 if stream.summary.failed == 0 else 3


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
