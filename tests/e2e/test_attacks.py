"""Requests made to cost much: whoever sends them is refused, others are served, and memory comes back.

bench/attacks.py has them, and how long others wait, which depends on the machine.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from bench import attacks

pytestmark = pytest.mark.slow

MOST = 600  # MB of the server
KEPT = 50


def check(outcome: attacks.Outcome) -> None:
    """What holds for each attack."""
    assert outcome.refused == 0
    assert outcome.batches > 1
    assert outcome.peak < MOST
    assert outcome.after - outcome.before < KEPT


async def one_after_the_other(target: str) -> Counter[str]:
    """Each attack of one request, and then a hundred streams at once."""
    found: Counter[str] = Counter()
    for attack in (attacks.many_reasons, attacks.bad_headers, attacks.bad_calls):
        found += await attack(target)
    return found + await attacks.compressed(target, 100)


async def test_one_request_costs_others_nothing() -> None:
    """Millions of faults, and what decodes to a thousand times its size."""
    outcome = await attacks.attacked(one_after_the_other)
    assert outcome.statuses == {"INVALID_ARGUMENT": 3, "UNIMPLEMENTED": 100}
    check(outcome)


async def test_large_batches_of_one_caller_leave_room_for_others() -> None:
    """As many as the queue takes are admitted, the others are refused, and each has an answer."""
    attack = partial(attacks.large_batches, times=30, admitted=10)
    outcome = await attacks.attacked(attack, "max_queued_calls = 600000")
    assert outcome.statuses == {"admitted": 10, "RESOURCE_EXHAUSTED": 20}
    check(outcome)
