"""What a key does with what another process found out of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Final

from apiflux_grpc.core.block import Block, Owner
from apiflux_grpc.core.breaker import Breaker, State
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.keys import GroupState, Share
from apiflux_grpc.core.lease.news import News
from apiflux_grpc.core.shared_blocks import LEASELESS, PROBE, UNUSED, Probes, SharedBlocks
from apiflux_grpc.core.store_health import StoreHealth
from apiflux_grpc.core.units import SECOND

FIRST: Final = 10 * SECOND


def an_owner() -> Owner:
    return Owner(Budget((), 0, None))


def is_blocked(owner: Owner) -> bool:
    return owner.block is not None


def test_what_was_told_is_kept_whatever_passes_elsewhere() -> None:
    """To its end; a guess ends with it."""
    owner = an_owner()
    owner.refused(0, 0, 5 * SECOND, "told")
    owner.passed(SECOND)
    assert is_blocked(owner)
    owner.passed(5 * SECOND)
    assert not is_blocked(owner)
    owner.refused(6 * SECOND, 6 * SECOND, None, "a guess")
    owner.passed(7 * SECOND)
    assert not is_blocked(owner)


def test_calls_on_their_way_when_another_was_refused_are_none_of_its_probes() -> None:
    """Their refusal doubles nothing, and their success ends nothing."""
    owner = an_owner()
    owner.block = Block(SECOND)
    owner.block.guessed(SECOND, 3 * SECOND, 2, "another's")
    assert not owner.refused(SECOND, SECOND + 1, None, "on its way")
    assert not owner.worked(SimpleNamespace(taken_at=SECOND), SECOND + 1)
    assert (owner.block.guesses, owner.block.until) == (2, 3 * SECOND)
    owner.block.guessed(2 * SECOND, 3 * SECOND - 1, 1, "a guess that is behind")
    assert (owner.block.guesses, owner.block.until) == (2, 3 * SECOND)


def test_what_was_told_outlasts_a_guess_of_others() -> None:
    """It isn't probed then: all go on at its end."""
    block = Block(0)
    block.extend(0, 5 * SECOND, "told")
    block.guessed(SECOND, 2 * SECOND, 1, "a guess")
    assert (block.until, block.ends_by_probe) == (5 * SECOND, False)


def test_a_cool_down_doubles_once_however_many_find_the_key_rejected() -> None:
    """And once more for the probe that fails."""
    breaker = Breaker(1, FIRST, 60 * FIRST)
    assert breaker.failed(0, breaker.era)
    for late in range(1, 4):
        breaker.opened(late, FIRST + late)
    assert breaker.ready_at(4) == FIRST + 3
    breaker.opened(FIRST + 3, 3 * FIRST)  # another's probe
    assert breaker.ready_at(2 * FIRST) == 3 * FIRST
    assert breaker.failed(3 * FIRST, breaker.began(3 * FIRST))
    assert breaker.ready_at(3 * FIRST) == 3 * FIRST + 4 * FIRST


def test_a_probe_that_is_out_when_another_fails_says_nothing() -> None:
    """Its era is over; a breaker that another closed is closed here too."""
    breaker = Breaker(1, FIRST, 60 * FIRST)
    breaker.opened(0, FIRST)
    era = breaker.began(FIRST)
    breaker.opened(FIRST + 1, 3 * FIRST)
    assert not breaker.succeeded(FIRST + 2, era)
    assert breaker.state is State.OPEN
    assert breaker.closed(FIRST + 3)
    assert not breaker.closed(FIRST + 3)
    assert (breaker.state, breaker.calm) == (State.CLOSED, True)


def test_who_has_not_the_claim_sends_no_probe() -> None:
    """Of a block and of a breaker; before their end it isn't asked."""
    asked: list[int] = []

    class Gate:
        opens = False

        def lets(self, now: int) -> bool:
            asked.append(now)
            return self.opens

    gate = Gate()
    block, breaker = Block(0, gate), Breaker(1, FIRST, FIRST)
    block.guessed(0, FIRST, 1, "")
    breaker.gate = gate
    breaker.opened(0, FIRST)
    for one in (block, breaker):
        assert one.ready_at(1) == FIRST
        assert not asked
        assert one.ready_at(FIRST) == FAR
        gate.opens = True
        assert one.ready_at(FIRST) == FIRST
        gate.opens = False
        asked.clear()


