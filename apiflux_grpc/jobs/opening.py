"""The first line of a job: where its calls go, how many they are, and how long they take.

Rule: whoever is about to spend money sees what on before the first call is sent; of the simulator it says what it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.client import ApifluxError
from apiflux_grpc.core.units import SECOND, counted, spoken

if TYPE_CHECKING:
    from apiflux_grpc.client import Client, Estimate
    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.jobs.job import Job


async def opening(client: Client, job: Job, pool: Pool, calls: int | None, cost: int) -> str:
    """The line. `calls`: to be sent, each of this `cost`; None: not known, so it can't be said how long they take."""
    line = f"{job.servers}, pool {pool.name} ({where(pool)}, {counted(len(pool.keys), 'key')}): "
    if calls is None:
        return f"{line}calls as they come"
    line += counted(calls, "call")
    try:
        estimate = await client.estimate(calls, pool=pool.name, cost=cost)
    except ApifluxError:  # the job itself will say it
        return line
    return f"{line}, {time_of(estimate)}"


def time_of(estimate: Estimate) -> str:
    """How long it takes, and because of what."""
    if estimate.makespan is None:
        return "no key can be used now"
    bound = f", bound by {estimate.binding_limit}" if estimate.binding_limit else ""
    return f"{_about(estimate.makespan)}{bound}"


def where(pool: Pool) -> str:
    """Where the calls of a pool go."""
    return "the simulator" if is_simulated(pool) else pool.base_url


def is_simulated(pool: Pool) -> bool:
    """Whether its answers are made up, and no call leaves the server."""
    return pool.upstream == "simulated"


def _about(seconds: float) -> str:
    return "less than a second" if seconds < 1 else f"about {spoken(round(seconds) * SECOND)}"
