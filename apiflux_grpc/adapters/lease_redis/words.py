"""A round as the script is told it, and a reply as it says it.

Rule: the script counts whole microseconds, and what isn't whole is rounded to the side on which nothing is spent too
early: spans that must be waited for are longer, ages and the floor of the store's time are lower.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from apiflux_grpc.core.lease.words import Allotted, Amounts, Cap, Fact, Lower, Reply, Use
from apiflux_grpc.core.units import MICROSECOND, MOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apiflux_grpc.core.lease.words import Asked, Group, Memory, Round

_FIELDS: Final = 13  # of a reply, before the roster


def _up(span: int) -> int:
    return -(-span // MICROSECOND)


def _down(span: int) -> int:
    return span // MICROSECOND


def told(round: Round) -> str:
    """What the script is told of a round, as JSON. Wants beyond every limit are cut: their product must stay exact."""
    return json.dumps(
        {
            "incarnation": round.incarnation,
            "number": round.number,
            "caps": [[_up(cap.per), cap.max, cap.counts, cap.depth] for cap in round.caps],
            "life": _up(round.life),
            "jitter": _up(round.jitter),
            "epoch": round.epoch,
            "told": _down(round.told) if round.told >= 0 else -1,
            "floor": _down(round.floor) if round.floor >= 0 else -1,
            "paused": _down(round.paused),
            "want": [min(amount, MOST) for amount in round.want],
            "least": min(round.least, MOST),
            "round_trip": _up(round.round_trip),
            "held": [
                [held.lease, *held.landed, *held.returned, held.over, *held.late, _groups(held.groups)]
                for held in round.held
            ],
            "memory": round.memory is not None and _memory(round.memory),
            "leaves": round.leaves,
            "trust": round.trust,
            "facts": [[name, min(amount, MOST), _up(left)] for name, amount, left in round.facts],
            "claims": round.claims,
            "slots": round.slots is not None and _slots(round.slots),
            "refused": [min(amount, MOST) for amount in round.refused],
            "delay": _up(round.delay),
            **({"thaw": True} if round.thaw else {}),  # no replica's round is longer for it
        },
        separators=(",", ":"),
    )


def _slots(asked: Asked) -> list[int]:
    return [min(asked.most, MOST), _up(asked.timeout), asked.holds, min(asked.wants, MOST)]


def _memory(memory: Memory) -> dict[str, Any]:
    return {"landed": _groups(memory.landed), "open": [*memory.open], "roster": sorted(memory.roster)}


def _groups(groups: Iterable[Group]) -> list[list[int]]:
    return [[group.calls, group.cost, _down(group.age)] for group in groups]


def _allotted(slots: int, most: int, scarce: bool, timeout: int) -> Allotted:
    return Allotted(slots, most, scarce, timeout * MICROSECOND)


def reply_of(words: Sequence[Any]) -> Reply:
    """The reply that the script's words mean."""
    number, epoch, now, calls, cost, again, opens, refusal, paused, forgotten, lower, told, slots = words[:_FIELDS]
    facts, claims, use = json.loads(told) if told else ((), (), ())
    return Reply(
        number,
        epoch.decode(),
        now * MICROSECOND,
        Amounts(calls, cost),
        again * MICROSECOND,
        opens * MICROSECOND,
        refusal.decode(),
        frozenset(name.decode() for name in words[_FIELDS:]),
        paused * MICROSECOND,
        bool(forgotten),
        tuple(
            Lower(Cap(int(per) * MICROSECOND, int(most), int(counts), int(depth)), whose)
            for per, most, counts, depth, whose in json.loads(lower or b"[]")
        ),
        tuple(Fact(name, int(amount), int(left) * MICROSECOND) for name, amount, left in facts),
        tuple(claims),
        _allotted(*json.loads(slots)) if slots else None,
        tuple(Use(*map(int, amounts)) for amounts in use),
    )
