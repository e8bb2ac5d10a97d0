"""The judge answers as Anthropic does: messages with their usage, errors with the request's id, limits of output."""

from typing import Any

import pytest

from apiflux_grpc.judge.limits import Limit
from tests.judge.apis.asking import Answer, ask, speaks
from tests.judge.wires import MINUTE, Wire

MESSAGES = "/v1/messages"
VERSION = "anthropic-version: 2023-06-01"


def send(wire: Wire, target: str = MESSAGES, **body: object) -> Answer:
    asked = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "Why is the sky blue?"}], **body}
    return ask(wire, target, asked, VERSION)


def error(answer: Answer) -> Any:
    assert answer.body["type"] == "error"
    assert answer.body["request_id"] == answer.headers["request-id"]
    return answer.body["error"]


def test_a_message_is_answered_with_its_usage() -> None:
    """The text has as many tokens as the usage says, and the reason to stop says if that was all it was allowed."""
    answer = send(speaks("anthropic"), max_tokens=50)
    [block] = answer.body["content"]
    usage = answer.body["usage"]
    assert (answer.status, answer.body["role"], block["type"]) == (200, "assistant", "text")
    assert len(block["text"]) == 4 * usage["output_tokens"] <= 200
    assert usage["input_tokens"] == 6
    assert send(speaks("anthropic"), max_tokens=1).body["stop_reason"] == "max_tokens"


def test_tokens_are_counted_and_models_listed() -> None:
    """The count is what a message would be charged, and each model is found by its name."""
    wire = speaks("anthropic")
    assert send(wire, f"{MESSAGES}/count_tokens").body == {"input_tokens": 6}
    assert ask(wire, "/v1/models", None, VERSION).body["data"][0]["type"] == "model"
    assert ask(wire, "/v1/models/claude-x", None, VERSION).body["id"] == "claude-x"


@pytest.mark.parametrize("missing", ["model", "max_tokens", "messages"])
def test_what_is_missing_is_named(missing: str) -> None:
    """`max_tokens` is required as the others are."""
    body: dict[str, Any] = {"max_tokens": 5, missing: None}
    answer = send(speaks("anthropic"), **body)
    assert (answer.status, error(answer)["type"]) == (400, "invalid_request_error")
    assert error(answer)["message"] == f"{missing}: Field required"


def test_a_version_is_required() -> None:
    """A call without `anthropic-version` is refused."""
    answer = ask(speaks("anthropic"), MESSAGES, {})
    assert (answer.status, error(answer)["message"]) == (400, "anthropic-version: header is required")


def test_errors_have_their_types() -> None:
    """A wrong key, a path that isn't there and what is injected have the types of the API."""
    wire = speaks("anthropic")
    assert error(ask(wire, MESSAGES, {}, key="wrong"))["type"] == "authentication_error"
    assert error(send(wire, "/v1/complete"))["type"] == "not_found_error"


def test_a_limit_of_cost_is_that_of_output() -> None:
    """What is left is told as tokens, and a refusal is a rate_limit_error with Retry-After."""
    wire = speaks("anthropic", Limit(100, MINUTE, "cost", "bucket", 100))
    left = 100
    for _ in range(20):
        answer = send(wire, max_tokens=100)
        if answer.status == 429:
            break
        left -= answer.body["usage"]["output_tokens"]
        assert answer.headers["anthropic-ratelimit-output-tokens-remaining"] == str(left)
    assert error(answer)["type"] == "rate_limit_error"
    assert int(answer.headers["retry-after"]) > 0
