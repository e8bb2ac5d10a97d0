"""One round, the store's side. What SQLite runs in a transaction, and what the script for Redis translates.

Rule: one round of a replica is under way at a time, and its number says which. The last one asked again gets the reply
that it got; a lower one changes nothing; one that is higher than what is known here allows tells that the store has
lost its last moments.

Everything is decided by `entry.last`, the newest time that a replica has confirmed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.lease.entry import Lease, Member
from apiflux_grpc.core.lease.facts import claims_of, fill_levels, forget_facts, learn, live_facts
from apiflux_grpc.core.lease.hours import begin, forget, is_forgotten, is_lost, know, opens_at, time_of, unknown_cost
from apiflux_grpc.core.lease.shares import grant
from apiflux_grpc.core.lease.slots import allot, allotted, hear_slots
from apiflux_grpc.core.lease.terms import BEAT, LAPSE, PROBATION, at_most
from apiflux_grpc.core.lease.thaw import thaw
from apiflux_grpc.core.lease.use import use_of
from apiflux_grpc.core.lease.words import COST, NOTHING, Amounts, Reply

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from apiflux_grpc.core.lease.entry import Entry
    from apiflux_grpc.core.lease.words import Held, Round


def serve(entries: MutableMapping[str, Entry], round: Round, clock: int, run_id: str, *, steady: bool = False) -> Reply:
    """What the store says to this round, and what becomes of the budget.

    `clock` is the server's own time in ns, `run_id` its run. `steady`: the clock is never stepped, and the replicas'
    own (one host's BOOTTIME), and the store can't be lost alone.
    """
    entry = entries.get(round.budget)
    if round.thaw:
        return thaw(entry, round, clock, run_id, steady=steady)
    if entry is None:
        trusted = round.trust and not round.epoch
        entry = entries[round.budget] = begin(round, clock, run_id, trusted=trusted)
    elif is_lost(entry, round, run_id):
        entry = entries[round.budget] = begin(round, clock, run_id, trusted=False)
    member = entry.members.get(round.incarnation)
    if member is not None and round.number == member.number:
        return _told(entry, round.incarnation)
    if member is not None and round.number < member.number:
        return Reply(round.number, entry.epoch, entry.last)
    if is_forgotten(entry, round):
        return Reply(round.number, entry.epoch, entry.last, forgotten=True)
    now = time_of(entry, member, round, clock)
    if member is None:
        member = Member(now, entry.last, Reply(0, "", 0), round.caps, round.life, round.jitter)
        member.established = steady or not any(entry.others(round.incarnation))
    member.born = min(member.born, now)  # time was put right since
    if now - member.born >= PROBATION:
        member.established = True
    if member.established:
        entry.move_on(now)
    entry.members[round.incarnation] = member  # only now: of its limits nothing may be known yet
    begins = member.number == 0 or not entry.lends_to(member)
    _hear(entry, member, round, now, steady)
    member.refusal = _refusal(entry, round, steady)
    if begins and not member.refusal and not any(other.counts_cost for other in entry.others(round.incarnation)):
        unknown_cost(entry, member)
    if member.established:
        forget(entry)
        forget_facts(entry)
    member.number = round.number
    member.reply = _reply(entry, member, round, now, steady)
    return _told(entry, round.incarnation)


def _told(entry: Entry, name: str) -> Reply:
    member = entry.members[name]
    # Who the members are isn't kept with each of them: of a hundred it would be the most of the entry.
    return member.reply._replace(
        roster=frozenset(entry.members),
        lower=entry.lower(name),
        facts=live_facts(entry, member.reply.now) if entry.facts else (),
        claims=claims_of(entry, name) if entry.claims else (),
        slots=None if member.slots is None else allotted(entry, name),
        use=use_of(entry, name),
    )


def _hear(entry: Entry, member: Member, round: Round, now: int, steady: bool) -> None:
    # The time that is certain may be older than this round, and one that isn't may be anything.
    member.seen = min(now, entry.last + LAPSE)
    member.left_at = member.seen if round.leaves else None
    member.caps, member.life, member.jitter = round.caps, round.life, round.jitter
    member.refused = round.refused
    know(entry, round, steady=steady)
    fill_levels(entry, round)
    learn(entry, round)
    hear_slots(entry, member, round)
    if round.memory is not None and round.incarnation not in entry.registered:
        entry.registered.add(round.incarnation)
        entry.roster |= round.memory.roster
        for calls, cost, age in round.memory.landed:
            entry.record(entry.last - age, calls, cost)
        entry.record(entry.last + at_most(round.life + round.jitter), *round.memory.open)
    if round.epoch != entry.epoch:
        return  # of leases that this epoch doesn't know: it opened, or opens, when all of that has ended
    listed = {held.lease for held in round.held}
    for number in [number for number in member.leases if number not in listed]:
        del member.leases[number]
    for held in round.held:
        _commit(entry, member.leases.get(held.lease), held)


def _commit(entry: Entry, lease: Lease | None, held: Held) -> None:
    # A lease that isn't there has ended, and what it had left counted until then: only what was sent after its end, or
    # cost more than was known, is new, and all else too old to count.
    new_calls = sum(group.calls for group in held.groups)
    new_cost = sum(group.cost for group in held.groups)
    if lease is not None:
        new_calls = held.landed.calls - lease.landed.calls
        new_cost = held.landed.cost - lease.landed.cost
        lease.calls -= new_calls + held.returned.calls - lease.returned.calls
        lease.cost -= new_cost + held.returned.cost - lease.returned.cost - (held.over - lease.over)
        if lease.arrived > entry.last:
            entry.fill(Amounts(new_calls, new_cost))
        else:  # all that was granted has filled the buckets by now
            more = held.over - lease.over + held.late.cost - lease.late.cost
            entry.fill(Amounts(held.late.calls - lease.late.calls, more))
        lease.landed, lease.returned, lease.over, lease.late = held.landed, held.returned, held.over, held.late
    else:
        entry.fill(Amounts(new_calls, new_cost))
    # Of what is told again the latest is new.
    for group in reversed(held.groups):
        calls, cost = min(group.calls, new_calls), min(group.cost, new_cost)
        if calls > 0 or cost > 0:
            entry.record(entry.last - group.age, calls, cost)
            new_calls -= calls
            new_cost -= cost


def _reply(entry: Entry, member: Member, round: Round, now: int, steady: bool) -> Reply:
    granted, again = NOTHING, 0
    opens = max(0, opens_at(entry, round, steady=steady) - entry.last)
    if member.refusal or round.leaves:
        again = BEAT
    elif opens or not member.established:
        again = min(BEAT, max(opens, 0 if member.established else PROBATION - (now - member.born)))
    elif round.slots is not None:
        again = allot(entry, round)
    else:
        granted, again = grant(entry, round)
    if granted.calls:
        member.leases[round.number] = Lease(*granted, entry.last + member.late)
    return Reply(round.number, entry.epoch, now, granted, again, opens, member.refusal, paused=entry.paused)


def _refusal(entry: Entry, round: Round, steady: bool) -> str:
    for other in entry.others(round.incarnation):
        if other.life != round.life:
            return (
                f"leases live {round.life / 1e6:g} ms here, and {other.life / 1e6:g} ms for others: make them the same"
            )
        if other.jitter != round.jitter:
            return (
                f"arrival_jitter is {round.jitter / 1e6:g} ms here, and {other.jitter / 1e6:g} ms for others: "
                "make them the same"
            )
        if other.counts_cost and not any(cap.counts == COST for cap in round.caps):
            return "others have limits of cost, which can't be kept for calls of a server without any: give it the same"
    # On one host a busy disk is everybody's: only what is hopeless is refused.
    share, most = ("half", 2) if steady else ("a quarter", 4)
    if most * round.round_trip > round.life:
        return (
            f"the store answers in {round.round_trip / 1e6:g} ms, more than {share} of the {round.life / 1e6:g} ms "
            "that a lease lives: make leases longer, or the store nearer"
        )
    return ""
