"""What holds calls back is told in words, with the instants, for each key and for every batch that waits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apiflux_grpc.core.batch import Batch, Ending
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.events import KeyBlocked, LimitLower
from apiflux_grpc.core.held import Cause, Held
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.outcome import Unknown
from apiflux_grpc.core.units import SECOND
from tests.core.desk import POOL, Desk, batch_of

ONE = Pool("pool", (Key("key-0", "secret", (Limit(10, SECOND),)),))


def of_keys(desk: Desk) -> list[tuple[Held, ...]]:
    """What GetInfo says of each key."""
    return [key.held_by for key in desk.dispatcher.info(desk.now, detail=True).keys]


def of_pool(desk: Desk) -> tuple[Held, ...]:
    """What GetInfo says of the pool, which is what a batch that waits is told."""
    batch = batch_of(1, id=99)
    desk.submit(batch)
    desk.dispatcher.tick(desk.now)
    told = desk.dispatcher.info(desk.now, detail=True).held_by
    assert batch.held_by == told
    desk.dispatcher.cancel(batch)
    return told


def test_a_told_wait_holds_its_key_back_until_it_ends() -> None:
    """With the header and its value in words; afterwards nothing holds it back, though no call has gone since."""
    desk = Desk()
    desk.submit(batch_of(2))
    first, _ = desk.assign()
    desk.now = 3
    desk.answer(first, 429, retry_after="12")
    held = Held(Cause.LIMITED, "429 with Retry-After: 12 s", 3, 3 + 12 * SECOND)
    assert of_keys(desk) == [(held,), ()]
    assert of_pool(desk) == (replace(held, keys=("key-0",), count=1),)
    desk.now += 12 * SECOND
    assert of_keys(desk) == [(), ()]
    assert of_pool(desk) == ()


def test_after_a_guess_one_call_probes() -> None:
    """The key is held back until it has answered well: at an instant first, then by the probe."""
    desk = Desk(ONE)
    desk.submit(batch_of(2))
    first, second = desk.assign()
    desk.answer(first, 429)
    desk.answer(second)
    assert of_keys(desk) == [(Held(Cause.LIMITED, "429 with no usable wait", 0, SECOND),)]
    desk.now = SECOND
    probing = Held(Cause.LIMITED, "429 with no usable wait; one call probes", 0, None)
    assert of_keys(desk) == [(probing,)]
    (probe,) = desk.assign()
    assert of_keys(desk) == [(probing,)]
    desk.answer(probe)
    ((cut,),) = of_keys(desk)
    assert (cut.cause, cut.reason) == (
        Cause.LOWER_LIMIT,
        "refused though it kept 10 per 1 s: 7 are used for a while",
    )
    assert cut.until is not None
    desk.now = cut.until
    desk.assign()
    assert of_keys(desk) == [()]


def test_a_rejected_key_says_with_what() -> None:
    """Since its breaker opened, until it is tried again."""
    desk = Desk(ONE)
    desk.submit(batch_of(11))
    for permit in desk.assign():
        desk.answer(permit, 401)
    assert of_keys(desk) == [(Held(Cause.KEY_REJECTED, "rejected with 401", 0, 10 * SECOND),)]
    desk.now = 10 * SECOND
    (probe,) = desk.assign()
    assert of_keys(desk) == [(Held(Cause.KEY_REJECTED, "rejected with 401; one call probes", 0, None),)]
    desk.answer(probe, 401)
    assert of_keys(desk) == [(Held(Cause.KEY_REJECTED, "rejected with 401", 0, 30 * SECOND),)]


def test_a_failing_upstream_holds_the_whole_pool_back() -> None:
    """With its last failure and the next try; no key of it is to blame."""
    desk = Desk(POOL)
    desk.submit(batch_of(30, idempotent=False))
    for permit in desk.assign():
        desk.end(permit, Unknown("connection refused"))
    assert of_keys(desk) == [(), ()]
    desk.now = SECOND // 2
    reason = "upstream failing: connection refused; next try in 1 s"
    assert of_pool(desk) == (Held(Cause.UPSTREAM_FAILING, reason, 0, SECOND),)
    desk.now = 2 * SECOND
    (probe,) = desk.assign()
    probing = Held(Cause.UPSTREAM_FAILING, "upstream failing: connection refused; one call probes", 0, None)
    assert of_pool(desk) == (probing,)
    desk.answer(probe)
    assert of_pool(desk) == ()


@pytest.mark.parametrize("keys", [2, 50])
def test_a_batch_is_told_one_reason_of_each_kind(keys: int) -> None:
    """However many keys wait: in the words of that which is free first, with three labels and the number of all."""
    labels = [f"key-{place}" for place in range(keys + 1)]
    desk = Desk(Pool("pool", tuple(Key(label, "secret", (Limit(3, SECOND),)) for label in labels)))
    desk.submit(batch_of(3 * keys + 3))
    for permit in desk.assign():
        place = permit.key.index
        if place == keys:
            desk.answer(permit, 403)
        else:
            desk.answer(permit, 429, retry_after=str(100 - place))
    limited, rejected = of_pool(desk)
    first = 101 - keys
    assert (limited.reason, limited.until) == (f"429 with Retry-After: {first} s", first * SECOND)
    assert (limited.keys, limited.count) == (tuple(labels[:keys][:3]), keys)
    assert (rejected.reason, rejected.keys, rejected.count) == ("rejected with 403", (labels[-1],), 1)


def test_a_batch_that_waits_for_nothing_is_told_nothing() -> None:
    """What is all in flight isn't held back, whatever another batch waits for."""
    desk, batch, other = Desk(), batch_of(2), batch_of(30, id=2)
    desk.submit(batch)
    first, _ = desk.assign()
    desk.answer(first, 429, retry_after="12")
    desk.dispatcher.tick(desk.now)
    assert [held.keys for held in batch.held_by] == [("key-0",)]
    assert len(desk.assign()) == 1  # the call goes with the other key
    desk.submit(other)
    desk.assign()
    desk.dispatcher.tick(desk.now)
    assert batch.held_by == ()
    assert [held.keys for held in other.held_by] == [("key-0",)]


