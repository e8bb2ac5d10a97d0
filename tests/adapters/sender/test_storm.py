"""A storm of calls with faults, cancels and short timeouts: the server's count and ours are the same."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter

import pytest

from apiflux_grpc.core.outcome import Answer, Outcome, Unknown
from apiflux_grpc.core.units import MILLISECOND
from tests.adapters.sender.script import CUT, ECHO, FIN, HANG, RST, TAKEN, Step
from tests.adapters.sender.stage import Stage, World
from tests.adapters.sender.waiting import passes

S = b"HTTP/1.1 200 OK\r\n"
OK = S + b"Content-Length: 2\r\n\r\nok"
TOO_LARGE = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
CHUNKED = S + b"Transfer-Encoding: chunked\r\n\r\n"

# (path, how often, what the server does); every request is read to its end, whatever comes of it.
SCRIPTS: list[tuple[str, int, tuple[Step, ...]]] = [
    ("/echo", 30, (ECHO,)),
    ("/slow", 10, (0.002, ECHO)),
    ("/pieces", 5, (S, TAKEN, b"Content-Length: 2\r\n", TAKEN, b"\r\no", TAKEN, b"k")),
    ("/chunks", 5, (CHUNKED, TAKEN, b"2\r\nok\r\n", TAKEN, b"0\r\n\r\n")),
    ("/until-end", 3, (S + b"\r\nok", FIN)),
    ("/close", 3, (S + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", FIN)),
    ("/answer-and-end", 3, (OK, FIN)),
    ("/answer-and-reset", 3, (OK, RST)),
    ("/fin", 4, (FIN,)),
    ("/reset", 4, (RST,)),
    ("/half-head", 3, (S + b"Content-Le", FIN)),
    ("/half-head-reset", 3, (S + b"Content-Le", RST)),
    ("/half-body", 3, (S + b"Content-Length: 5\r\n\r\nok", CUT)),
    ("/half-body-reset", 3, (S + b"Content-Length: 5\r\n\r\nok", RST)),
    ("/half-body-hang", 2, (S + b"Content-Length: 5\r\n\r\nok", HANG)),
    ("/garbage", 3, (b"nonsense\r\n\r\n", TAKEN, b"more")),
    ("/chunk-garbage", 2, (CHUNKED + b"2\r\nokzz\r\n", HANG)),
    ("/stray", 3, (OK + OK,)),
    ("/interim", 3, (b"HTTP/1.1 100 Continue\r\n\r\n", TAKEN, OK)),
    ("/switch", 1, (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", HANG)),
    ("/hang", 3, (HANG,)),
    ("/late-end", 2, (ECHO, 0.003, FIN)),
    ("/late-reset", 2, (ECHO, 0.003, RST)),
]
EARLY = "/early"
HOW_OFTEN = [often for _, often, _ in SCRIPTS]
PATHS = [path for path, _, _ in SCRIPTS]


async def one(stage: Stage, chance: random.Random, tally: Counter[str]) -> None:
    """A call by chance: its fault, its body, its time, and whether and when it is cancelled."""
    path = chance.choices(PATHS, HOW_OFTEN)[0] if chance.random() < 0.99 else EARLY
    large = path == EARLY or chance.random() < 0.005
    method = (
        chance.choice(("POST", "PUT", "PATCH")) if large else chance.choice(("GET", "GET", "POST", "HEAD", "DELETE"))
    )
    body = bytes(300_000) if large else b"x" * 50 if method == "POST" else b""
    ends_itself = path not in {"/hang", "/half-body-hang"}
    if method == "HEAD" and not path.startswith(("/echo", "/slow", "/fin", "/reset")):
        method = "GET"
    timeout = 2000 if ends_itself and chance.random() < 0.9 else chance.choice((1, 3, 10, 30))
    told = stage.begin(path, method, body=body, timeout=timeout * MILLISECOND)
    if chance.random() < 0.15:
        delay = chance.choice((0.0, 0.0005, 0.001, 0.003, 0.01))
        await asyncio.sleep(delay)
        stage.cancel(told)
    outcome = await told.over()
    tally[type(outcome).__name__] += 1
    if isinstance(outcome, Answer) and outcome.fault is None and method != "HEAD":
        own = told.number.encode() if path in {"/echo", "/slow", "/late-end", "/late-reset"} else b"ok"
        if path == EARLY:
            own = b"no"
        assert outcome.body == own, f"{path} got {outcome}"
    if outcome == Unknown("no answer in time"):
        tally["late"] += 1


async def storm(world: World, calls: int, at_once: int, seed: int) -> None:
    chance = random.Random(seed)
    tally: Counter[str] = Counter()
    async with world.stage() as stage:
        server = stage.server
        for path, _, steps in SCRIPTS:
            server.on(path, *steps)
        server.on(EARLY, TOO_LARGE, TAKEN, RST, early=True)

        left = calls

        async def worker() -> None:
            nonlocal left
            while left:
                left -= 1
                await one(stage, chance, tally)

        await asyncio.gather(*(worker() for _ in range(at_once)))
        await stage.upstream.close()
        await server.quiet()
        outcomes: list[Outcome] = [outcome for told in stage.told for outcome in told.outcomes]
        assert len(outcomes) == calls
        seen = server.seen()
        arrivals = sum(seen.values()) + server.nameless()
        assert max(seen.values()) == 1
        if world.ours and not world.tls:
            assert arrivals == calls - tally["NotSent"], tally
        else:  # what is handed to TLS, or to aiohttp, can't be asked whether it came to the socket
            resets = sum(peer.reset_here for peer in server.peers)
            assert 0 <= calls - tally["NotSent"] - arrivals <= resets, tally
        assert {"Answer", "Unknown", "NotSent"} <= set(tally), tally
        assert len(server.peers) < calls, "no connection was ever used twice"
    await passes()
    gc.collect()


def test_storm(world: World) -> None:
    """Arrivals are the calls without the NotSent ones, exactly; none comes twice, nothing is left open."""
    world.run(storm(world, 2_000 if world.ours and not world.tls else 700, 60, seed=1))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_long_storm(ours: World) -> None:
    """The same, for longer: 50,000 calls on the loop that is used where it is installed."""
    calls = 4_000 if ours.tls else 50_000 if ours.loop == "uvloop" else 10_000
    ours.run(storm(ours, calls, 150, seed=2), 880)
