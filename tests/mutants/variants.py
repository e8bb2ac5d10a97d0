"""Broken variants of the package, each with the tests that must notice it; by part, a file for each.

Rule: one plausible mistake each, in as little text as names it; `old` stands once in its file.
"""

from __future__ import annotations

from typing import Final

from tests.mutants.adapters import ADAPTERS
from tests.mutants.administration import ADMINISTRATION
from tests.mutants.answers import ANSWERS
from tests.mutants.borrowing import BORROWED
from tests.mutants.callers import CALLERS
from tests.mutants.changes import CHANGES
from tests.mutants.commands import COMMANDS
from tests.mutants.contract import CONTRACT
from tests.mutants.costs import COSTS
from tests.mutants.engine import ENGINE
from tests.mutants.jobs import JOBS
from tests.mutants.lease_times import LEASE_TIMES
from tests.mutants.leases import LEASES
from tests.mutants.limits import LIMITS
from tests.mutants.ops import OPS
from tests.mutants.outlook import OUTLOOK
from tests.mutants.redis import REDIS
from tests.mutants.shared import SHARED
from tests.mutants.slots import IN_FLIGHT
from tests.mutants.state import STATE
from tests.mutants.targets import TARGETS
from tests.mutants.transport import TRANSPORT
from tests.mutants.turns import TURNS
from tests.mutants.variant import Variant
from tests.mutants.workers import WORKERS

VARIANTS: Final = (
    *LIMITS,
    *TURNS,
    *ANSWERS,
    *OUTLOOK,
    *ENGINE,
    *COSTS,
    *BORROWED,
    *CHANGES,
    *IN_FLIGHT,
    *CONTRACT,
    *ADAPTERS,
    *JOBS,
    *COMMANDS,
    *OPS,
    *WORKERS,
    *TARGETS,
    *TRANSPORT,
    *CALLERS,
    *ADMINISTRATION,
    *REDIS,
    *SHARED,
    *(Variant(*one) for one in (*LEASES, *LEASE_TIMES)),
    *(Variant(*one) for one in STATE),
)
