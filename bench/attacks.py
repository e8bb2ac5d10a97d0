"""Section attacks: what one caller's requests may cost the others.

Rule: the attacker, the server and the other caller are processes of their own, on one machine, over loopback, and what
is sent is bounded. `attacked` brings what happened; the figures are made of it here, and tests/e2e/test_attacks.py
asserts what no clock is needed for.
"""

from __future__ import annotations

import asyncio
import gzip
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from apiflux_grpc.testing.served import ServedProcess
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc
from bench.figures import Figure

MB: Final = 1 << 20
PROCESS: Final = "/apiflux.v1.FluxService/Process"
CONFIG: Final = """
[pools.default]
simulator = { latency = ["1ms", "10ms"] }
keys = [{ label = "a", secret = "x", limits = [{ max = 200, per = "100ms" }] }]
"""
OWN: Final = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


Attack = Callable[[str], Coroutine[Any, Any, Counter[str]]]  # of HOST:PORT: what came of it, by status


# -- the attackers -------------------------------------------------------------------------------


async def sends(target: str, message: bytes, times: int = 1, admitted: int = 0) -> Counter[str]:
    """The same request many times at once, each over its own connection, until no more than `admitted` are left.

    By status; "admitted" if there was none.
    """

    async def one() -> str:
        async with grpc.aio.insecure_channel(target, options=OWN) as channel:
            process: Any = channel.unary_stream(PROCESS)
            try:
                async for _ in process(message, timeout=600):
                    pass
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return "OK"

    found: Counter[str] = Counter()
    left = {asyncio.create_task(one()) for _ in range(times)}
    async with asyncio.timeout(120):
        while len(left) > admitted:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            found.update(task.result() for task in done)
    for task in left:
        found["admitted"] += 1
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    return found


async def many_reasons(target: str) -> Counter[str]:
    """28 MiB of the reasons of one retry policy: a byte each."""
    request = pb.ProcessRequest(calls=[pb.Call(path="/x")])
    request.retry.reasons.extend([pb.REASON_HTTP_5XX] * 28 * MB)
    return await sends(target, request.SerializeToString())


async def bad_headers(target: str) -> Counter[str]:
    """1.5 million headers of one call, each with a fault."""
    call = pb.Call(path="/x")
    call.headers.extend([pb.Header(name="b d")] * 1_500_000)
    return await sends(target, pb.ProcessRequest(calls=[call]).SerializeToString())


async def bad_calls(target: str) -> Counter[str]:
    """Two million headers over 400 calls, each with two faults."""
    calls = [pb.Call(path="/x", headers=[pb.Header(name="b d", value="\0")] * 5_000)] * 400
    return await sends(target, pb.ProcessRequest(calls=calls).SerializeToString())


async def large_batches(target: str, times: int, admitted: int) -> Counter[str]:
    """Batches of 50,000 calls of 105 bytes."""
    calls = [pb.Call(path="/" + "x" * 100)] * 50_000
    return await sends(target, pb.ProcessRequest(calls=calls).SerializeToString(), times, admitted)


async def compressed(target: str, streams: int) -> Counter[str]:
    """Requests of 58 KB that decode to 60 MB. By hand: gRPC's own client would compress each anew."""
    body = gzip.compress(pb.ProcessRequest(calls=[pb.Call(path="/x", body=bytes(60_000_000))]).SerializeToString())
    host, _, port = target.rpartition(":")

    async def one() -> str:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(_request(struct.pack(">BI", 1, len(body)) + body))
        heard = b""
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(60):
                while b"grpc-status" not in heard and (some := await reader.read(MB)):
                    heard += some
        writer.close()
        return "UNIMPLEMENTED" if b"is disabled" in heard else "another"

    return Counter(await asyncio.gather(*(one() for _ in range(streams))))


