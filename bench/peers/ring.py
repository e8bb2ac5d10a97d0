"""Everybody on the same work against the same judge, as a program in an environment of its own.

Three kinds of work. *Batch*: 1,500 calls at once over five keys of 100 per 10 s, answered after 10 to 50 ms; nobody can
be faster than 20 s. *Small*: 10 calls that arrive 0.5 s behind such a batch; capacity next frees after 9.5 s. *CPU*:
20,000 calls without a limit that binds, 200 at once: CPU time of all the contestant's processes, over that of the bare
loop of the same round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.judge.report import Report
from bench.environments import CannotInstall, environment
from bench.figures import ROOT, Figure
from bench.peers.contest import Done, Work

KEYS: Final = {f"key-{number}": f"bench-secret-{number}" for number in range(1, 6)}
LIMIT: Final = Limit(100, 10 * SECOND)
LATENCY: Final = (10 * MILLISECOND, 50 * MILLISECOND)
BATCH, BATCH_IDEAL = 1_500, 20.0
SMALL, SMALL_IDEAL = 10, 9.5
CALLS, AT_ONCE, ROUNDS = 20_000, 200, 3
MARGIN: Final = 0.25


@dataclass(frozen=True, slots=True)
class Contestant:
    """`packages` are installed into an environment of its own; without any it runs in ours."""

    name: str
    program: str
    packages: tuple[str, ...] = ()
    margin: float = 0.0
    calls: int = CALLS  # of the CPU work; 0: another one of this program does it
    rounds: int = 1  # of the batches

    def python(self) -> Path:
        """Its interpreter, its environment made if need be. Raises CannotInstall."""
        if not self.packages:
            return Path(sys.executable)
        return environment(
            self.program, (*self.packages, *(f"{name}=={version(name)}" for name in ("aiohttp", "uvloop")))
        )


BARE: Final = Contestant("bare aiohttp loop, no limits", "bare")
FIELD: Final = (
    Contestant("aiolimiter per key, round robin", "with_aiolimiter"),
    Contestant("pyrate-limiter", "with_pyrate", ("pyrate-limiter==4.5.1",)),
    Contestant(
        "pyrate-limiter, windows longer by 250 ms", "with_pyrate", ("pyrate-limiter==4.5.1",), margin=MARGIN, calls=0
    ),
    Contestant("LiteLLM Router", "with_litellm", ("litellm==1.110.2",), calls=2_000),
)
OURS: Final = Contestant("APIFlux", "with_apiflux", rounds=ROUNDS)


def compete(contestant: Contestant, work: Work) -> tuple[Done, float]:
    """How it went, and the CPU seconds of all its processes from `ready` on. Raises RuntimeError where it broke."""
    process = subprocess.Popen(
        [str(contestant.python()), "-m", f"bench.peers.{contestant.program}"],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # else it fetches one from the internet
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process, suppress(BrokenPipeError):  # it has said on stderr why
        process.stdin.write(work.to_line().encode())
        if process.stdout.readline():
            family = [psutil.Process(process.pid)]
            family += family[0].children(recursive=True)
            before = _cpu(family)
            process.stdin.write(b"go\n")
            if answer := process.stdout.readline():
                return Done(**json.loads(answer)), _cpu(family) - before
    raise RuntimeError(f"{contestant.name} broke down")


def _cpu(family: list[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (one.cpu_times() for one in family))


def at_the_judge(contestant: Contestant, work: Work, limits: tuple[Limit, ...]) -> tuple[Done, float, Report]:
    """The same, and what the judge of these limits says. `work` lacks the URL."""
    latency = LATENCY if limits else (0, 0)
    with JudgeProcess(JudgeOptions(KEYS, limits, latency_ns=latency)) as judge:
        done, spent = compete(contestant, replace(work, url=judge.url))
        return done, spent, judge.report()


def batches(contestant: Contestant) -> list[Figure]:
    """*Batch* and *small*, one after the other."""
    ours = contestant is OURS
    batch = Work("", tuple(KEYS.values()), LIMIT.max, LIMIT.per_ns / SECOND, BATCH, BATCH, margin=contestant.margin)
    large, small, answered, late = [], [], [], []
    rejected, worst = [], []
    for _ in range(contestant.rounds):
        done, _, report = at_the_judge(contestant, batch, (LIMIT,))
        large.append(done.seconds / BATCH_IDEAL)
        answered.append(done.answered)
        rejected.append(report.rejected)
        worst.append(report.worst)
        done, _, report = at_the_judge(contestant, replace(batch, small=SMALL), (LIMIT,))
        small.append(done.seconds / SMALL_IDEAL)
        late.append(done.answered)
        if ours:
            rejected.append(report.rejected)
            worst.append(report.worst)
    name = contestant.name
    return [
        Figure("batch / ideal", large, target=1.02 if ours else None, case=name),
        Figure("answered of 1,500", answered, target=BATCH if ours else None, better="more", case=name, must=ours),
        Figure("rejected", rejected, target=0 if ours else None, case=name, must=ours),
        Figure("worst window / limit", worst, target=1.0 if ours else None, case=name, must=ours),
        Figure("small / ideal", small, target=1.05 if ours else None, case=name),
        Figure("small, answered of 10", late, target=SMALL if ours else None, better="more", case=name, must=ours),
    ]


def cpu(contestants: list[Contestant]) -> list[Figure]:
    """*CPU*, in rounds of everybody."""
    ratios: dict[str, list[float]] = {one.name: [] for one in contestants}
    bare = []
    for _ in range(ROUNDS):
        bare.append(cpu_per_call(BARE))
        for one in contestants:
            ratios[one.name].append(cpu_per_call(one) / bare[-1])
    figures = [Figure("CPU per call", [seconds * 1e6 for seconds in bare], "us", case=BARE.name)]
    for name, samples in ratios.items():
        figures.append(Figure("CPU / bare loop", samples, target=0.55 if name == OURS.name else None, case=name))
    return figures


def cpu_per_call(contestant: Contestant) -> float:
    """Seconds of CPU per call. Raises RuntimeError where not every call was answered."""
    work = Work("", tuple(KEYS.values()), 10_000_000, 60.0, contestant.calls, AT_ONCE, warm=AT_ONCE)
    done, spent, _ = at_the_judge(contestant, work, ())
    if done.answered != contestant.calls:
        raise RuntimeError(f"{contestant.name}: {done.answered} of {contestant.calls} calls were answered")
    return spent / contestant.calls


async def figures() -> list[Figure]:
    """Whoever can't be installed or breaks down is left out, and said so."""
    field = [one for one in FIELD if _runs(one)] + [OURS]
    found = cpu([one for one in field if one.calls])
    for one in field:
        found += batches(one)
    return found


def _runs(contestant: Contestant) -> bool:
    try:
        contestant.python()
    except CannotInstall as error:
        print(f"left out: {contestant.name}: {error}", file=sys.stderr)
        return False
    return True
