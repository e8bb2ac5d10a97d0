"""What a preset makes of the answers that its API is documented to give, and that people have reported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import pytest

from apiflux_grpc.core.fields import AnswerFields
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.hints import hints
from apiflux_grpc.core.matching import first_match
from apiflux_grpc.core.model import Pool
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.core.verdict import Verdicts
from apiflux_grpc.core.waits import told_wait
from apiflux_grpc.settings.presets import preset_names
from tests.settings.writing import loaded

NOW: Final = datetime(2026, 10, 2, 12, 0, tzinfo=UTC)
USED_UP: Final = {
    "X-RateLimit-Limit": "5000",
    "X-RateLimit-Remaining": "0",
    "X-RateLimit-Reset": "1790966100",
    "X-RateLimit-Resource": "core",
}
LEFT: Final = {**USED_UP, "X-RateLimit-Remaining": "4321"}
SECONDARY: Final = "https://docs.github.com/free-pro-team@latest/rest/overview/rate-limits-for-the-rest-api"


class Row(NamedTuple):
    """An answer, and what it means: "limited; wait: 34 s" if it tells a wait."""

    status: int
    body: dict[str, Any]
    means: str
    headers: Mapping[str, str] = MappingProxyType({})


def openai(kind: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": "Some words", "type": kind, "param": None, "code": code}}


def anthropic(kind: str, **more: object) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": "Some words", **more}, "request_id": "req_011CSHoEeqs5"}


def google(code: int, status: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": "Some words", "status": status, "details": list(details)}}


def rpc(kind: str, **fields: object) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def maps(status: str) -> dict[str, Any]:
    return {"error_message": "Some words", "results": [], "status": status}


ANSWERS: Final[dict[str, list[Row]]] = {
    "openai": [
        Row(429, openai("insufficient_quota", "insufficient_quota"), "limited"),
        Row(429, openai("insufficient_quota", "credit_balance_exhausted"), "limited"),
        Row(429, openai("insufficient_quota", "project_spend_limit_exceeded"), "limited"),
        Row(429, openai("requests", "rate_limit_exceeded"), "limited"),
        Row(429, openai("rate_limit_error", "slow_down"), "limited"),
        Row(401, openai("invalid_request_error", "invalid_api_key"), "key_rejected"),
        Row(500, openai("server_error", None), "again"),
        Row(503, openai("service_unavailable_error", "server_is_overloaded"), "again"),
        Row(400, openai("invalid_request_error", "context_length_exceeded"), "failed"),
        Row(200, {"id": "chatcmpl-1", "usage": {"total_tokens": 18}}, "success"),
    ],
    "anthropic": [
        Row(429, anthropic("rate_limit_error"), "limited"),
        Row(429, anthropic("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}), "limited"),
        Row(529, anthropic("overloaded_error"), "again"),
        Row(500, anthropic("api_error"), "again"),
        Row(402, anthropic("billing_error"), "key_rejected"),
        Row(401, anthropic("authentication_error"), "key_rejected"),
        Row(400, anthropic("invalid_request_error"), "failed"),
        Row(200, {"type": "message", "usage": {"input_tokens": 9, "output_tokens": 12}}, "success"),
    ],
    "gemini": [
        Row(
            429,
            google(
                429,
                "RESOURCE_EXHAUSTED",
                rpc("QuotaFailure", violations=[{"quotaMetric": "requests", "quotaValue": "15"}]),
                rpc("Help", links=[{"url": "https://ai.google.dev/gemini-api/docs/rate-limits"}]),
                rpc("RetryInfo", retryDelay="34.074824224s"),
            ),
            "limited; wait: 34.075 s",
        ),
        Row(429, google(429, "RESOURCE_EXHAUSTED", rpc("Help", links=[])), "limited"),
        Row(400, google(400, "INVALID_ARGUMENT", rpc("ErrorInfo", reason="API_KEY_INVALID")), "key_rejected"),
        Row(400, google(400, "INVALID_ARGUMENT", rpc("BadRequest", fieldViolations=[])), "failed"),
        Row(400, google(400, "FAILED_PRECONDITION"), "failed"),
        Row(403, google(403, "PERMISSION_DENIED"), "key_rejected"),
        Row(503, google(503, "UNAVAILABLE"), "again"),
        Row(200, {"candidates": [], "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 9}}, "success"),
    ],
    "github": [
        Row(403, {"documentation_url": f"{SECONDARY}#about-secondary-rate-limits"}, "limited", LEFT),
        Row(403, {"message": "Some words"}, "limited; wait: 60 s", {"Retry-After": "60"}),
        Row(429, {"documentation_url": f"{SECONDARY}#about-secondary-rate-limits"}, "limited"),
        Row(
            403,
            {"message": "API rate limit exceeded", "documentation_url": f"{SECONDARY}#rate-limiting"},
            "limited",
            USED_UP,
        ),
        Row(
            403,
            {"message": "Resource not accessible", "documentation_url": "https://docs.github.com/rest"},
            "key_rejected",
            LEFT,
        ),
        Row(401, {"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest"}, "key_rejected"),
        Row(200, {"data": {"node": None}, "errors": [{"type": "NOT_FOUND", "path": ["node"]}]}, "success"),
        Row(200, {"data": {"viewer": {"login": "octocat"}}}, "success"),
    ],
    "google-maps": [
        Row(200, maps("OK"), "success"),
        Row(200, maps("ZERO_RESULTS"), "success"),
        Row(200, maps("OVER_QUERY_LIMIT"), "limited"),
        Row(200, maps("OVER_DAILY_LIMIT"), "limited"),
        Row(200, maps("REQUEST_DENIED"), "key_rejected"),
        Row(200, maps("UNKNOWN_ERROR"), "again"),
        Row(200, maps("INVALID_REQUEST"), "failed"),
        Row(200, maps("MAX_ELEMENTS_EXCEEDED"), "failed"),
        Row(200, {"rows": [{"elements": [{"status": "NOT_FOUND"}]}], "status": "OK"}, "success"),
        Row(500, {}, "again"),
    ],
}


def pool_of(folder: Path, preset: str) -> Pool:
    text = f'[pools.default]\npreset = "{preset}"\nlimits = []\nkeys = [{{ secret = "s" }}]\n'
    return loaded(folder, text).pools[0].pool


def answer_of(row: Row) -> Answer:
    return Answer(row.status, Headers.of(row.headers), json.dumps(row.body).encode(), 0)


@pytest.mark.parametrize(("preset", "row"), [(preset, row) for preset, rows in ANSWERS.items() for row in rows])
def test_what_an_answer_means(tmp_path: Path, preset: str, row: Row) -> None:
    """By the preset's rules, with the wait that they find, or by HTTP's own meaning."""
    pool, answer = pool_of(tmp_path, preset), answer_of(row)
    fields = AnswerFields(answer)
    verdict = Verdicts(pool.success, pool.answers).of(answer, hints(answer.headers, NOW)[0], fields)
    texts = [] if verdict.wait is None else fields.texts(verdict.wait)
    wait = told_wait(answer.headers, NOW, str(verdict.wait or ""), texts).length
    assert f"{verdict.means.value}{f'; wait: {wait / SECOND:g} s' if wait else ''}" == row.means


@pytest.mark.parametrize("preset", preset_names())
def test_every_rule_is_shown_to_hold(tmp_path: Path, preset: str) -> None:
    """Each preset has its table, and each of its rules an answer there that it matches."""
    rules = pool_of(tmp_path, preset).answers
    answers = [answer_of(row) for row in ANSWERS[preset]]
    matched = [first_match(rules, AnswerFields(answer), answer.status) for answer in answers]
    assert [rule for rule in rules if rule not in matched] == []
