"""What a job is, and the two ways in which it ends before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apiflux_grpc.client.whole import WINDOW
from apiflux_grpc.jobs.servers import all_of

if TYPE_CHECKING:
    from pathlib import Path

    from apiflux_grpc.client import TlsOptions, TokenFile


@dataclass(frozen=True, slots=True)
class Job:
    """What to do, at the servers of `target`, several with commas. `source` None: standard input; `output` None:
    standard output; `format` "": that of the first line.

    `wait` is how many seconds a server may take to be there, `timeout` how many the whole may take from then on.
    `max_failures` None: as guard.py has it by default. `limit` and `max_cost` bound one run; None: they don't.
    """

    source: Path | None
    target: str
    pool: str = ""
    output: Path | None = None
    template: str | None = None
    format: str = ""
    delimiter: str | None = None  # of CSV; None: it shows
    any_method: bool = False
    skip_bad_lines: bool = False
    ordered: bool = False
    wait: float | None = None
    timeout: float | None = None
    window: int = WINDOW
    retry_failed: bool = False
    retry_unknown: bool = False
    overwrite: bool = False
    max_failures: float | None = None
    max_cost: int | None = None
    limit: int | None = None
    failed: Path | None = None
    dry_run: bool = False
    tls: TlsOptions | None = None
    token: str | TokenFile | None = None
    plaintext_token: bool = False

    @property
    def servers(self) -> str:
        """The targets in words: all of them."""
        return all_of(self.target.split(","))

    @property
    def any_server(self) -> str:
        """The targets in words: one of them."""
        return all_of(self.target.split(","), "or")


class Refused(Exception):
    """The job can't be done as it stands; says what to do."""


class Interrupted(Exception):
    """A signal came before anything was sent."""
