"""Rules of the store's side that a fleet meets too rarely for the machine to be relied upon."""

from __future__ import annotations

from typing import Any, Final

import pytest

from apiflux_grpc.core.lease.entry import Entry
from apiflux_grpc.core.lease.log import Log
from apiflux_grpc.core.lease.serve import serve
from apiflux_grpc.core.lease.shares import fair
from apiflux_grpc.core.lease.terms import BEAT, FAILOVER_LAG, LAPSE, PROBATION, at_most
from apiflux_grpc.core.lease.words import CALLS, NOTHING, Amounts, Cap, Group, Held, Lower, Reply, Round
from apiflux_grpc.core.units import MILLISECOND, SECOND

MINUTE: Final = 60 * SECOND
LIFE: Final = 600 * MILLISECOND
FIRST: Final = Round("key", "a", 1, (Cap(MINUTE, 10),), LIFE, 250 * MILLISECOND, trust=True)
START: Final = 1_000_000 * SECOND


class Store:
    """One store whose clock the test sets; `steady`, so that nobody is on probation."""

    def __init__(self, *, steady: bool = True) -> None:
        self.entries: dict[str, Entry] = {}
        self.steady = steady
        self.at = START
        self.run_id = "run"

    def says(self, round: Round, **other: Any) -> Reply:
        return serve(self.entries, round._replace(**other), self.at, self.run_id, steady=self.steady)

    def after(self, reply: Reply, **other: Any) -> Round:
        """The next round of who got this reply."""
        floor = reply.now + (self.at - reply.now) * 999 // 1000
        asked = {"number": reply.number + 1, "epoch": reply.epoch, "told": reply.now, "floor": floor}
        return FIRST._replace(**{**asked, "paused": reply.paused, **other})

    @property
    def used(self) -> int:
        entry = self.entries["key"]
        return sum(log.calls + entry.leased(log, entry.last).calls for log in entry.logs.values())


# -- rounds and commits --------------------------------------------------------------------------


def test_a_round_asked_again_gets_the_reply_that_it_got() -> None:
    """And nothing is granted twice, however much is free by then."""
    store = Store()
    reply = store.says(FIRST, want=Amounts(4))
    store.at += SECOND
    assert (store.says(FIRST, want=Amounts(4)), store.says(FIRST, want=Amounts(9))) == (reply, reply)
    assert (reply.granted.calls, store.used) == (4, 4)


@pytest.mark.parametrize("groups", [(), (Group(3, 0, 0),)])
def test_what_landed_is_told_in_totals(groups: tuple[Group, ...]) -> None:
    """Told once more, with its groups or without, it changes nothing."""
    store = Store()
    reply = store.says(FIRST, want=Amounts(10))
    held = Held(1, Amounts(3), NOTHING, (Group(3, 0, 0),))
    reply = store.says(store.after(reply, held=(held,)))
    store.says(store.after(reply, held=(held._replace(groups=groups),)))
    assert store.entries["key"].members["a"].leases[1].calls == 7
    assert store.used == 10


def test_a_newcomer_is_granted_nothing_until_all_others_must_have_been_heard() -> None:
    """They may know that the store's time has jumped, which it can't tell."""
    store = Store(steady=False)
    reply = store.says(FIRST)
    store.at += 3 * SECOND
    reply = store.says(store.after(reply, want=Amounts(4)))
    assert reply.granted.calls == 4
    new = store.says(FIRST, incarnation="b", want=Amounts(4))
    assert (new.granted.calls, new.again) == (0, BEAT)
    store.at += SECOND
    reply = store.says(store.after(reply, held=(Held(2, NOTHING, NOTHING),)))
    store.at += SECOND
    assert store.says(store.after(new, incarnation="b", want=Amounts(4))).granted.calls == 4


def test_an_old_round_changes_nothing() -> None:
    """It would return what was leased since, and be granted more."""
    store = Store()
    first = store.says(FIRST, want=Amounts(4))
    second = store.says(store.after(first, want=Amounts(5), held=(Held(1, NOTHING, NOTHING),)))
    assert (second.granted.calls, store.used) == (5, 9)
    assert store.says(FIRST, want=Amounts(4)).granted.calls == 0
    assert store.used == 9


