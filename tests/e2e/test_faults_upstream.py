"""An upstream that fails in every way there is: what becomes of the calls, of the others, and of the limits.

The rules: a call's result says what happened and whether it may have run; a call that isn't idempotent arrives again
only after an answer which says that it was not executed; other calls of the pool don't notice; and however much is
sent again, no window of any key is exceeded. Not proved here: each byte at which an answer can
end (tests/adapters/sender).
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import pytest

from apiflux_grpc.client import Call, Client, Result
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.chance import Faults
from apiflux_grpc.judge.faults import parse_chances
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.testing.served import ServedProcess
from tests.e2e.pairs import (
    Pair,
    ask,
    collect,
    gets,
    idle,
    judging,
    name_of,
    paired,
    posts,
    run,
    toml,
    until,
)

LIMIT = Limit(30, SECOND // 2)
ATTEMPTS = 3
SHORT = 1.5  # seconds
RETRY = f'retry = {{ max_attempts = {ATTEMPTS}, initial_backoff = "5ms", max_backoff = "20ms" }}\ntimeout = "20s"'


class Case(NamedTuple):
    """A fault, as X-Judge-Fault has it, and what a call comes to that meets no other.

    `status` 0: an error instead of a response. `reason` is that of the error, or of the response in the summary; "":
    the call succeeds.
    """

    script: str
    status: int
    reason: str
    again: Literal["never", "idempotent", "limited"]  # limited: again and again, with no attempt counted
    timeout: float | None = None
    wait: float = 0  # the least time in seconds that a call needs to be made again


CASES = {
    "429": Case("429", 429, "LIMITED", "limited"),
    "429-seconds": Case("429;retry-after=1", 429, "LIMITED", "limited"),
    "429-date": Case("429;retry-date=1", 429, "LIMITED", "limited"),
    "429-final": Case("429", 429, "LIMITED", "never"),
    "500": Case("500", 500, "HTTP_5XX", "idempotent"),
    "503-seconds": Case("503;retry-after=1", 503, "HTTP_5XX", "idempotent", wait=1),
    "404": Case("404", 404, "HTTP_4XX", "never"),
    "hang": Case("hang", 0, "TIMEOUT", "idempotent", SHORT, wait=SHORT),
    "reset": Case("reset", 0, "UNKNOWN", "idempotent"),
    "reset-in-head": Case("reset-in-head", 0, "UNKNOWN", "idempotent"),
    "close": Case("close", 0, "UNKNOWN", "idempotent"),
    "garbage": Case("garbage", 0, "UNKNOWN", "idempotent"),
    "cut": Case("cut", 0, "BODY_CUT", "idempotent"),
    "cut-reset": Case("cut-reset", 0, "BODY_CUT", "idempotent"),
    "cut-chunked": Case("cut-chunked", 0, "BODY_CUT", "idempotent"),
    "too-slow": Case("slow;size=1000;every=50ms", 0, "TIMEOUT", "idempotent", SHORT, wait=SHORT),
    "slow": Case("slow;size=5;every=20ms", 200, "", "never"),
    "huge": Case("huge;size=4MiB", 200, "", "never"),
    "redirect": Case("redirect", 302, "HTTP_3XX", "never"),
}


@pytest.fixture(scope="module")
def nobody() -> Iterator[socket.socket]:
    """A port that is taken, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken


@pytest.fixture(scope="module")
def pair(nobody: socket.socket) -> Iterator[Pair]:
    """A pool for every case, so that what one does to its keys and its upstream is nothing to the next; and one whose
    upstream isn't there."""
    pools = dict.fromkeys([*CASES, "default", "gone"], RETRY)
    pools["429-final"] = RETRY.replace("{ ", "{ on_429 = false, ", 1)
    with judging(pools, [LIMIT]) as judge:
        urls = dict.fromkeys(pools, judge.url) | {"gone": f"http://127.0.0.1:{nobody.getsockname()[1]}"}
        with ServedProcess(toml(urls, pools, [LIMIT], 2), {}) as served:
            yield Pair(judge, served)


def kinds(name: str, script: str, timeout: float | None) -> list[tuple[Call, bool]]:
    """Calls of each kind, and whether they are idempotent."""
    made = [
        (Call("get"), True),
        (Call("put", method="PUT", body=b"{}"), True),
        (Call("safe-post", method="POST", idempotent=True), True),
        (Call("post", method="POST", body=b"{}"), False),
        (Call("patch", method="PATCH", body=b"{}"), False),
        (Call("unsafe-get", idempotent=False), False),
    ]
    headers = {"X-Judge-Fault": script}
    return [
        (replace(call, path=f"/{name}/{call.path}", headers=headers, timeout=timeout), idempotent)
        for call, idempotent in made
    ]


