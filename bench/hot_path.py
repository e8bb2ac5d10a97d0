"""Section profile: where the server's time goes while one batch after the other runs against the judge, by py-spy.

Rule: only samples of the thread that holds the interpreter count, so waiting is left out; a frame has what its own
code and the C code below it took.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for
from bench.cpu import AT_ONCE, KEYS, WIDE, batches, through
from bench.environments import CannotInstall, environment
from bench.figures import Figure

RUNS, BATCHES, SHOWN = 3, 15, 10
OWN_TIME: Final = "self time"
LINE: Final = re.compile(r":\d+\)$")


async def figures() -> list[Figure]:
    """The widest frames, the widest first; nothing where py-spy can't be installed or may not look."""
    try:
        spy = environment("py-spy", ("py-spy==0.4.3",)).with_name("py-spy")
        with JudgeProcess(JudgeOptions(KEYS, (WIDE,))) as judge:
            config = config_for(judge.url, (WIDE,), list(KEYS), f"max_connections = {AT_ONCE}")
            with ServedProcess(config, secrets_for(KEYS)) as served:
                await through(served, batches("warm", 1))
                runs = [await spied(spy, served, run) for run in range(RUNS)]
    except (CannotInstall, PermissionError) as error:
        print(f"left out: py-spy: {error}", file=sys.stderr)
        return []
    shares = {frame: [100 * run[frame] / run.total() for run in runs] for frame in sum(runs, Counter[str]())}
    found = [Figure(OWN_TIME, samples, "%", case=frame) for frame, samples in shares.items()]
    return sorted(found, key=lambda figure: -figure.median)[:SHOWN]


async def spied(spy: Path, served: ServedProcess, run: int) -> Counter[str]:
    """Samples by frame. Raises PermissionError where py-spy may not look at another process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "stacks"
        command = [str(spy), "record", "--gil", "--function", "--rate", "500", "--format", "raw", "--output", str(out)]
        looking = await asyncio.create_subprocess_exec(
            *command, "--pid", str(served.pid), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        for number in range(BATCHES):
            await through(served, batches(f"{run}-{number}", 1))
        with suppress(ProcessLookupError):  # it has given up
            looking.send_signal(signal.SIGINT)
        said, _ = await looking.communicate()
        if not out.is_file():
            raise PermissionError(said.decode().strip())
        samples: Counter[str] = Counter()
        for line in out.read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            samples[LINE.sub(")", stack.rpartition(";")[2])] += int(count)
    return samples
