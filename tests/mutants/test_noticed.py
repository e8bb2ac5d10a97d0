"""What no other test noticed when it was broken on purpose."""

from __future__ import annotations

import asyncio

import pytest

from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.outcome import Reason, Unknown
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.testing import FakeUpstream, SilentObserver, loop_clock
from tests.mutants.__main__ import ROOT, main
from tests.mutants.variants import VARIANTS

SPEC = BatchSpec("pool", "caller", [Call()], RetryPolicy(max_attempts=1))


def engine_over(*limits: Limit) -> tuple[Engine, FakeUpstream]:
    upstream = FakeUpstream(loop_clock)
    pool = Pool("pool", (Key("key-0", "secret", limits),), 0)
    parts = PoolParts(pool, lambda: upstream, None)
    return Engine([parts], SilentObserver(), clock=loop_clock), upstream


@pytest.mark.looptime
async def test_a_call_of_which_nobody_said_that_it_was_sent_stays_charged() -> None:
    """Unknown without a word on the sending: the moment it ended counts as that."""
    engine, upstream = engine_over(Limit(1, 60 * SECOND))
    await engine.start(own_thread=False)
    for _ in range(2):
        engine.submit(SPEC)
    await asyncio.sleep(1)
    upstream.fail(upstream.open[0], Unknown("cut"))
    await asyncio.sleep(59)
    assert len(upstream.begun) == 1
    await asyncio.sleep(2)
    assert len(upstream.begun) == 2
    await engine.stop()


@pytest.mark.looptime
async def test_a_batch_that_crosses_the_drain_ends_as_draining() -> None:
    """It was admitted before the drain, and comes to the engine after it: nothing of it is begun."""
    engine, upstream = engine_over(Limit(9, SECOND))
    await engine.start(own_thread=False)
    engine.drain(15 * SECOND)
    engine.draining = False  # as the door was a moment before
    message = await engine.submit(SPEC).next(9)
    assert [result.failure for result in message.items] == [Reason.DRAINING]
    assert upstream.begun == []
    await engine.stop()


def test_variants_differ_and_have_names_of_their_own() -> None:
    """Each variant changes something, and a name given on the command line means one of them."""
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
    assert all(variant.old != variant.new and variant.tests for variant in VARIANTS)


def test_words_that_no_variant_has_run_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a variant there are no tests to name, and pytest would run all."""
    assert main([VARIANTS[0].name, "no such variant"]) == 2
    assert capsys.readouterr().err == "no variant has 'no such variant' in its name\n"


def test_every_variant_quotes_the_code_as_it_is() -> None:
    """Once in its file, or it breaks nothing; told here, a minute after the code was changed, and not by an hour of
    broken variants."""
    texts: dict[str, str] = {}
    wrong = {}
    for variant in VARIANTS:
        text = texts.setdefault(variant.file, (ROOT / variant.file).read_text(encoding="utf-8"))
        if (count := text.count(variant.old)) != 1:
            wrong[variant.name] = count
    assert wrong == {}
