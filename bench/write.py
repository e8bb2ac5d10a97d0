"""Writes docs/benchmarks.md: the prose of page.md around the figures of build/bench/*.json.

    python -m bench.write

Rule: every figure on the page that depends on a run comes from those files; a section without one is said to be
missing. What is said of the widest frames of the profile stands here, and a wide frame without words is an error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from string import Template
from typing import Final

from bench import foreign
from bench.__main__ import SECTIONS
from bench.figures import ROOT, Figure, Measured
from bench.peers import ring

PAGE: Final = ROOT / "docs" / "benchmarks.md"
TEMPLATE: Final = Path(__file__).with_name("page.md")
MISSING: Final = "*Not measured in the last run.*\n"
WIDEST: Final = 3
COLUMNS: Final = {  # of the table of peers, by figure
    "batch / ideal": "batch",
    "answered of 1,500": "answered",
    "rejected": "rejected",
    "worst window / limit": "worst window",
    "small / ideal": "small",
    "small, answered of 10": "answered",
    "CPU / bare loop": "CPU",
}
FRAMES: Final = {
    "ResultStream.run (apiflux_grpc/server/results.py)": """\
nearly all of it is one line, `context.write`: gRPC's C core, most of that the system call that sends the results;
serialising them is a small part. Done: up to 100 results go out in one message, and with many streams a message waits a
little for more of them.""",
    "encode (apiflux_grpc/server/wire.py)": """\
fills the response message, a dozen assignments per result. Done: they are made in place, which costs less than building
messages and appending them. The rest stays, as long as results have these fields.""",
    "MutableMapping.update (<frozen _collections_abc>)": """\
an answer's headers on their way into the message, also a part of `encode`.""",
    "__create_fn__.<locals>.__init__ (<string>)": """\
the constructors of a permit, an attempt, an answer and a result for each call. They stay: a permit is an object so that
no call can go out uncounted. Done: they have slots, and the garbage collector is told not to look at them often.""",
    "Dispatcher.settle (apiflux_grpc/core/dispatcher.py)": """\
what follows each attempt. Done: it is one call back, without a task or a timer.""",
    "Runner.run (asyncio/runners.py)": """\
uvloop's C code: sockets, timers, wake-ups. Done: what crosses between the two threads goes in lists.""",
    "names_of.<locals>.<lambda> (apiflux_grpc/server/wire.py)": """\
a call's id is read from the kept request when its result goes out. It stays: else it would be held for every queued
call.""",
    "Checks.call (apiflux_grpc/core/checks.py)": """\
each call is checked before its batch is admitted, in slices that let others have their turn. It stays.""",
    "Result.size (apiflux_grpc/core/outcome.py)": """\
what a result takes of its batch's room, so that a slow reader bounds its own batch. It stays.""",
    "AsyncLimiter._leak (aiolimiter/leakybucket.py)": """\
the pacer brings itself up to date. It stays: the arithmetic of pacers is aiolimiter's.""",
    "Keyring.paid (apiflux_grpc/core/keyring.py)": """\
the permit is taken of each limit, all or none. It stays: that is the job.""",
}


class NoWords(Exception):
    """A frame is among the widest, and FRAMES says nothing of it."""


def page(measured: Iterable[Measured]) -> str:
    """The page of what was measured. Raises NoWords."""
    found = {one.section: one for one in measured if one.figures}
    tables = {section: _table(found[section]) if section in found else MISSING for section in SECTIONS}
    tables["peers"] = _peers(found["peers"]) if "peers" in found else MISSING
    tables["profile"] = _profile(found["profile"]) if "profile" in found else MISSING
    packages = sorted({package.replace("==", " ") for one in ring.FIELD for package in one.packages})
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        tables,
        machine=_machine(list(found.values())),
        cpu_rounds=ring.ROUNDS,
        our_rounds=ring.OURS.rounds,
        margin=round(ring.MARGIN * 1000),
        versions=", ".join(packages),
        slowapi=foreign.PYTHON_PACKAGES[0].partition("==")[2],
        express=foreign.NODE_PACKAGES[-1].rpartition("@")[2],
    )


def _machine(measured: list[Measured]) -> str:
    if not measured:
        return MISSING
    first = min(measured, key=lambda one: str(one.machine["date"])).machine
    loads = [one.machine["load_average"] for one in measured]
    minutes = sum(one.seconds for one in measured) / 60
    return (
        f"The machine: {first['cores']} {'virtual ' if first['virtual'] else ''}cores ({first['cpu']}), "
        f"{first['memory_gib']} GiB, {first['system']}, Python {first['python']}, "
        + ", ".join(f"{name} {version}" for name, version in first["versions"].items())
        + f". Measured on {first['date']} in {minutes:.0f} minutes. When a section began, the load average was "
        f"{min(loads):.1f} to {max(loads):.1f}, what the sections before it left included."
    )


def _rows(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [list(header), *map(list, rows)]
    cells.insert(1, ["---"] * len(cells[0]))
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def _cell(figure: Figure) -> str:
    value = f"{figure.seen()} {figure.unit}".rstrip()
    return value if figure.fine else f"**{value}**"


def _table(measured: Measured) -> str:
    rows = [(figure.name, figure.case, _cell(figure), figure.wanted()) for figure in measured.figures]
    notes = [f"\n{figure.name}: {figure.note}.\n" for figure in measured.figures if figure.note]
    return _rows(("", "", "measured", "target"), rows) + "".join(notes)


def _peers(measured: Measured) -> str:
    cells = {(figure.case, figure.name): _cell(figure) for figure in measured.figures}
    targets = {figure.name: figure.wanted() for figure in measured.figures if figure.case == ring.OURS.name}
    present = {case for case, _ in cells}
    everybody = [one.name for one in (*ring.FIELD, ring.OURS)]
    rows = [
        [name, *(cells.get((name, column), "as above") for column in COLUMNS)] for name in everybody if name in present
    ]
    rows.append(["*APIFlux must be*", *(targets.get(column, "") for column in COLUMNS)])
    absent = ", ".join(name for name in everybody if name not in present)
    return (
        _rows(("", *COLUMNS.values()), rows)
        + f"\nThe bare loop took {cells[ring.BARE.name, 'CPU per call']} of CPU per call.\n"
        + (f"\nLeft out, since it couldn't be installed: {absent}.\n" if absent else "")
    )


def _profile(measured: Measured) -> str:
    widest = []
    for figure in measured.figures[:WIDEST]:
        if figure.case not in FRAMES:
            raise NoWords(f"{figure.case} is among the {WIDEST} widest frames: FRAMES in write.py says nothing of it")
        words = FRAMES[figure.case].replace("\n", "\n  ")
        widest.append(f"- `{figure.case}`, {figure.median:.0f} %:\n  {words}\n")
    rows = [(f"`{figure.case}`", _cell(figure)) for figure in measured.figures]
    return _rows(("frame", "self time"), rows) + "\nThe three widest:\n\n" + "".join(widest)


def main() -> int:
    try:
        text = page(one for section in SECTIONS if (one := Measured.load(section)))
    except NoWords as error:
        print(error, file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
