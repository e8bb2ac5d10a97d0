"""`make pairs`: whether a change made the hot path slower: this tree's server against another's, turn by turn.

    python -m bench.pairs OLD [--new TREE] [--pairs N] [--most RATIO]

OLD and TREE are folders or commits. A pair is two servers started afresh, one of each tree, that work in turn; its
ratio is new CPU over old. Rule: both get the same work from this tree's client and judge, run on this interpreter and
these packages, and are told apart by nothing but PYTHONPATH.

The interval is the sign test's: of n ratios sorted, the k-th from either end, k as large as leaves it 95 %. It holds
whatever the noise looks like.

Exit codes: 0 where the interval ends at RATIO or below, 2 wrong arguments, 3 else.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import comb
from pathlib import Path
from statistics import median
from typing import Final

from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for
from apiflux_grpc.v1 import apiflux_pb2 as pb
from bench.cpu import AT_ONCE, CALLS, KEYS, SIMULATOR, WIDE, batches, through
from bench.figures import ROOT

FOLDER: Final = ROOT / "build" / "pairs"
FEWEST: Final = 6  # pairs: fewer have no interval of 95 %
TURNS: Final = 4  # of each server in a pair
NOISE: Final = 0.05  # the share of intervals that may miss the true ratio

Start = Callable[[Path], ServedProcess]


def tree_of(name: str) -> Path:
    """The folder of a tree: itself, or what a commit holds. Raises ValueError where it is neither."""
    if (Path(name) / "apiflux_grpc").is_dir():
        return Path(name).resolve()
    packed = subprocess.run(["git", "archive", name, "apiflux_grpc"], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        raise ValueError(f"{name!r} is neither a checkout nor a commit")
    folder = FOLDER / name.replace("/", "-")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def check(tree: Path) -> None:
    """Raises ValueError where an interpreter with this PYTHONPATH would import another tree's package."""
    command = [sys.executable, "-P", "-c", "import apiflux_grpc; print(apiflux_grpc.__file__)"]
    said = subprocess.check_output(command, env=os.environ | _path(tree), text=True)
    if not Path(said.strip()).is_relative_to(tree):
        raise ValueError(f"{tree} is not what would run, but {said.strip()}")


def _path(tree: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(tree)}


def interval(ratios: list[float]) -> tuple[float, float]:
    """Where the median of all pairs that could be taken lies, by the sign test. Raises ValueError for too few."""
    count = len(ratios)
    if count < FEWEST:
        raise ValueError(f"{FEWEST} pairs at least")
    outside, below = 0.0, 0
    while outside + 2 * comb(count, below) / 2**count <= NOISE:
        outside += 2 * comb(count, below) / 2**count
        below += 1
    ordered = sorted(ratios)
    return ordered[below - 1], ordered[count - below]


async def ratio(start: Start, requests: list[pb.ProcessRequest], old: Path, new: Path) -> float:
    """New CPU over old of one pair: two servers that take turns, each the first of a turn as often as the other."""
    with start(old) as one, start(new) as other:
        for served in (one, other):
            await through(served, requests)
        spent = {one: 0.0, other: 0.0}
        for turn in range(TURNS):
            for served in (one, other) if turn % 2 else (other, one):
                spent[served] += await through(served, requests)
    return spent[other] / spent[one]


@contextmanager
def works() -> Iterator[list[tuple[str, Start, list[pb.ProcessRequest]]]]:
    """(name, how a tree's server starts, what it gets to do) of each kind of work."""
    with JudgeProcess(JudgeOptions(KEYS, (WIDE,))) as judge:
        config = config_for(judge.url, (WIDE,), list(KEYS), f"max_connections = {AT_ONCE}")
        yield [
            (
                "service without network",
                lambda tree: ServedProcess(SIMULATOR, _path(tree)),
                [pb.ProcessRequest(repeat=pb.RepeatedCall(count=CALLS))],
            ),
            (
                "one batch against the judge",
                lambda tree: ServedProcess(config, secrets_for(KEYS) | _path(tree)),
                batches("pair", 1),
            ),
        ]


async def compare(old: Path, new: Path, pairs: int, most: float) -> bool:
    """Prints the ratio of each kind of work; whether all are shown to be at `most` or below."""
    fine = True
    with works() as kinds:
        ratios: dict[str, list[float]] = {name: [] for name, _, _ in kinds}
        for pair in range(pairs):
            for name, start, requests in kinds:
                ratios[name].append(await ratio(start, requests, old, new))
            print(f"pair {pair + 1}:", ", ".join(f"{name} {ratios[name][-1]:.3f}" for name in ratios), flush=True)
    for name, found in ratios.items():
        low, high = interval(found)
        fine &= high <= most
        said = f"shown to be at most {most}" if high <= most else f"not shown to be at most {most}: more pairs?"
        print(f"{name}: new / old {median(found):.3f}, 95 % {low:.3f} to {high:.3f}, {pairs} pairs; {said}")
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.pairs", description="A change's CPU against what was before."
    )
    parser.add_argument("old", help="a checkout or a commit")
    parser.add_argument("--new", default=str(ROOT), help="the same; this tree")
    parser.add_argument("--pairs", type=int, default=9, help="how many; 9")
    parser.add_argument("--most", type=float, default=1.03, help="the largest ratio that is fine; 1.03")
    args = parser.parse_args()
    try:
        old, new = tree_of(args.old), tree_of(args.new)
        for tree in (old, new):
            check(tree)
        interval([1.0] * args.pairs)
    except ValueError as error:
        parser.error(str(error))
    return 0 if asyncio.run(compare(old, new, args.pairs, args.most)) else 3


if __name__ == "__main__":
    sys.exit(main())
