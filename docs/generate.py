"""Writes the reference pages that the code itself knows: configuration, command line and contract; and apiflux --help.

    python -m docs.generate           # writes them
    python -m docs.generate --check   # says which are out of date, and exits with 1

Rule: whatever a machine can know comes from the code: names, types, bounds, defaults, comments. The pages are
committed, so that they can be read without building anything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from docs.command_line import cli_page, help_text
from docs.common import ROOT, OutOfStep
from docs.configuration import configuration_page
from docs.contract import contract_page

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "docs/reference/configuration.md": configuration_page,
    "docs/reference/cli.md": cli_page,
    "docs/reference/proto.md": partial(contract_page, "apiflux.proto", "Contract"),
    "docs/reference/admin.md": partial(contract_page, "admin.proto", "Administration"),
    "apiflux_grpc/cli/help.txt": help_text,  # apiflux_grpc/cli/start.py says why
}


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check only say which differ; 1: some do, or code and words are out of step."""
    stale = []
    for name, page in PAGES.items():
        path = ROOT / name
        try:
            text = page()
        except OutOfStep as error:
            print(error, file=sys.stderr)
            return 1
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in arguments:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    if "--check" in arguments:
        for name in stale:
            print(f"{name} is out of date: python -m docs.generate", file=sys.stderr)
        return 1 if stale else 0
    print(f"written: {', '.join(stale) or 'nothing has changed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