class Unleased(Budget):
    """Of which a store lends nothing."""

    is_unleased = True


class Refused(Budget):
    """Of which a store lends nothing, as nobody knows until when."""

    opens_at = FAR


class Waiting:
    """An owner whose guess is over, and its share of the claims."""

    def __init__(self, budget: type[Budget] = Budget) -> None:
        self.owner = GroupState(budget((), 0, None))
        self.news = News()
        self.looked_at_by: list[int] = []
        self.probes = Probes(StoreHealth(), lambda owner, now: None)
        self.blocks = SharedBlocks(self.owner, self.news, self.probes, self.looked_at_by.append)
        self.owner.block = Block(0, self.blocks)
        self.owner.block.guessed(0, SECOND, 1, "")
        assert self.owner.block.ready_at(SECOND) == FAR

    def look(self, now: int, waiting: int) -> bool:
        """Whether it claims the probe."""
        self.probes.look(now, lambda paths: waiting)
        return PROBE in self.news.claims

    def has_it(self) -> None:
        """By the last reply."""
        self.news.claimed = (PROBE,)


def test_the_probe_is_claimed_only_while_calls_wait() -> None:
    """An idle process leaves it to another."""
    one = Waiting()
    assert not one.look(SECOND, 0)
    assert one.look(SECOND, 1)
    assert one.looked_at_by == [SECOND]
    assert not one.look(SECOND, 0)


def test_a_claim_that_can_not_be_used_is_let_go_for_a_while() -> None:
    """The call that waits has met that key, or waits for another probe, that somebody else has claimed."""
    one = Waiting()
    assert one.look(SECOND, 1)
    one.has_it()
    assert one.look(2 * SECOND, 1)
    assert one.look(2 * SECOND + UNUSED - 1, 1)
    assert not one.look(2 * SECOND + UNUSED, 1)
    again = one.looked_at_by[-1]
    assert again == 2 * SECOND + 3 * UNUSED
    assert not one.look(again - 1, 1)
    assert one.look(again, 1)


def test_who_is_refused_by_the_store_claims_nothing() -> None:
    """Without a lease no probe of its own can go: others find out, and at once."""
    one = Waiting(Refused)
    assert not one.look(SECOND, 1)
    assert not one.look(2 * SECOND, 1)


def test_a_claim_for_which_there_is_no_lease_is_let_go_too() -> None:
    """What waits may never fit, by another server's limits: then others' calls find out."""
    one = Waiting(Unleased)
    assert one.look(SECOND, 1)
    one.has_it()
    assert one.look(2 * SECOND, 1)
    assert one.look(2 * SECOND + LEASELESS - 1, 1)
    assert not one.look(2 * SECOND + LEASELESS, 1)
    assert one.look(one.looked_at_by[-1], 1)
    one.has_it()
    assert one.look(one.looked_at_by[-1] + LEASELESS - 1, 1)


def test_a_claim_is_kept_while_its_probe_is_out_and_let_go_after_it() -> None:
    """However long the call takes."""
    one = Waiting()
    assert one.look(SECOND, 1)
    one.has_it()
    assert one.look(2 * SECOND, 1)
    probe = Share(one.owner, 0, 2 * SECOND)
    assert one.owner.block is not None
    one.owner.block.began(probe)
    assert one.look(100 * SECOND, 0)
    assert one.owner.worked(probe, 101 * SECOND)
    assert not one.look(101 * SECOND, 5)
    assert not one.probes.waiting


def test_a_rejection_that_ends_before_its_time_is_told_after_it() -> None:
    """Of what is told under one name that which ends later holds, and what happened last is to hold."""
    one = Waiting()
    now, ends = SECOND, list[int]()
    for _ in range(3):
        one.blocks.rejected(403, now + FIRST, now)
        ends.append(one.news.facts(now)[0].left + now)
        one.blocks.accepted(now + 1)
        (fact,) = one.news.facts(now)
        assert fact.amount == 0
        ends.append(fact.left + now)
    assert ends == sorted(set(ends))
