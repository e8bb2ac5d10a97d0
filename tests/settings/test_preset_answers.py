"""What a preset makes of the answers that its API is documented to give, and that people have reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from apiflux_grpc.core.fields import AnswerFields
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.matching import first_match
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.rules import AnswerRule
from apiflux_grpc.settings.presets import preset_names
from tests.settings.writing import loaded

HTTP: Final = "as HTTP says"
SECONDARY: Final = "https://docs.github.com/free-pro-team@latest/rest/overview/rate-limits-for-the-rest-api"


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


ANSWERS: Final[dict[str, list[tuple[int, dict[str, Any], str]]]] = {
    "openai": [
        (429, openai("insufficient_quota", "insufficient_quota"), "limited"),
        (429, openai("insufficient_quota", "credit_balance_exhausted"), "limited"),
        (429, openai("insufficient_quota", "project_spend_limit_exceeded"), "limited"),
        (429, openai("requests", "rate_limit_exceeded"), HTTP),
        (429, openai("rate_limit_error", "slow_down"), HTTP),
        (401, openai("invalid_request_error", "invalid_api_key"), HTTP),
        (500, openai("server_error", None), HTTP),
        (503, openai("service_unavailable_error", "server_is_overloaded"), HTTP),
        (400, openai("invalid_request_error", "context_length_exceeded"), HTTP),
        (200, {"id": "chatcmpl-1", "usage": {"total_tokens": 18}}, HTTP),
    ],
    "anthropic": [
        (429, anthropic("rate_limit_error"), HTTP),
        (429, anthropic("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}), "limited"),
        (529, anthropic("overloaded_error"), "again"),
        (500, anthropic("api_error"), HTTP),
        (402, anthropic("billing_error"), HTTP),
        (401, anthropic("authentication_error"), HTTP),
        (400, anthropic("invalid_request_error"), HTTP),
        (200, {"type": "message", "usage": {"input_tokens": 9, "output_tokens": 12}}, HTTP),
    ],
    "gemini": [
        (
            429,
            google(
                429,
                "RESOURCE_EXHAUSTED",
                rpc("QuotaFailure", violations=[{"quotaMetric": "requests", "quotaValue": "15"}]),
                rpc("Help", links=[{"url": "https://ai.google.dev/gemini-api/docs/rate-limits"}]),
                rpc("RetryInfo", retryDelay="34.074824224s"),
            ),
            "limited; wait: 34.074824224s",
        ),
        (429, google(429, "RESOURCE_EXHAUSTED", rpc("Help", links=[])), HTTP),
        (400, google(400, "INVALID_ARGUMENT", rpc("ErrorInfo", reason="API_KEY_INVALID")), "key_rejected"),
        (400, google(400, "INVALID_ARGUMENT", rpc("BadRequest", fieldViolations=[])), HTTP),
        (400, google(400, "FAILED_PRECONDITION"), HTTP),
        (403, google(403, "PERMISSION_DENIED"), HTTP),
        (503, google(503, "UNAVAILABLE"), HTTP),
        (200, {"candidates": [], "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 9}}, HTTP),
    ],
    "github": [
        (403, {"message": "Some words", "documentation_url": f"{SECONDARY}#about-secondary-rate-limits"}, "limited"),
        (429, {"message": "Some words", "documentation_url": f"{SECONDARY}#about-secondary-rate-limits"}, "limited"),
        (403, {"message": "API rate limit exceeded", "documentation_url": f"{SECONDARY}#rate-limiting"}, HTTP),
        (403, {"message": "Resource not accessible", "documentation_url": "https://docs.github.com/rest"}, HTTP),
        (401, {"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest"}, HTTP),
        (200, {"errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded for user"}]}, "limited"),
        (200, {"data": {"node": None}, "errors": [{"type": "NOT_FOUND", "path": ["node"]}]}, HTTP),
        (200, {"data": {"viewer": {"login": "octocat"}}}, HTTP),
    ],
    "google-maps": [
        (200, maps("OK"), HTTP),
        (200, maps("ZERO_RESULTS"), HTTP),
        (200, maps("OVER_QUERY_LIMIT"), "limited"),
        (200, maps("OVER_DAILY_LIMIT"), "limited"),
        (200, maps("REQUEST_DENIED"), "key_rejected"),
        (200, maps("UNKNOWN_ERROR"), "again"),
        (200, maps("INVALID_REQUEST"), "failed"),
        (200, maps("MAX_ELEMENTS_EXCEEDED"), "failed"),
        (200, {"rows": [{"elements": [{"status": "NOT_FOUND"}]}], "status": "OK"}, HTTP),
        (500, {}, HTTP),
    ],
}
ROWS = [(preset, *row) for preset, rows in ANSWERS.items() for row in rows]


def rules_of(folder: Path, preset: str) -> tuple[AnswerRule, ...]:
    text = f'[pools.default]\npreset = "{preset}"\nlimits = []\nkeys = [{{ secret = "s" }}]\n'
    return loaded(folder, text).pools[0].pool.answers


def fields_of(body: dict[str, Any]) -> AnswerFields:
    return AnswerFields(Answer(0, Headers(), json.dumps(body).encode(), 0))


@pytest.mark.parametrize(("preset", "status", "body", "expected"), ROWS)
def test_what_an_answer_means(tmp_path: Path, preset: str, status: int, body: dict[str, Any], expected: str) -> None:
    """By the preset's rules, with the wait that it tells, or left to HTTP's own meaning."""
    fields = fields_of(body)
    rule = first_match(rules_of(tmp_path, preset), fields, status)
    told = "" if rule is None or rule.wait is None else f"; wait: {', '.join(fields.texts(rule.wait))}"
    assert (HTTP if rule is None else f"{rule.means.value}{told}") == expected


@pytest.mark.parametrize("preset", preset_names())
def test_every_rule_is_shown_to_hold(tmp_path: Path, preset: str) -> None:
    """Each preset has its table, and each of its rules an answer there that it matches."""
    rules = rules_of(tmp_path, preset)
    matched = [first_match(rules, fields_of(body), status) for status, body, _ in ANSWERS[preset]]
    assert [rule for rule in rules if rule not in matched] == []