def _request(message: bytes) -> bytes:
    """RFC 9113 by hand: a preface, settings, and a request whose message is said to be compressed."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": PROCESS.encode(),
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
        b"grpc-encoding": b"gzip",
    }
    block = b"".join(b"\0" + bytes([len(k)]) + k + bytes([len(v)]) + v for k, v in fields.items())
    pieces = [message[at : at + 16_384] for at in range(0, len(message), 16_384)]
    data = b"".join(_frame(0, int(piece is pieces[-1]), 1, piece) for piece in pieces)
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0) + _frame(1, 4, 1, block) + data


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


# -- the server, and another caller ----------------------------------------------------------------


@dataclass(slots=True)
class Outcome:
    """What an attack came to: seconds, and MB of the server."""

    statuses: Counter[str] = field(default_factory=Counter)
    health: float = 0.0
    batch: float = 0.0
    batches: int = 0
    refused: int = 0  # of the other caller's
    before: float = 0.0
    peak: float = 0.0
    after: float = 0.0


def memory_of(pid: int, what: str) -> float:
    """MB: VmRSS, or the most that it was, VmHWM."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition(f"{what}:")[2].split()[0]) / 1024


@asynccontextmanager
async def other_caller(target: str, outcome: Outcome) -> AsyncIterator[None]:
    """Asks for health and sends batches of five calls, one after the other, for as long as the block lasts."""
    over = asyncio.Event()

    async def repeat(once: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        while not over.is_set():
            start = time.monotonic()
            await once()
            setattr(outcome, name, max(getattr(outcome, name), time.monotonic() - start))
            await asyncio.sleep(0.05)

    async with (
        grpc.aio.insecure_channel(target, options=OWN) as probing,
        grpc.aio.insecure_channel(target, options=OWN) as sending,
    ):
        health: Any = health_pb2_grpc.HealthStub(probing)
        flux: Any = apiflux_pb2_grpc.FluxServiceStub(sending)

        async def ask() -> None:
            await health.Check(health_pb2.HealthCheckRequest(), timeout=60)

        async def send() -> None:
            outcome.batches += 1
            try:
                async for _ in flux.Process(pb.ProcessRequest(calls=[pb.Call(path="/y")] * 5), timeout=60):
                    pass
            except grpc.aio.AioRpcError:
                outcome.refused += 1

        await ask()
        await send()
        outcome.health = outcome.batch = 0.0  # of the attack alone
        tasks = [asyncio.create_task(repeat(ask, "health")), asyncio.create_task(repeat(send, "batch"))]
        yield
        over.set()
        await asyncio.gather(*tasks)


async def attacked(attack: Attack, server: str = "") -> Outcome:
    """What an attack does to a server of its own, with these lines in `[server]`. Memory has 10 s to come back."""
    outcome = Outcome()
    with ServedProcess(f"[server]\n{server}\n{CONFIG}", {}) as served:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as attacker:
            async with other_caller(served.target, outcome):
                outcome.before = memory_of(served.pid, "VmRSS")
                loop = asyncio.get_running_loop()
                outcome.statuses = await loop.run_in_executor(attacker, _run, attack, served.target)
        outcome.peak = memory_of(served.pid, "VmHWM")
        until = time.monotonic() + 10
        while (  # noqa: ASYNC110  # another process sets no event
            after := memory_of(served.pid, "VmRSS")
        ) > outcome.before + 50 and time.monotonic() < until:
            await asyncio.sleep(0.1)
        outcome.after = after
    return outcome


def _run(attack: Attack, target: str) -> Counter[str]:
    return asyncio.run(attack(target))


CASES: Final[dict[str, Attack]] = {
    "28 MiB of reasons": many_reasons,
    "1.5 million bad headers": bad_headers,
    "2 million bad headers over 400 calls": bad_calls,
    "100 streams of 60 MB, compressed": partial(compressed, streams=100),
    "100 batches of 50,000 calls": partial(large_batches, times=100, admitted=36),
}


async def figures() -> list[Figure]:
    found = []
    for case, attack in CASES.items():
        outcome = await attacked(attack)
        said = ", ".join(f"{count} {status}" for status, count in outcome.statuses.most_common())
        found += [
            Figure("slowest answer of health", [outcome.health * 1e3], "ms", 1_000, case=case, note=said),
            Figure("slowest batch of 5 of another caller", [outcome.batch * 1e3], "ms", 2_000, case=case),
            Figure("memory at the most", [outcome.peak], "MB", 600, case=case),
            Figure("memory kept afterwards", [outcome.after - outcome.before], "MB", 50, case=case),
        ]
    return found
