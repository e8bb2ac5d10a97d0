"""`make load`: profiles of load by ghz against a served instance, and the judge's verdict of each.

    python -m bench.load path/to/ghz [profile] [--seconds N]

Exit codes: 0 all is fine, 1 ghz failed or the page can't be made, 2 wrong arguments, 3 something isn't fine.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from apiflux_grpc.charts import CannotReport, ready, write
from bench.load.outcome import Outcome
from bench.load.profiles import PROFILES, Profile, chosen
from bench.load.running import GhzFailed, run
from bench.load.showing import show, to_html, write_json

FOLDER: Final = Path("build/load")
PAGE: Final = FOLDER / "index.html"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.load", description="Load by ghz, and the judge's verdict.")
    parser.add_argument("ghz", help="the program, as `make build/bin/ghz` makes it")
    parser.add_argument("profile", nargs="?", help=f"one of {', '.join(PROFILES)}; without it, all of them")
    parser.add_argument("--seconds", type=int, help="how long the soak lasts")
    args = parser.parse_args(arguments)
    try:
        profiles = chosen(args.profile, args.seconds)
    except ValueError as error:
        parser.error(str(error))
    if shutil.which(args.ghz) is None:
        parser.error(f"{args.ghz!r} can't be run; `make build/bin/ghz` makes it")
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        ready(PAGE)
        outcomes = asyncio.run(_all(args.ghz, profiles))
        write(PAGE, to_html(outcomes))
    except (GhzFailed, CannotReport) as error:
        print(error, file=sys.stderr)
        return 1
    show(outcomes, Console())
    print(f"{PAGE} has the charts")
    return 0 if all(outcome.fine for outcome in outcomes) else 3


async def _all(ghz: str, profiles: list[Profile]) -> list[Outcome]:
    outcomes = []
    for profile in profiles:
        print(f"{profile.name}: {profile.what}", flush=True)
        outcome = await run(ghz, profile, FOLDER)
        write_json(outcome, FOLDER)
        outcomes.append(outcome)
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