def test_what_others_take_is_told_with_the_limit() -> None:
    """The upstream says that less is left than we took: others do, and nobody knows until when."""
    desk = Desk(ONE)
    desk.submit(batch_of(3))
    first, *_ = desk.assign()
    desk.now = 5
    desk.answer(first, ratelimit_limit="10", ratelimit_remaining="2")
    assert of_keys(desk) == [(Held(Cause.OTHERS, "others use 5 of 10 per 1 s", 5, None),)]
    assert of_pool(desk)[0].keys == ("key-0",)


def test_a_key_counts_once_whichever_of_its_limits_others_use() -> None:
    """A server that was restarted is told by the refusals of both limits that "others" were there: its former self."""
    limits = (Limit(10, SECOND), Limit(100, 60 * SECOND))
    desk = Desk(Pool("pool", (Key("key-0", "secret", limits), Key("key-1", "secret", limits))))
    desk.submit(batch_of(2))
    for permit in desk.assign():
        desk.answer(permit, ratelimit='"a";r=2;t=1, "b";r=50;t=60', ratelimit_policy='"a";q=10;w=1, "b";q=100;w=60')
    assert [[held.cause for held in key] for key in of_keys(desk)] == [[Cause.OTHERS] * 2] * 2
    (told,) = of_pool(desk)
    assert (told.keys, told.count) == (("key-0", "key-1"), 2)


def test_a_limit_below_the_configured_one_holds_while_it_is_told() -> None:
    """Told once to observers, apart from what others take of it; without the word the configured one is there again."""
    desk = Desk(ONE)
    desk.submit(batch_of(30))
    for place, permit in enumerate(desk.assign()):  # ten: two of the seven are others', so five are admitted
        told = {"ratelimit_policy": "7;w=1", "ratelimit_limit": "7", "ratelimit_remaining": str(max(0, 4 - place))}
        desk.answer(permit, 200 if place < 5 else 429, **told)
    lower = "the upstream allows 7 per 1 s, below the configured 10"
    assert [event for event in desk.dispatcher.take_events() if not isinstance(event, KeyBlocked)] == [
        LimitLower("key-0", lower)
    ]
    ((_, first, others),) = of_keys(desk)
    assert first == Held(Cause.LOWER_LIMIT, lower, 0, None)
    assert others == Held(Cause.OTHERS, "others use 2 of 10 per 1 s", 0, None)
    desk.now = 2 * SECOND
    (probe,) = desk.assign()
    desk.answer(probe)
    assert of_keys(desk) == [()]
    assert len(desk.assign()) == 9


def test_a_limit_that_is_not_configured_and_used_up_counts() -> None:
    """The key isn't usable, ETA and drain time wait for the reset, and a deadline before it is refused."""
    desk = Desk(ONE)
    desk.submit(batch_of(1))
    (first,) = desk.assign()
    told = {"x_ratelimit_limit": "5", "x_ratelimit_remaining": "0", "x_ratelimit_reset": "30"}
    desk.answer(first, 200, **told)
    reset = 30 * SECOND
    words = "nothing left of x-ratelimit-remaining"
    assert desk.dispatcher.take_events() == [KeyBlocked("key-0", reset, 200, words)]
    held = Held(Cause.NOTHING_LEFT, words, 0, reset)
    assert of_keys(desk) == [(held,)]
    waiting = batch_of(1, id=2)
    desk.submit(waiting)
    desk.dispatcher.tick(desk.now)
    info = desk.dispatcher.info(desk.now, detail=True)
    (key,) = info.keys
    assert (key.state, key.blocked_for) == ("blocked", reset)
    assert info.drain_time == waiting.eta == pytest.approx(reset, rel=0.01)
    hasty = Batch(3, "caller", 1, admitted_at=0, calls=[Call()], deadline=29 * SECOND)
    desk.submit(hasty)
    assert hasty.ending is Ending.INFEASIBLE
    desk.now = reset
    (probe,) = desk.assign()
    desk.answer(probe, 200, **told)
    assert of_keys(desk) == [(Held(held.cause, held.reason, 0, 2 * reset),)]


def test_a_limit_that_is_used_up_again_and_again_is_news_once_an_hour() -> None:
    """One that isn't configured may be spent every second: GetInfo says so, and the log not each time."""
    desk = Desk(ONE)
    desk.submit(batch_of(210))
    news = []
    for _ in range(201):
        for permit in desk.assign():
            desk.answer(permit, ratelimit_limit="5", ratelimit_remaining="0", ratelimit_reset="30")
        news += [event for event in desk.dispatcher.take_events() if isinstance(event, KeyBlocked)]
        desk.now += 30 * SECOND
    assert [place for place, event in enumerate(news) if not event.again] == [0, 120]
    assert len(news) == 201


def test_a_told_wait_is_kept_to_its_end() -> None:
    """Another refusal may make it longer, and never shorter."""
    desk = Desk(ONE)
    (key,) = desk.dispatcher.scheduler.keys
    told = []
    for now, wait in ((0, 9), (1, 2), (2, None), (3, 8)):
        key.refused(now, now, wait, f"told {wait}")
        if key.block is not None:
            told.append((key.block.until, key.block.told, key.block.cause))
    assert told == [(9, True, "told 9")] * 3 + [(11, True, "told 8")]
