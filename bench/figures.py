"""What a benchmark brings: figures, kept as build/bench/SECTION.json.

Rule: a figure is all of its samples. Medians, spreads and the comparison with a target are computed here, for whoever
shows them. Where two things are compared, each sample is the ratio of one pair, taken one after the other in one run:
these machines are noisy, and a ratio of medians would hide it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal, Self

import psutil

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "build" / "bench"
PACKAGES: Final = ("grpcio", "protobuf", "uvloop", "aiohttp", "aiolimiter", "httptools")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `unit` "" is a ratio or a count; `case` tells the samples of one name apart.

    `must`: a promise, not a speed: the worst sample has to meet the target, else the run fails.
    """

    name: str
    samples: Sequence[float]
    unit: str = ""
    target: float | None = None
    better: Literal["less", "more"] = "less"
    case: str = ""
    must: bool = False
    note: str = ""

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def fine(self) -> bool:
        """Whether the median meets the target; with `must`, whether every sample does."""
        if self.target is None:
            return True
        if self.better == "less":
            return (max(self.samples) if self.must else self.median) <= self.target
        return (min(self.samples) if self.must else self.median) >= self.target

    def seen(self) -> str:
        """The median, and in brackets the least and the most where they differ."""
        low, high = _shown(min(self.samples)), _shown(max(self.samples))
        return _shown(self.median) + (f" ({low} to {high})" if low != high else "")

    def wanted(self) -> str:
        if self.target is None:
            return ""
        if self.must and self.better == "less" and self.target == 0:
            return "0"
        return f"{'<=' if self.better == 'less' else '>='} {_shown(self.target)}"


def _shown(value: float) -> str:
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def machine() -> dict[str, Any]:
    """What the figures depend on; nothing that names this one machine."""
    told = dict(line.replace("\t", "").split(": ", 1) for line in _read("/proc/cpuinfo") if ": " in line)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cores": os.cpu_count(),
        "cpu": told.get("model name", platform.machine()),
        "virtual": "hypervisor" in told.get("flags", ""),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": sys.version.split()[0],
        "versions": versions,
        "date": datetime.now(UTC).date().isoformat(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _read(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


@dataclass(frozen=True, slots=True)
class Measured:
    """A section's figures, as one run brought them; `machine` as it was at the start, `seconds` of running."""

    section: str
    figures: tuple[Figure, ...]
    machine: dict[str, Any]
    seconds: float

    def save(self) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        figures = [
            {**asdict(figure), "min": min(figure.samples), "median": figure.median, "max": max(figure.samples)}
            for figure in self.figures
        ]
        data = {"section": self.section, "machine": self.machine, "seconds": self.seconds, "figures": figures}
        (FOLDER / f"{self.section}.json").write_text(json.dumps(data, indent=2) + "\n")

    @classmethod
    def load(cls, section: str) -> Self | None:
        """As it was saved; None: there is no such file."""
        path = FOLDER / f"{section}.json"
        if not path.is_file():
            return None
        data = json.loads(path.read_text())
        figures = [{key: value for key, value in one.items() if key in Figure.__slots__} for one in data["figures"]]
        return cls(data["section"], tuple(Figure(**one) for one in figures), data["machine"], data["seconds"])