def check(result: Result, case: Case) -> None:
    """The result is that of a call which met this fault last."""
    if case.status:
        assert result.error is None
        assert result.response is not None
        assert result.response.status == case.status
        assert result.ok == (not case.reason)
        assert result.response.truncated == ("huge" in case.script)
    else:
        assert result.error is not None
        assert (result.error.reason, result.error.may_have_run) == (case.reason, True)


async def test_a_fault_is_told_retried_by_the_rules_and_nothing_to_others(pair: Pair) -> None:
    """Classified as what it is; sent again only where that is safe, up to the policy; another batch doesn't notice.

    All at once, each in its own pool: most of the time they wait. Those that end with a short timeout begin when the
    rush is over, else a busy machine doesn't connect in time, and a call that wasn't sent is rightly tried again.
    """
    pair.judge.reset()
    batches: list[dict[str, Result]] = []
    rush = {name for name, case in CASES.items() if case.timeout is None}
    over = asyncio.Event()
    async with Client(pair.target) as client, Client(pair.target) as other:

        async def bystander(name: str) -> dict[str, Result]:
            results = await run(other, gets(f"{name}/others", 40), name)
            rush.discard(name)
            if not rush:
                over.set()
            return results

        async def one(name: str) -> None:
            if CASES[name].timeout is not None:
                await over.wait()
            try:
                batches.extend(await check_case(client, bystander(name), name))
            except AssertionError as error:
                error.add_note(f"in the case {name}")
                raise

        async with asyncio.TaskGroup() as group:
            for name in CASES:
                group.create_task(one(name))
        await idle(client)
    report = ask(pair, *batches)
    assert set(report.faults) == {case.script.partition(";")[0] for case in CASES.values()}


async def check_case(
    client: Client, others: Coroutine[Any, Any, dict[str, Result]], name: str
) -> list[dict[str, Result]]:
    """Calls of each kind that meet the fault always, or once, and others that don't; the results of both batches."""
    case = CASES[name]
    for_ever = [] if case.again == "limited" else kinds(f"{name}/for-ever", case.script, case.timeout)
    once = kinds(f"{name}/once", f"{case.script},ok", case.timeout)
    calls = [call for call, _ in for_ever + once]
    stream = client.process(calls, pool=name)
    bystander, results = await asyncio.gather(others, collect(stream))
    assert all(result.ok and result.attempts == 1 for result in bystander.values())
    assert len(results) == len(calls)
    summary = stream.summary
    assert summary is not None

    expected: Counter[str] = Counter()
    for (call, idempotent), result in zip(for_ever + once, results, strict=True):
        retried = case.again == "limited" or (case.again == "idempotent" and idempotent)
        if retried and "/once/" in call.path:
            assert result.ok
            assert result.attempts == 2
            continue
        check(result, case)
        assert result.attempts == (ATTEMPTS if retried else 1)
        expected[case.reason] += bool(case.reason)
    assert dict(summary.failed_by_reason) == dict(+expected)
    assert summary.retries == sum(result.attempts - 1 for result in results)
    if case.again != "never":
        assert summary.elapsed >= case.wait  # what the server measured
    return [bystander, dict(zip(map(name_of, calls), results, strict=True))]


# -- by chance, many at a time -------------------------------------------------------------------

CHANCES = parse_chances(
    [
        *("429;retry-after=1=0.01", "500=0.04", "404=0.03", "hang=0.02", "reset=0.04", "reset-in-head=0.04"),
        *("close=0.04", "garbage=0.04", "cut=0.04", "cut-reset=0.04", "cut-chunked=0.04", "redirect=0.04"),
    ]
)
BY_KIND = {case.script.partition(";")[0]: case for case in reversed(CASES.values())}


def foreseen(call: Call) -> tuple[int, Case | None]:
    """How often a call is attempted by the rules, and the fault that it ends with; None: it succeeds."""
    faults = Faults(CHANCES)
    charged = number = 0
    while True:
        number += 1
        fault = faults.drawn(name_of(call), number)
        if fault is None:
            return number, None
        case = BY_KIND[fault.kind]
        if case.again == "limited":
            continue
        charged += 1
        if charged == ATTEMPTS or case.again == "never" or call.method == "POST":
            return number, case


