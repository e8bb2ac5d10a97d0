"""The options of commands that read a file of calls."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Format(StrEnum):
    """As jobs/formats.py has it, which loads too much for a command line that is only read."""

    JSONL = "jsonl"
    OPENAI_BATCH = "openai-batch"


TemplateOption = Annotated[
    str | None,
    typer.Option("--template", help="The call that a row of CSV makes: JSON with {column} in strings, or @FILE."),
]
DelimiterOption = Annotated[
    str | None,
    typer.Option(
        "--delimiter", help="What separates the columns of CSV, such as ; or tab. Default: as the file shows."
    ),
]
AnyMethodOption = Annotated[
    bool, typer.Option("--any-method", help="Send methods too that are not usual ones, such as PURGE.")
]
