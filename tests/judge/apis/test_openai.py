"""The judge answers as OpenAI does: bodies with their usage, errors in its shape, headers of its limits."""

from typing import Any

import pytest

from apiflux_grpc.judge.limits import Limit
from tests.judge.apis.asking import Answer, ask, speaks
from tests.judge.wires import MINUTE

CHAT = "/v1/chat/completions"


def chat(text: str = "Why is the sky blue?", **more: object) -> dict[str, object]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


def error(answer: Answer) -> dict[str, Any]:
    assert set(answer.body) == {"error"}
    assert set(answer.body["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"].startswith("req_")
    assert isinstance(answer.body["error"], dict)
    return answer.body["error"]


def test_a_chat_is_answered_with_its_usage() -> None:
    """A completion has one choice, a text of as many tokens as its usage says, and no more than was allowed."""
    status, headers, body = ask(speaks("openai"), CHAT, chat(max_completion_tokens=50))
    assert (status, body["object"], body["model"], body["created"]) == (200, "chat.completion", "gpt-4o-mini", 10**9)
    assert headers["x-request-id"].startswith("req_")
    [choice] = body["choices"]
    usage = body["usage"]
    assert choice["message"]["role"] == "assistant"
    assert 0 < usage["completion_tokens"] <= 50
    assert len(choice["message"]["content"]) == 4 * usage["completion_tokens"]
    assert usage["prompt_tokens"] == 6  # "user" and the 20 letters of the question
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_call_that_is_sent_again_is_answered_the_same() -> None:
    """Body and usage depend on the request alone; each answer has a request id of its own."""
    wire = speaks("openai")
    first, again, other = (ask(wire, CHAT, chat(text, max_tokens=500)) for text in ("one", "one", "two"))
    assert first.body == again.body
    assert first.body["id"] != other.body["id"]
    assert first.headers["x-request-id"] != again.headers["x-request-id"]


def test_an_answer_that_was_cut_says_so() -> None:
    """Where the tokens that were allowed are used up, the reason to finish is the length."""
    wire = speaks("openai")
    assert ask(wire, CHAT, chat(max_completion_tokens=1)).body["choices"][0]["finish_reason"] == "length"
    body = ask(wire, "/v1/responses", {"model": "gpt-4o", "input": "Hi", "max_output_tokens": 1}).body
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


def test_a_response_is_a_list_of_output() -> None:
    """The text is in the content of a message, and usage has its own names."""
    asked = {"model": "gpt-4o", "instructions": "Be brief.", "input": "Why?", "max_output_tokens": 400}
    body = ask(speaks("openai"), "/v1/responses", asked).body
    assert (body["object"], body["status"], body["error"]) == ("response", "completed", None)
    [message] = body["output"]
    [text] = message["content"]
    usage = body["usage"]
    assert text["type"] == "output_text"
    assert len(text["text"]) == 4 * usage["output_tokens"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


@pytest.mark.parametrize(("given", "inputs"), [("one", 1), (["one", "two", "three"], 3), ([1, 2, 3], 1)])
def test_each_input_gets_an_embedding(given: object, inputs: int) -> None:
    """As many vectors as inputs, a list of tokens being one, of 1536 numbers or as many as were asked for."""
    asked = {"model": "text-embedding-3-small", "input": given}
    body = ask(speaks("openai"), "/v1/embeddings", asked).body
    assert [(each["index"], len(each["embedding"])) for each in body["data"]] == [(at, 1536) for at in range(inputs)]
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] >= 1
    body = ask(speaks("openai"), "/v1/embeddings", {**asked, "dimensions": 6}).body
    assert len(body["data"][0]["embedding"]) == 6
    body = ask(speaks("openai"), "/v1/embeddings", {**asked, "dimensions": 6, "encoding_format": "base64"}).body
    assert len(body["data"][0]["embedding"]) == 32


def test_the_other_paths_answer() -> None:
    """Moderations judge each input, and models are listed and found by name."""
    wire = speaks("openai")
    assert len(ask(wire, "/v1/moderations", {"input": ["a", "b"]}).body["results"]) == 2
    assert ask(wire, "/v1/models").body["object"] == "list"
    assert ask(wire, "/v1/models/gpt-9").body["id"] == "gpt-9"


@pytest.mark.parametrize(
    ("target", "body", "status", "param"),
    [
        ("/v1/chat/complete", chat(), 404, None),
        (CHAT, None, 404, None),  # a GET
        (CHAT, b"{", 400, None),
        (CHAT, [1], 400, None),
        (CHAT, {"messages": []}, 400, "model"),
        (CHAT, {"model": "gpt-4o", "messages": []}, 400, "messages"),
        ("/v1/embeddings", {"model": "x"}, 400, "input"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(target: str, body: object, status: int, param: str | None) -> None:
    """A path that isn't there is a 404, a body without what it needs a 400 that names the field."""
    answer = ask(speaks("openai"), target, body)
    assert answer.status == status
    assert (error(answer)["type"], error(answer)["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize("key", [None, "wrong"])
def test_a_key_that_is_not_known_is_an_error_of_the_api(key: str | None) -> None:
    """Without a key in Authorization, and with a wrong one, the answer is 401 invalid_api_key, and shows no key."""
    answer = ask(speaks("openai"), CHAT, chat(), key=key)
    assert (answer.status, error(answer)["code"]) == (401, "invalid_api_key")
    assert "wrong" not in str(answer)


def test_a_limit_counts_tokens_and_tells_them() -> None:
    """A limit of cost counts the usage of each answer; headers tell what is left, and a refusal says of what."""
    wire = speaks("openai", Limit(9, MINUTE), Limit(40, MINUTE, "cost"))
    first = ask(wire, CHAT, chat(max_completion_tokens=20))
    left = int(first.headers["x-ratelimit-remaining-tokens"])
    assert left == 40 - first.body["usage"]["total_tokens"]
    assert first.headers["x-ratelimit-remaining-requests"] == "8"
    refused = ask(wire, CHAT, chat("x" * 4 * left, max_completion_tokens=20))
    assert (refused.status, error(refused)["code"]) == (429, "rate_limit_exceeded")
    assert error(refused)["type"] == "tokens"
    assert refused.headers["retry-after"] == "60"
    assert refused.headers["x-ratelimit-remaining-tokens"] == str(left)


def test_a_request_that_is_wrong_takes_no_tokens() -> None:
    """It does count as a call."""
    wire = speaks("openai", Limit(9, MINUTE), Limit(40, MINUTE, "cost"))
    headers = ask(wire, CHAT, {"model": "gpt-4o"}).headers
    assert (headers["x-ratelimit-remaining-tokens"], headers["x-ratelimit-remaining-requests"]) == ("40", "8")


def test_what_a_call_says_it_costs_counts_if_the_judge_is_told_so() -> None:
    """`--cost` wins over the usage."""
    from apiflux_grpc.judge.places import CostIn

    wire = speaks("openai", Limit(40, MINUTE, "cost"), cost_in=CostIn("header", "X-Cost"))
    assert ask(wire, CHAT, chat(), "X-Cost: 7").headers["x-ratelimit-remaining-tokens"] == "33"
