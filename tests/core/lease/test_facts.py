"""What those who share a budget tell each other of it: each fact reaches all, and a claim is one member's."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from apiflux_grpc.core.lease.entry import Entry
from apiflux_grpc.core.lease.facts import MOST_FACTS, live_facts
from apiflux_grpc.core.lease.ledger import Ledger
from apiflux_grpc.core.lease.serve import serve
from apiflux_grpc.core.lease.terms import BEAT, CLAIM
from apiflux_grpc.core.lease.words import Cap, Fact, Reply, Round
from apiflux_grpc.core.units import MILLISECOND, SECOND

MINUTE: Final = 60 * SECOND
LIFE: Final = 600 * MILLISECOND
FIRST: Final = Round("key", "a", 1, (Cap(MINUTE, 10),), LIFE, 0, trust=True)


class Store:
    """One whose clock is set, and its members' numbers with it."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.now = 1000 * SECOND
        self.run = "run"
        self.passed = 0  # of the replicas' time
        self._last: dict[str, Reply] = {}

    def says(self, name: str, **said: Any) -> Reply:
        """The reply to this member's next round."""
        round = FIRST._replace(incarnation=name, **said)
        if (last := self._last.get(name)) is not None:
            round = round._replace(number=last.number + 1, epoch=last.epoch, told=last.now, floor=self.now)
        self._last[name] = serve(self.entries, round, self.now, self.run, steady=True)
        return self._last[name]


def test_of_one_name_the_later_end_holds_and_of_equal_ends_the_larger_amount() -> None:
    """In whatever order they are told."""
    for facts in ([(1, 5), (2, 5), (9, 4)], [(9, 4), (2, 5), (1, 5)]):
        store = Store()
        for name, (amount, left) in zip("abc", facts, strict=True):
            store.says(name, facts=(Fact("x", amount, left * SECOND),))
        assert store.says("d").facts == (Fact("x", 2, 5 * SECOND),)


def test_what_has_ended_is_forgotten() -> None:
    """It is neither told nor kept, and nothing is said of facts then."""
    store = Store()
    store.says("a", facts=(Fact("x", 1, SECOND),), claims=("p",))
    store.now += SECOND - 1
    assert store.says("b").facts == (Fact("x", 1, 1),)
    assert live_facts(store.entries["key"], store.now + 1) == ()  # by a clock that isn't certain yet
    store.now += CLAIM
    assert store.says("b").facts == ()
    assert (store.entries["key"].facts, store.entries["key"].claims) == ({}, {})


def test_one_entry_keeps_a_bounded_number_of_facts_and_claims() -> None:
    """The facts that end first go."""
    store = Store()
    names = [f"x{number:03}" for number in range(MOST_FACTS + 5)]
    told = [Fact(name, 0, (number + 1) * SECOND) for number, name in enumerate(names)]
    reply = store.says("a", facts=tuple(told[::-1]), claims=tuple(names))
    assert sorted(fact.name for fact in reply.facts) == names[5:]
    assert len(reply.claims) == MOST_FACTS


def test_a_claim_of_one_that_is_heard_no_more_ends_by_itself() -> None:
    """CLAIM after it was heard last; until then nobody else has it, however often it asks."""
    store = Store()
    assert store.says("a", claims=("p",)).claims == ("p",)
    store.now += BEAT
    assert store.says("a", claims=("p",)).claims == ("p",)
    store.now += CLAIM - 1
    assert store.says("b", claims=("p",)).claims == ()
    store.now += 1
    assert store.says("b", claims=("p",)).claims == ("p",)
    assert store.says("a", claims=("p",)).claims == ()
    assert store.says("b").claims == ()  # it lets go
    assert store.says("a", claims=("p",)).claims == ("p",)


# -- the replica's side -------------------------------------------------------------------------


def a_ledger(name: str = "a") -> Ledger:
    return Ledger("key", name, [Cap(MINUTE, 10)], 0)


def exchange(store: Store, ledger: Ledger, now: int = 0) -> tuple[Round, list[Fact]]:
    """The ledger's next round, and what its reply brought."""
    store.now += now - store.passed
    store.passed = now
    round = ledger.next_round(now, 1)  # it wants something, or an idle one says nothing for long
    assert round is not None
    return round, list(ledger.heard(serve(store.entries, round, store.now, store.run, steady=True), now))