@pytest.mark.slow
async def test_many_faults_at_once_come_to_what_the_rules_say() -> None:
    """Each of many calls ends as its faults demand, after as many arrivals; windows are filled and none is exceeded."""
    batches = [gets("a", 250), posts("b", 250), gets("c", 250), posts("d", 250)]
    limits = [Limit(60, SECOND // 2), Limit(400, 3 * SECOND)]
    extra = RETRY.replace("20s", "1s")
    with paired({"default": extra}, limits, chances=CHANCES) as pair:
        async with Client(pair.target) as client:
            done = await asyncio.gather(*(run(client, batch) for batch in batches))
            await idle(client)
        for batch, results in zip(batches, done, strict=True):
            for call in batch:
                result = results[name_of(call)]
                attempts, case = foreseen(call)
                assert result.attempts == attempts
                if case is None:
                    assert result.ok
                else:
                    check(result, case)
        report = ask(pair, *done)
    assert report.worst == 1.0
    assert set(report.faults) == {chance.fault.kind for chance in CHANCES}
    assert report.seen_twice > 50


async def test_an_upstream_that_isn_t_there_executes_nothing(pair: Pair, nobody: socket.socket) -> None:
    """A refused connection is NOT_SENT and certainly not executed, so even a POST is tried again; then it's all over.

    A pool whose upstream is there doesn't notice, and once the other one is there its pool works.
    """
    pair.judge.reset()
    port: int = nobody.getsockname()[1]
    async with Client(pair.target) as client:
        calls = gets("gone", 3) + posts("gone", 3)
        results, others = await asyncio.gather(run(client, calls, "gone"), run(client, gets("others", 60)))
        assert all(result.ok and result.attempts == 1 for result in others.values())
        for result in results.values():
            assert result.attempts == ATTEMPTS
            assert result.error is not None
            assert (result.error.reason, result.error.may_have_run) == ("NOT_SENT", False)
            assert "refused" in result.error.message
        ask(pair, others)
        nobody.close()
        with judging(["gone"], [LIMIT], port=port) as back:
            again = await run(client, calls, "gone")
            assert all(result.ok and result.attempts == 1 for result in again.values())
            ask(Pair(back, pair.served), again)


# -- rejected keys -------------------------------------------------------------------------------


def both(name: str, count: int) -> list[Call]:
    """Calls that may be made twice and calls that may not, so mixed that two keys in turn get some of each."""
    pairs = zip(gets(name, count), posts(name, count), strict=True)
    return [call for number, (get, post) in enumerate(pairs) for call in ((post, get) if number % 2 else (get, post))]


@pytest.mark.slow
async def test_a_rejected_key_is_left_out_and_comes_back_by_itself() -> None:
    """No call fails: those it drew 401 for go to the other key. Accepted again, it is found out by one call."""
    with paired({"default": RETRY}, [LIMIT]) as pair:
        async with Client(pair.target) as client:
            pair.judge.reject("default-1")
            done = [await run(client, both("begin", 60))]
            rejected = pair.judge.report().faults["401"]
            assert 3 <= rejected <= LIMIT.max  # those in flight when the third came
            pair.judge.accept("default-1")
            assert {result.key for result in done[0].values()} == {"default-2"}
            assert sum(result.attempts - 1 for result in done[0].values()) == rejected

            async def back() -> bool:
                done.append(await run(client, gets(f"wait-{len(done)}", 4)))
                return any(result.key == "default-1" for result in done[-1].values())

            await until(back)
            done.append(await run(client, both("end", 60)))
            await idle(client)
        used = Counter(result.key for result in done[-1].values())
        assert min(used.values()) >= 40
        assert all(result.ok for batch in done for result in batch.values())
        assert all(result.attempts == 1 for batch in done[1:] for result in batch.values())
        report = ask(pair, *done)
        assert report.faults == {"401": rejected}
        log = pair.served.stderr
        assert log.count("key rejected") == log.count("key accepted again") == 1


@pytest.mark.slow
async def test_with_all_keys_rejected_calls_end_after_the_patience() -> None:
    """They end as NO_USABLE_KEY, and not before the pool's patience; once the keys are accepted the pool works."""
    patience = 2
    with paired({"default": f'{RETRY}\npatience = "{patience}s"'}, [LIMIT]) as pair:
        labels = ("default-1", "default-2")
        async with Client(pair.target) as client:
            for label in labels:
                pair.judge.reject(label)
            start = asyncio.get_running_loop().time()
            done = [await run(client, both("rejected", 80))]
            assert asyncio.get_running_loop().time() - start >= patience
            await idle(client)
            assert pair.judge.report().faults == {"401": sum(result.attempts for result in done[0].values())}
            for label in labels:
                pair.judge.accept(label)
            for result in done[0].values():
                if result.error is None:  # its last attempt was made before both keys were known as rejected
                    assert result.response is not None
                    assert (result.response.status, result.attempts) == (401, len(labels))
                else:
                    assert result.error.reason == "NO_USABLE_KEY"
                    assert result.attempts or not result.error.may_have_run
            assert sum(not result.attempts for result in done[0].values()) >= 160 - 2 * LIMIT.max

            async def back() -> bool:
                done.append(await run(client, gets(f"wait-{len(done)}", 4)))
                return all(result.ok for result in done[-1].values())

            await until(back)
            done.append(await run(client, gets("end", 60)))
            assert all(result.ok for result in done[-1].values())
        ask(pair, *done)
