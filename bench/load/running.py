"""One profile for real: a judge, a server in front of it, ghz, and our own streams alongside.

Rule: whatever was opened is waited for, so that at the end each accepted call is either at the judge or missing. Each
call has a path of its own, by which the judge tells them apart. Our own streams see what ghz can't (the first result,
gaps, the details of a refusal); they are few, and of 20 calls each whatever the profile.

Everything shares the machine's cores with the server, so the times are upper bounds.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from apiflux_grpc.client import ApifluxError, Client, Overloaded
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for
from apiflux_grpc.v1 import apiflux_pb2 as pb
from bench.load.outcome import Ghz, Outcome, Own, Sample, read_ghz
from bench.load.profiles import KEYS, Profile

SECRETS: Final = {f"key-{number}": f"load-secret-{number}" for number in range(1, KEYS + 1)}
# How late a call may arrive on a machine that is this busy.
POOL: Final = 'arrival_jitter = "1s"'
OWN_CALLS, PAUSE = 20, 0.25
SAMPLE_EVERY: Final = 0.25  # seconds
TIMEOUT: Final = 300.0  # seconds that a stream may take: many times what it does
CONNECTIONS: Final = 4  # of ghz; one carries at most 400 streams at once


class GhzFailed(RuntimeError):
    """ghz can't be run, or ended with an error."""


def ghz_command(ghz: str, profile: Profile, data: Path, out: Path, target: str) -> list[str]:
    """ghz with this load; the JSON of its report goes to `out`."""
    command = [ghz, "--insecure", "--call", "apiflux.v1.FluxService.Process", "--data-file", str(data)]
    command += ["-n", str(profile.requests), "-c", str(profile.concurrency), "--connections", str(CONNECTIONS)]
    if profile.growth:
        command += ["--async", "--load-schedule", "line"]
        command += ["--load-start", str(profile.rate), "--load-step", str(profile.growth)]
    elif profile.rate:
        command += ["--rps", str(profile.rate)]
    return [*command, "-t", f"{TIMEOUT:g}s", "-O", "json", "-o", str(out), target]


def run_ghz(command: Sequence[str], out: Path, patience: float) -> Ghz:
    """Run it, at most `patience` seconds, and read what it wrote. Raises GhzFailed."""
    out.unlink(missing_ok=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
    except OSError as error:
        raise GhzFailed(f"{command[0]} can't be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise GhzFailed(f"ghz wasn't over after {patience:g} s") from error
    if done.returncode or not out.exists():
        raise GhzFailed(f"ghz ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    try:
        text = masked(out.read_text(encoding="utf-8"))
        out.write_text(text, encoding="utf-8")
        return read_ghz(text)
    except ValueError as error:
        raise GhzFailed(f"{out}: {error}") from error


def masked(text: str) -> str:
    """Without the secrets of the keys: what a server says is kept in files, even if it should tell one."""
    for label, secret in SECRETS.items():
        text = text.replace(secret, f"<{label}>")
    return text


async def run(ghz: str, profile: Profile, folder: Path) -> Outcome:
    """The load of this profile; ghz's own report and its request stay in `folder`. Raises GhzFailed."""
    data, out = folder / f"{profile.name}.request.json", folder / f"{profile.name}.ghz.json"
    calls = [{"path": f"/ghz/{{{{.RequestNumber}}}}/{place}"} for place in range(profile.calls)]
    data.write_text(json.dumps({"calls": calls}), encoding="utf-8")
    limits = (profile.limit,)
    with JudgeProcess(JudgeOptions(SECRETS, limits, latency_ns=profile.latency_ns)) as judge:
        server = "" if profile.max_batches is None else f"[server]\nmax_batches = {profile.max_batches}\n"
        config = server + config_for(judge.url, limits, list(SECRETS), POOL)
        with ServedProcess(config, secrets_for(SECRETS)) as served:
            command = ghz_command(ghz, profile, data, out, served.target)
            told, own, samples = await _load(command, out, profile, judge, served)
            said = masked(served.stderr.strip())
        return Outcome(profile, told, own, samples, judge.report(), said)


async def _load(
    command: Sequence[str], out: Path, profile: Profile, judge: JudgeProcess, served: ServedProcess
) -> tuple[Ghz, Own, tuple[Sample, ...]]:
    own, samples = Own(), list[Sample]()
    patience = 2 * TIMEOUT + (profile.requests / profile.rate if profile.rate else 0)
    over, ended = asyncio.Event(), asyncio.Event()
    async with Client(served.target, options=[("grpc.use_local_subchannel_pool", 1)]) as client:
        sampling = asyncio.create_task(_sample(samples, judge, served.pid, ended))
        streams = [asyncio.create_task(_streams(client, own, number, over)) for number in range(profile.own)]
        try:
            told = await asyncio.to_thread(run_ghz, command, out, patience)
        finally:
            over.set()
            await asyncio.gather(*streams)
            ended.set()
            await sampling
        if profile.max_batches is not None:
            own.again = await _stream(client, own, "again")
    return told, own, tuple(samples)


async def _sample(samples: list[Sample], judge: JudgeProcess, pid: int, ended: asyncio.Event) -> None:
    """The server and the judge, now and then until it has ended, and once more."""
    server, start = psutil.Process(pid), time.monotonic()
    over = False
    while not over:
        over = ended.is_set()
        arrivals = (await asyncio.to_thread(judge.live)).arrivals
        cpu = server.cpu_times()
        at = time.monotonic() - start
        samples.append(Sample(at, cpu.user + cpu.system, server.memory_info().rss, arrivals))
        await asyncio.sleep(SAMPLE_EVERY)


async def _streams(client: Client, own: Own, number: int, over: asyncio.Event) -> None:
    """One after another, with a pause between, until ghz is over."""
    place = 0
    while not over.is_set():
        await _stream(client, own, f"{number}/{place}")
        place += 1
        await asyncio.sleep(PAUSE)  # after a refusal too: sooner than told, to see more of them


async def _stream(client: Client, own: Own, name: str) -> bool:
    """One batch of our own; whether the server accepted it."""
    request = pb.ProcessRequest(calls=[pb.Call(path=f"/own/{name}/{place}") for place in range(OWN_CALLS)])
    indexes: list[int] = []
    bad = 0
    own.streams += 1
    before = time.monotonic()
    try:
        async for message in client.send(request, timeout=TIMEOUT).raw():
            if not message.results:
                continue
            now = time.monotonic()
            (own.gaps if indexes else own.first).append(now - before)
            before = now
            indexes += [result.index for result in message.results]
            bad += sum(result.response.status_code != 200 for result in message.results)
    except Overloaded as error:
        own.refusals.append(error.retry_delay)
        return False
    except ApifluxError as error:
        own.wrong.append(masked(f"Our own stream {name} failed: {error}."))
    else:
        if sorted(indexes) != [*range(OWN_CALLS)]:
            own.wrong.append(f"Our own stream {name} had the results {sorted(indexes)} for {OWN_CALLS} calls.")
        if bad:
            own.wrong.append(f"{bad} calls of our own stream {name} did not succeed.")
    own.results += len(indexes)
    return True