def test_a_lease_that_is_not_listed_is_returned() -> None:
    """The replica doesn't know it, so nobody will ever spend it."""
    store = Store()
    reply = store.says(FIRST, want=Amounts(4))
    store.says(store.after(reply, want=NOTHING))
    assert store.used == 0


def test_totals_that_are_told_again_change_nothing() -> None:
    """Whatever was told before is neither landed nor returned once more."""
    store = Store()
    reply = store.says(FIRST, want=Amounts(8))
    held = Held(1, landed=Amounts(3), returned=Amounts(2), groups=(Group(3, 0, 0),))
    for _ in range(3):
        reply = store.says(store.after(reply, held=(held,)))
        assert store.used == 6
    held = held._replace(landed=Amounts(4), groups=(Group(3, 0, 5), Group(1, 0, 0)))
    reply = store.says(store.after(reply, held=(held,)))
    assert store.used == 6
    store.says(store.after(reply, held=(held._replace(returned=Amounts(4)),)))
    assert store.used == 4


def test_a_landed_call_comes_back_when_its_age_says() -> None:
    """However late it was told."""
    store = Store()
    reply = store.says(FIRST, want=Amounts(1))
    store.at += 20 * SECOND
    reply = store.says(store.after(reply, held=(Held(1, Amounts(1), NOTHING, (Group(1, 0, 15 * SECOND),)),)))
    store.at = START + 5 * SECOND + at_most(MINUTE) - 1
    reply = store.says(store.after(reply, want=Amounts(10)))
    assert (reply.granted.calls, store.used) == (9, 10)
    store.at += 1
    reply = store.says(store.after(reply, want=Amounts(10), held=(Held(reply.number, NOTHING, NOTHING),)))
    assert reply.granted.calls == 1


def test_what_nobody_reports_counts_until_it_must_have_ended() -> None:
    """A crash costs the lease: its end, J for the last call on its way, and the window."""
    store = Store()
    store.says(FIRST, want=Amounts(10))
    store.at = START + LIFE + at_most(FIRST.jitter) + at_most(MINUTE) - 1
    other = store.says(FIRST, incarnation="b", want=Amounts(10))
    assert other.granted.calls == 0
    store.at += 1
    assert store.says(store.after(other, incarnation="b", want=Amounts(10))).granted.calls == 10


def test_a_call_that_went_out_late_counts_though_its_lease_is_gone() -> None:
    """What a stopped process sent after the end of its lease is a debt."""
    store = Store()
    reply = store.says(FIRST, want=Amounts(1))
    store.at += 2 * MINUTE
    reply = store.says(store.after(reply, held=(Held(1, NOTHING, NOTHING),)))
    store.says(store.after(reply, held=(Held(1, Amounts(1), NOTHING, (Group(1, 0, 0),)),)))
    assert store.used == 1


# -- shares and terms ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wants", "free", "share"),
    [([5], 3, 3), ([1, 9, 9], 9, 4), ([4, 4], 2, 1), ([9] * 8, 3, 1), ([1, 1], 9, 9), ([2, 3, 50], 11, 6)],
)
def test_a_fair_share_leaves_the_rest_to_who_wants_more(wants: list[int], free: int, share: int) -> None:
    """Even among those who want more than that; one at the least."""
    assert fair(wants, free) == share


def test_a_turn_that_is_not_taken_lapses() -> None:
    """Who waits first and has died holds up nobody for longer than its turn."""
    store = Store()
    reply = store.says(FIRST, want=Amounts(10))
    held = (Held(1, Amounts(10), NOTHING, (Group(10, 0, 0),)),)
    reply = store.says(store.after(reply, held=held))
    dead = store.says(FIRST, incarnation="dead", want=Amounts(10))
    waits = store.says(FIRST, incarnation="b", want=Amounts(10))
    assert (dead.granted.calls, waits.granted.calls) == (0, 0)
    store.at = START + at_most(MINUTE)
    waits = store.says(store.after(waits, incarnation="b", want=Amounts(10)))
    assert waits.granted.calls == 10