def test_a_fact_is_told_until_a_reply_acknowledged_it() -> None:
    """With what is left of it; and what is told meanwhile, by the next round."""
    ledger = a_ledger()
    ledger.news.tell("x", 7, 10 * SECOND)
    round = ledger.next_round(0, 0)
    assert round is not None
    assert round.facts == (Fact("x", 7, 10 * SECOND),)
    ledger.news.tell("x", 8, 11 * SECOND)
    (again,) = ledger.again(4 * SECOND).facts
    assert (again.name, again.amount) == ("x", 7)
    assert 6 * SECOND <= again.left < 6 * SECOND + 5 * MILLISECOND  # none is told to end earlier
    assert ledger.again(20 * SECOND).facts == ()
    ledger.heard(Reply(1, "epoch", 0), 4 * SECOND)
    second = ledger.next_round(4 * SECOND, 0)
    assert second is not None
    assert second.facts == (Fact("x", 8, 7 * SECOND),)
    ledger.heard(Reply(2, "epoch", 0), 4 * SECOND)
    ledger.news.tell("x", 99, 11 * SECOND - 1)  # it ends earlier than what was told
    assert not ledger.news.is_due


def test_news_are_told_as_soon_as_the_pace_allows() -> None:
    """Not with the next beat; and so are claims, and their end."""
    ledger = a_ledger()
    store = Store()
    exchange(store, ledger)
    assert ledger.wake_at(0, 0) > BEAT
    news = ledger.news
    for act in (partial(news.tell, "x", 1, MINUTE), partial(news.claim, "p"), partial(news.release, "p")):
        act()
        at = ledger.wake_at(store.passed, 0)
        assert at - store.passed <= LIFE // 4
        exchange(store, ledger, at)


def test_who_has_a_claim_is_heard_each_beat() -> None:
    """Though it has nothing to send: or the claim would end."""
    ledger = a_ledger()
    store = Store()
    ledger.news.claim("p")
    exchange(store, ledger)
    assert ledger.news.claimed == ("p",)
    assert ledger.wake_at(0, 0) == BEAT


def test_only_what_others_have_changed_is_handed_on() -> None:
    """Once; not one's own word, which comes back."""
    store, one, other = Store(), a_ledger(), a_ledger("b")
    one.news.tell("x", 1, 10 * SECOND)
    assert exchange(store, one)[1] == []
    assert exchange(store, other)[1] == [Fact("x", 1, 10 * SECOND)]
    one.news.tell("z", 1, 10 * SECOND)
    other.news.tell("x", 2, 20 * SECOND)
    assert exchange(store, other, BEAT)[1] == []
    assert exchange(store, one, BEAT)[1] == [Fact("x", 2, 19 * SECOND)]
    other.news.tell("y", 0, 30 * SECOND)
    assert [fact.name for fact in exchange(store, other, 2 * BEAT)[1]] == ["z"]
    assert [fact.name for fact in exchange(store, one, 2 * BEAT)[1]] == ["y"]


def test_a_store_that_forgot_is_told_again() -> None:
    """All that still holds, by whoever told it."""
    store, ledger = Store(), a_ledger()
    ledger.news.tell("x", 1, 10 * SECOND)
    ledger.news.tell("y", 1, BEAT)
    exchange(store, ledger)
    store.entries.clear()
    assert exchange(store, ledger, BEAT)[0].facts == ()
    assert exchange(store, ledger, 2 * BEAT)[0].facts == (Fact("x", 1, 8 * SECOND),)
    assert store.entries["key"].facts.keys() == {"x"}


def test_a_replica_that_the_store_forgot_tells_and_claims_anew() -> None:
    """It begins as another, and what it tried to tell is still to be told."""
    ledger = a_ledger()
    ledger.news.tell("x", 1, MINUTE)
    ledger.news.claim("p")
    assert ledger.next_round(0, 0) is not None
    ledger.heard(Reply(1, "epoch", 0, forgotten=True), 0)
    ledger.begin("c")
    round = ledger.next_round(0, 0)
    assert round is not None
    assert (round.facts, round.claims) == ((Fact("x", 1, MINUTE),), ("p",))
