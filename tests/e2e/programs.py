"""Client programs in processes of their own, for what only a process can do: be killed, be stopped, be interrupted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Prints the index of each result as it comes, and the summary's total at the end.
READER = """
import asyncio, sys
from apiflux_grpc.client import Call, Client

async def main(target, pool, name, count, fault):
    async with Client(target) as client:
        headers = {"X-Judge-Fault": fault} if fault else {}
        stream = client.process([Call(f"/{name}/{number}", headers=headers) for number in range(int(count))], pool=pool)
        async for result in stream:
            assert result.ok
            print(result.index, flush=True)
        print("total", stream.summary.total)

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def program(text: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program with these arguments; killed at the end, also if it is stopped."""
    command = [sys.executable, "-c", text, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def reader(target: str, pool: str, name: str, count: int, fault: str = "") -> Iterator[subprocess.Popen[str]]:
    """A program that runs a batch of `count` calls, and prints the index of each result."""
    with program(READER, target, pool, name, str(count), fault) as process:
        yield process


async def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return await asyncio.to_thread(process.stdout.readline)


async def rest_of(process: subprocess.Popen[str]) -> list[str]:
    """What it prints until its end."""
    assert process.stdout is not None
    lines = await asyncio.to_thread(process.stdout.readlines)
    await asyncio.to_thread(process.wait)
    return [line.rstrip("\n") for line in lines]