def test_who_comes_first_leaves_the_others_their_share() -> None:
    """Of ten that come back together each of two that wait gets five, whoever is there first."""
    store = Store()
    reply = store.says(FIRST, want=Amounts(10))
    reply = store.says(store.after(reply, held=(Held(1, Amounts(10), NOTHING, (Group(10, 0, 0),)),)))
    store.at = START + at_most(MINUTE) - BEAT
    waits = [store.says(FIRST, incarnation=name, want=Amounts(10)) for name in "bc"]
    store.at += BEAT
    waits = [
        store.says(store.after(one, incarnation=name, want=Amounts(10))) for one, name in zip(waits, "bc", strict=True)
    ]
    assert [one.granted.calls for one in waits] == [5, 5]


@pytest.mark.parametrize(
    ("other", "steady", "word"),
    [
        ({"jitter": SECOND}, True, "arrival_jitter is 1000 ms here, and 250 ms for others"),
        ({"life": SECOND}, True, "leases live 1000 ms here, and 600 ms for others"),
        ({"round_trip": 151 * MILLISECOND}, False, "the store answers in 151 ms, more than a quarter of the 600 ms"),
        ({"round_trip": 301 * MILLISECOND}, True, "the store answers in 301 ms, more than half of the 600 ms"),
    ],
)
def test_a_replica_that_does_not_fit_is_refused(other: dict[str, Any], steady: bool, word: str) -> None:
    """Saying why; the others go on. A slow disk is no reason, unless nothing would be left of a lease."""
    store = Store()
    reply = store.says(FIRST)
    store.steady = steady
    refused = store.says(FIRST, incarnation="b", want=Amounts(5), **other)
    assert refused.granted.calls == 0
    assert refused.refusal.startswith(word)
    store.steady = True
    assert store.says(store.after(reply, want=Amounts(5))).granted.calls == 5


# -- the limits of several configurations --------------------------------------------------------


def test_of_like_limits_the_lower_holds_until_its_length_after_its_side_has_left() -> None:
    """An orderly end, or a lapse after it was last heard."""
    store = Store()
    reply = store.says(FIRST)
    low = store.says(FIRST, incarnation="low", caps=(Cap(MINUTE, 3),))
    store.says(store.after(low, incarnation="low", caps=(Cap(MINUTE, 3),), leaves=True))
    store.at += at_most(MINUTE) - 1
    reply = store.says(store.after(reply, want=Amounts(10)))
    assert reply.granted.calls == 3
    store.at += 1
    assert store.says(store.after(reply, want=Amounts(10), held=(Held(2, NOTHING, NOTHING),))).granted.calls == 7


def test_a_reply_says_which_limits_of_others_hold_and_whose() -> None:
    """Those that are lower, and those that this side doesn't have; until they have gone. Rule 1."""
    store = Store()
    reply = store.says(FIRST)
    assert reply.lower == ()
    low, more, bucket = Cap(MINUTE, 3), Cap(SECOND, 2), Cap(SECOND, 5, CALLS, 7)
    store.says(FIRST, incarnation="low", caps=(low, bucket))
    assert store.says(FIRST, incarnation="more", caps=(Cap(MINUTE, 20), more)).lower == (
        Lower(low, "low"),
        Lower(bucket, "low"),
    )
    reply = store.says(store.after(reply))
    assert set(reply.lower) == {Lower(low, "low"), Lower(bucket, "low"), Lower(more, "more")}
    shallow = store.says(FIRST, incarnation="deep", caps=(bucket._replace(max=4, depth=9),)).lower
    assert Lower(bucket._replace(max=4), "low") in shallow
    store.at += LAPSE + 3 * SECOND
    assert store.says(store.after(reply)).lower == (Lower(low, "low"),)


