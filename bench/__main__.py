"""`make bench`: the figures, as build/bench/SECTION.json and a table.

    python -m bench                          # every section, each in a process of its own
    python -m bench --section cpu            # one; may be repeated
    python -m bench.write                    # docs/benchmarks.md, from what the last runs left

Exit codes: 0; 3 where a promise was broken; 1 where a section broke down.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from apiflux_grpc.bootstrap import loop_factory
from bench import (
    attacks,
    cpu,
    hot_path,
    latency,
    limits,
    memory,
    nginx,
    openai,
    over_http,
    sender,
    upstreams,
    waiting,
    workers,
)
from bench.figures import Figure, Measured, machine
from bench.peers import ring
from bench.shared import fleet, replicas, restarts, store, stress

SECTIONS: Final[dict[str, Callable[[], Coroutine[Any, Any, list[Figure]]]]] = {
    "cpu": cpu.figures,
    "waiting": waiting.figures,
    "sender": sender.figures,
    "load": latency.figures,
    "http": over_http.figures,
    "workers": workers.figures,
    "replicas": replicas.figures,
    "store": store.figures,
    "fleet": fleet.figures,
    "stress": stress.figures,
    "restarts": restarts.figures,
    "memory": memory.figures,
    "attacks": attacks.figures,
    "limits": limits.figures,
    "nginx": nginx.figures,
    "upstreams": upstreams.figures,
    "openai": openai.figures,
    "peers": ring.figures,
    "profile": hot_path.figures,
}


def measure(section: str) -> Measured:
    """Run a section, and save what it brought."""
    surroundings, start = machine(), time.monotonic()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        figures = runner.run(SECTIONS[section]())
    measured = Measured(section, tuple(figures), surroundings, time.monotonic() - start)
    measured.save()
    return measured


def show(measured: list[Measured]) -> None:
    table = Table(title="median (least to most)")
    for name in ("section", "figure", "", "measured", "target"):
        table.add_column(name)
    for one in measured:
        for figure in one.figures:
            style = None if figure.fine else "bold red"
            value = f"{figure.seen()} {figure.unit}".rstrip()
            table.add_row(one.section, figure.name, figure.case, value, figure.wanted(), style=style)
    Console().print(table)
    Console().print(", ".join(f"{one.section} took {one.seconds:.0f} s" for one in measured))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--section", choices=SECTIONS, action="append")
    chosen: list[str] = parser.parse_args().section or list(SECTIONS)
    broken = []
    if len(chosen) == 1:
        measure(*chosen)
    else:
        for section in chosen:
            Console(stderr=True).print(f"{section} ...", highlight=False)
            code = subprocess.call([sys.executable, "-m", "bench", "--section", section], stdout=subprocess.DEVNULL)
            broken += [section] if code not in (0, 3) else []
    measured = [one for section in chosen if section not in broken and (one := Measured.load(section))]
    show(measured)
    if broken:
        print(f"broke down: {', '.join(broken)}", file=sys.stderr)
        return 1
    return 0 if all(figure.fine for one in measured for figure in one.figures if figure.must) else 3


if __name__ == "__main__":
    sys.exit(main())
