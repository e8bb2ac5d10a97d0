"""A budget's entry as plain lists and back: what the stores write down.

Rule: everything that `serve` reads is written, as integers, words, lists and None alone, so that JSON and MessagePack
keep it as it is; and what is read back serves the next round as the entry itself would have. Whoever changes a field
of an entry counts LAYOUT up: a store refuses what another layout wrote, for a field misread is a limit exceeded.

Sets are sorted, so that one entry has one text. Not known here: how a store writes the lists, and where.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING, Any, Final

from apiflux_grpc.core.lease.entry import Entry, Lease, Member, Slots
from apiflux_grpc.core.lease.level import Level
from apiflux_grpc.core.lease.log import Log
from apiflux_grpc.core.lease.words import Amounts, Cap, Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

LAYOUT: Final = 4
GRANTED: Final = Reply._fields.index("granted")
ROSTER: Final = Reply._fields.index("roster")
LOWER: Final = Reply._fields.index("lower")

Plain = list[Any]


def plain(entry: Entry) -> Plain:
    """The entry as lists."""
    return [
        LAYOUT,
        entry.epoch,
        entry.run_id,
        entry.last,
        entry.offset,
        entry.paused,
        int(entry.trusted),
        entry.began,
        [_plain_log(log) for log in entry.logs.values()],
        [[level.per, level.counts, level.filled, level.at] for level in entry.levels.values()],
        [[name, *_plain_member(member)] for name, member in entry.members.items()],
        entry.queue,
        sorted(entry.registered),
        sorted(entry.roster),
        [[name, *fact] for name, fact in entry.facts.items()],
        [[name, *claim] for name, claim in entry.claims.items()],
    ]


def entry_of(told: Sequence[Any]) -> Entry:
    """The entry that these lists tell. Raises ValueError if another layout wrote them."""
    layout, *fields = told
    if layout != LAYOUT:
        raise ValueError(f"has layout {layout} of its budgets, and this version of APIFlux reads {LAYOUT}")
    epoch, run_id, last, offset, paused, trusted, began, logs, levels, members, *rest = fields
    queue, registered, roster, facts, claims = rest
    return Entry(
        epoch,
        run_id,
        last,
        offset,
        paused,
        bool(trusted),
        began,
        {log[0]: _log_of(*log) for log in logs},
        {(level[0], level[1]): Level(*level) for level in levels},
        {name: _member_of(*member) for name, *member in members},
        list(queue),
        set(registered),
        set(roster),
        {name: (until, amount) for name, until, amount in facts},
        {name: (until, whose) for name, until, whose in claims},
    )


def _plain_log(log: Log) -> Plain:
    return [log.per, log.opens, [[place, *cell] for place, cell in log.cells.items()]]


def _log_of(per: int, opens: int, cells: Sequence[Sequence[int]]) -> Log:
    log = Log(per, opens)
    log.cells = {place: [*cell] for place, *cell in cells}
    log.calls = sum(calls for _, calls, _ in log.cells.values())
    log.cost = sum(cost for *_, cost in log.cells.values())
    return log


def _plain_member(member: Member) -> Plain:
    return [
        member.born,
        member.seen,
        _plain_reply(member.reply),
        [[*cap] for cap in member.caps],
        member.life,
        member.jitter,
        member.number,
        int(member.established),
        member.left_at,
        member.refusal,
        [*member.want],
        member.least,
        member.due,
        member.turn,
        [*member.refused],
        [
            [
                number,
                lease.calls,
                lease.cost,
                lease.arrived,
                [*lease.landed],
                [*lease.returned],
                lease.over,
                [*lease.late],
            ]
            for number, lease in member.leases.items()
        ],
        None if member.slots is None else [*astuple(member.slots)],
    ]


def _member_of(
    born: int,
    seen: int,
    reply: Sequence[Any],
    caps: Sequence[Sequence[int]],
    life: int,
    jitter: int,
    number: int,
    established: int,
    left_at: int | None,
    refusal: str,
    want: Sequence[int],
    least: int,
    due: int,
    turn: int,
    refused: Sequence[int],
    leases: Sequence[Sequence[Any]],
    slots: Sequence[int] | None,
) -> Member:
    return Member(
        born,
        seen,
        _reply_of(reply),
        tuple(Cap(*cap) for cap in caps),
        life,
        jitter,
        number,
        bool(established),
        left_at,
        refusal,
        Amounts(*want),
        least,
        due,
        turn,
        tuple(refused),
        {granted_by: _lease_of(*lease) for granted_by, *lease in leases},
        None if slots is None else Slots(*slots),
    )


def _lease_of(
    calls: int,
    cost: int,
    arrived: int,
    landed: Sequence[int],
    returned: Sequence[int],
    over: int,
    late: Sequence[int],
) -> Lease:
    return Lease(calls, cost, arrived, Amounts(*landed), Amounts(*returned), over, Amounts(*late))


def _plain_reply(reply: Reply) -> Plain:
    told: Plain = list(reply)[:LOWER]  # that is reckoned anew whenever it is told
    told[GRANTED] = [*reply.granted]
    told[ROSTER] = sorted(reply.roster)
    return told


def _reply_of(told: Sequence[Any]) -> Reply:
    return Reply(*told)._replace(granted=Amounts(*told[GRANTED]), roster=frozenset(told[ROSTER]))