def test_who_was_silent_until_its_own_limit_had_gone_is_told_of_none_that_is_higher() -> None:
    """It asks again for a reply that was lost, when another's limit is all that holds."""
    store = Store()
    low = store.says(FIRST, incarnation="low", caps=(Cap(SECOND, 3),))
    reply = store.says(FIRST, caps=(Cap(SECOND, 10),))
    store.at += LAPSE + 2 * SECOND
    store.says(store.after(reply, caps=(Cap(SECOND, 10),)))
    again = store.says(FIRST, incarnation="low", caps=(Cap(SECOND, 3),))
    assert again == low._replace(roster=frozenset(("a", "low")))


def test_a_longer_limit_counts_what_it_cannot_know_as_spent() -> None:
    """The log of a shorter one reaches back only so far."""
    log = Log(SECOND)
    log.record(START, 2, 0)
    heir = log.heir(MINUTE, START)
    assert heir.opens == START - log.kept + heir.kept
    assert heir.calls == 2
    assert heir.heir(SECOND // 2, heir.opens).opens == 0


def test_a_log_is_the_same_whatever_the_order_of_reports() -> None:
    """And has at most 130 groups."""
    instants = [START + place * 7_919 * MILLISECOND % MINUTE for place in range(1000)]
    logs = [Log(MINUTE), Log(MINUTE)]
    for log, order in zip(logs, (instants, sorted(instants)), strict=True):
        for instant in order:
            log.record(instant, 1, 0)
    assert logs[0].cells == logs[1].cells
    assert len(logs[0].cells) <= 130


# -- a store that forgets ------------------------------------------------------------------------


@pytest.mark.parametrize(("steady", "lag"), [(False, FAILOVER_LAG), (True, 0)])
def test_a_store_that_is_behind_what_was_acknowledged_freezes(steady: bool, lag: int) -> None:
    """Though its run_id says nothing: it lost the round whose reply the replica has. A file has no other memory that
    may have gone on telling replicas meanwhile."""
    store = Store(steady=steady)
    first = store.says(FIRST, want=Amounts(1))
    reply = store.says(store.after(first, held=(Held(1, NOTHING, NOTHING),)))
    behind = Store(steady=steady)
    behind.says(FIRST, want=Amounts(1))
    frozen = behind.says(store.after(reply, want=Amounts(1), held=(Held(1, NOTHING, NOTHING),)))
    assert frozen.granted.calls == 0
    assert frozen.opens == at_most(MINUTE + LIFE + FIRST.jitter + lag)


def test_an_empty_store_that_somebody_has_a_ledger_for_freezes() -> None:
    """`trust` takes it that nothing was spent; one who comes and has spent of it says otherwise."""
    store = Store(steady=False)
    ours = store.says(FIRST, want=Amounts(1))
    store.entries.clear()
    store.at += MINUTE
    new = store.says(FIRST, incarnation="new", want=Amounts(5))
    assert new.granted.calls == 0
    assert 0 < new.opens <= PROBATION
    frozen = store.says(store.after(ours, want=Amounts(1)))
    assert frozen.opens >= MINUTE
    store.at += 2 * PROBATION
    assert store.says(store.after(new, incarnation="new", want=Amounts(5))).granted.calls == 0


def test_an_empty_store_that_nobody_has_a_ledger_for() -> None:
    """`trust`: it opens when who has one must have been heard; else when all that may have been spent has ended."""
    for trust, opens in ((True, PROBATION), (False, at_most(MINUTE + LIFE + FIRST.jitter + FAILOVER_LAG))):
        assert Store(steady=False).says(FIRST, trust=trust, want=Amounts(5)).opens == opens


def test_who_was_silent_for_long_is_forgotten_and_freezes_nothing() -> None:
    """Nothing of it counts any more: it begins as another, and the others go on."""
    store = Store()
    silent = store.says(FIRST, want=Amounts(1))
    reply = store.says(FIRST, incarnation="b")
    store.at += 2 * MINUTE + 3 * LAPSE
    reply = store.says(store.after(reply, incarnation="b"))
    assert store.says(store.after(silent)).forgotten
    assert store.says(store.after(reply, incarnation="b", want=Amounts(10))).granted.calls == 10


def test_the_limits_of_a_newcomer_hold_until_their_length_after_it_has_left() -> None:
    """Though nothing has confirmed the time at which it was heard."""
    store = Store(steady=False)
    reply = store.says(FIRST)
    store.at += PROBATION
    reply = store.says(store.after(reply))
    store.at += SECOND
    low = store.says(FIRST, incarnation="low", caps=(Cap(MINUTE, 3),))
    store.says(store.after(low, incarnation="low", caps=(Cap(MINUTE, 3),), leaves=True))
    store.at += at_most(MINUTE) - 1
    assert store.says(store.after(reply, want=Amounts(10))).granted.calls == 3


# -- the store's time ----------------------------------------------------------------------------


def test_a_clock_that_was_set_back_goes_on_from_where_it_was() -> None:
    """Nobody waits for an hour, and nothing ends sooner than it would have."""
    store = Store()
    reply = store.says(FIRST, want=Amounts(10))
    held = (Held(1, Amounts(10), NOTHING, (Group(10, 0, 0),)),)
    reply = store.says(store.after(reply, held=held))
    spent_at = store.at
    store.at += SECOND
    reply = store.says(store.after(reply, held=held))
    store.at -= 3600 * SECOND
    reply = store.says(store.after(reply, floor=-1, held=held))
    assert reply.now == spent_at + SECOND
    store.at += at_most(MINUTE) - SECOND - 1
    reply = store.says(store.after(reply, floor=-1, want=Amounts(10), held=held))
    assert reply.granted.calls == 0
    store.at += 1
    assert store.says(store.after(reply, floor=-1, want=Amounts(10), held=held)).granted.calls == 10


def test_a_clock_that_jumps_ahead_is_held_back_for_all() -> None:
    """By the first who was told the time before; who comes later was told it too, and nothing skips."""
    store = Store(steady=False)
    ours = store.says(FIRST)
    store.at += PROBATION
    ours = store.says(store.after(ours, want=Amounts(10)))
    theirs = store.says(FIRST, incarnation="b")
    store.at += 3600 * SECOND
    floor = ours.now + SECOND
    ours = store.says(
        store.after(ours, floor=floor, held=(Held(ours.number, Amounts(10), NOTHING, (Group(10, 0, 0),)),))
    )
    assert (ours.now, ours.paused) == (floor, START + PROBATION + 3600 * SECOND - floor)
    # Late, and by the time of before: it can't tell how long time has paused since, but the store can.
    late = store.says(store.after(theirs, incarnation="b", floor=theirs.now + PROBATION, want=Amounts(10)))
    assert late.now == floor
    assert late.granted.calls == 0


def test_time_that_was_held_back_does_not_skip_for_who_was_told_before() -> None:
    """One whose reply was three seconds late holds time back; what is noted then counts for its whole window."""
    store = Store(steady=False)
    ours = store.says(FIRST)
    theirs = store.says(FIRST, incarnation="b")
    store.at += PROBATION
    ours = store.says(store.after(ours, want=Amounts(10)))
    theirs = store.says(store.after(theirs, incarnation="b"))
    store.at += 4 * SECOND
    landed = (Held(ours.number, Amounts(10), NOTHING, (Group(10, 0, 0),)),)
    ours = store.says(store.after(ours, floor=ours.now + SECOND, held=landed))
    assert (ours.now, ours.paused) == (theirs.now + SECOND, 3 * SECOND)
    # Its floor is three seconds above that, for it was told the time before.
    theirs = store.says(store.after(theirs, incarnation="b", want=Amounts(10)))
    assert theirs.now == ours.now
    spent_at, store.at = store.at, store.at + at_most(MINUTE) - 1
    floor = theirs.now + (store.at - spent_at) * 999 // 1000
    theirs = store.says(store.after(theirs, incarnation="b", floor=floor, want=Amounts(10)))
    assert theirs.granted.calls == 0
    store.at += 1
    assert store.says(store.after(theirs, incarnation="b", floor=floor, want=Amounts(10))).granted.calls == 10
