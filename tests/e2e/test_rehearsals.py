"""A pool with an API's preset goes together with the judge that speaks this API: it draws no refusal and exceeds
nothing, and what the API says of a call is understood."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from apiflux_grpc.client import Call, Client, Result
from apiflux_grpc.judge.limits import parse_limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess
from tests.e2e.pairs import CANARY, JITTER, MILLISECOND, ask_of

CALLS = 60
KEYS = ("one", "two")
FAULT = "X-Judge-Fault"
Asked = tuple[str, dict[str, object] | tuple[tuple[str, str], ...]]  # a path, and the body of a POST or the query


@dataclass(frozen=True)
class Rehearsal:
    """An API: limits of the judge, the same as the pool has them, and how its nth call is made."""

    judged: tuple[str, ...]
    limits: str
    headers: tuple[tuple[str, str], ...] = ()

    def call(self, api: str, number: int, *headers: tuple[str, str]) -> Call:
        path, body = ASKED[api](number)
        headers = (*self.headers, *headers)
        if isinstance(body, dict):
            return Call(path, "POST", headers=headers, body=json.dumps(body).encode())
        return Call(path, query=body, headers=headers)


def _openai(number: int) -> Asked:
    text = f"Question {number}: " + "why? " * (number % 7)
    most = "max_completion_tokens" if number % 2 else "max_tokens"
    chat = {"model": "m", "messages": [{"role": "user", "content": text}], most: 40 + number}
    asked: list[Asked] = [
        ("/v1/chat/completions", chat),
        ("/v1/embeddings", {"model": "m", "input": [text, text], "dimensions": 8}),
        ("/v1/responses", {"model": "m", "input": text, "max_output_tokens": 40 + number}),
    ]
    return asked[number % 3]


def _anthropic(number: int) -> Asked:
    messages = [{"role": "user", "content": f"Question {number}"}]
    return "/v1/messages", {"model": "m", "max_tokens": 40 + number, "messages": messages}


def _github(number: int) -> Asked:
    return f"/repos/octocat/hello/issues/{number}", ()


def _google_maps(number: int) -> Asked:
    return "/maps/api/geocode/json", (("address", f"{number} Main Street"),)


ASKED = {"openai": _openai, "anthropic": _anthropic, "github": _github, "google-maps": _google_maps}
WINDOW = '{ max = 20, per = "500ms" }'
TOKENS = '{ max = 250, per = "500ms", counts = "cost" }'
BUCKET = '{ max = 4000, per = "1s", kind = "bucket", burst = 6000, counts = "cost" }'
REHEARSALS = {
    "openai": Rehearsal(("20/500ms", "250/500ms:cost"), f"{WINDOW}, {TOKENS}"),
    "anthropic": Rehearsal(
        ("20/500ms", "4000/1s:bucket=6000:cost"), f"{WINDOW}, {BUCKET}", (("anthropic-version", "2023-06-01"),)
    ),
    "github": Rehearsal(("20/500ms",), WINDOW),
    "google-maps": Rehearsal(("20/500ms",), WINDOW),
}


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[str, dict[str, JudgeProcess], ServedProcess]]:
    """A server with a pool for each API, and the judges that their calls go to."""
    with ExitStack() as stack:
        text, judges = "", {}
        for api, rehearsal in REHEARSALS.items():
            secrets = {key: f"{CANARY}-{api}-{key}" for key in KEYS}
            limits = tuple(map(parse_limit, rehearsal.judged))
            latency = (MILLISECOND, 10 * MILLISECOND)
            options = JudgeOptions(secrets, limits, speak=api, latency_ns=latency)
            judges[api] = stack.enter_context(JudgeProcess(options))
            keys = ", ".join(f'{{ label = "{label}", secret = "{secret}" }}' for label, secret in secrets.items())
            text += (
                f'[pools.{api}]\npreset = "{api}"\nbase_url = "{judges[api].url}"\narrival_jitter = "{JITTER}"\n'
                f"limits = [{rehearsal.limits}]\nkeys = [{keys}]\n"
            )
        served = stack.enter_context(ServedProcess(text, {}))
        yield served.target, judges, served


@pytest.mark.parametrize("api", REHEARSALS)
async def test_a_preset_keeps_the_limits_of_its_api(
    stage: tuple[str, dict[str, JudgeProcess], ServedProcess], api: str
) -> None:
    """Calls as the API's documentation has them all succeed: no refusal, no window over its limit."""
    target, judges, served = stage
    judge = judges[api]
    judge.reset()
    calls = [REHEARSALS[api].call(api, number) for number in range(CALLS)]
    async with Client(target) as client:
        results = [result async for result in client.process(calls, pool=api)]
    assert [result for result in results if not result.ok] == []
    report = ask_of(judge)
    assert (report.accepted, report.seen_twice) == (CALLS, 0)
    assert all(limit.most > 0 for key in report.keys for limit in key.limits)
    assert CANARY not in served.stderr


@pytest.mark.parametrize("api", REHEARSALS)
async def test_a_preset_understands_what_its_api_says(
    stage: tuple[str, dict[str, JudgeProcess], ServedProcess], api: str
) -> None:
    """A server's error is tried again, a refusal for a limit is no failure of the call, a rejected key is left alone,
    and a request that is wrong fails at once."""
    target, judges, _ = stage
    judge = judges[api]
    judge.reset()
    rehearsal = REHEARSALS[api]
    faults = ["500,ok", "429;retry-after=1,ok", "401,ok"]
    calls = [rehearsal.call(api, number, (FAULT, fault)) for number, fault in enumerate(faults)]
    calls.append(Call("/nothing", headers=rehearsal.headers))
    async with Client(target) as client:
        results: dict[int, Result] = {result.index: result async for result in client.process(calls, pool=api)}
    assert [results[at].ok for at in range(4)] == [True, True, True, False]
    assert results[3].attempts == 1
    report = ask_of(judge)
    assert report.faults == {"500": 1, "429": 1, "401": 1}
    assert report.accepted == 7
