"""--dry-run: what it keeps of the calls that it goes through."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from apiflux_grpc.client import ApifluxError, Client
from apiflux_grpc.jobs.dryrun import Rehearsal
from apiflux_grpc.jobs.guard import NO_END, Guard
from apiflux_grpc.jobs.job import Job
from apiflux_grpc.jobs.known import Known
from apiflux_grpc.jobs.pool import ANY_POOL
from apiflux_grpc.jobs.ration import Purse, Ration
from tests.jobs.test_selection import Given, entry, selection


async def test_nothing_of_a_call_is_kept(tmp_path: Path) -> None:
    """As in a run, where its result comes: else a dry run would need 300 bytes for each line of the file."""
    entries = [entry(number, cost=2, idempotent=True) for number in range(1, 2_000)]
    chosen = selection(tmp_path, Given(entries), Known())
    job = Job(tmp_path / "calls", "127.0.0.1:1", dry_run=True)
    purse = Purse(10_000, ANY_POOL)
    rehearsal = Rehearsal(job, ANY_POOL, cast(Client, None), cast(ApifluxError, None))
    await rehearsal.go_through(Ration(chosen, Guard(NO_END), purse=purse))
    assert (rehearsal.calls, purse.spent) == (1_999, 3_998)
    assert not chosen.open
    assert not purse.has_open
