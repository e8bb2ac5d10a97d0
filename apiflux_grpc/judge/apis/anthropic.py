"""Anthropic: messages, the counting of their tokens, and models.

Its answers: https://platform.claude.com/docs/en/api/messages. Its errors:
https://platform.claude.com/docs/en/api/errors. Of the limits of tokens that it has, a limit of cost is that of output.
"""

from collections.abc import Mapping
from typing import Final

from apiflux_grpc.judge.apis.api import OVERLOADED, Api, Asked, Route, Said, Trouble, Usage
from apiflux_grpc.judge.apis.tokens import text_of, tokens_of, usage_of
from apiflux_grpc.judge.dialects import DIALECTS
from apiflux_grpc.judge.places import KeyIn

MODELS: Final = ("claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5")
ERRORS: Final[Mapping[int, tuple[str, str]]] = {
    400: ("invalid_request_error", "The request is invalid."),
    401: ("authentication_error", "The x-api-key is missing or invalid."),
    402: ("billing_error", "There is a problem with the payment."),
    403: ("permission_error", "The key may not use this."),
    404: ("not_found_error", "There is nothing at this path."),
    413: ("request_too_large", "The request is too large."),
    429: ("rate_limit_error", "This request would exceed a rate limit."),
    500: ("api_error", "Something inside went wrong."),
    504: ("timeout_error", "The request took too long."),
    OVERLOADED: ("overloaded_error", "Overloaded."),
}


def _error(trouble: Trouble) -> Said:
    kind, message = ERRORS.get(trouble.status) or ERRORS[500 if trouble.status >= 500 else 400]
    return Said(trouble.status, {"type": "error", "error": {"type": kind, "message": trouble.message or message}})


def _missing(name: str) -> Trouble:
    return Trouble(400, f"{name}: Field required", name)


def _usage(asked: Asked) -> Usage:
    return usage_of(asked, _prompt(asked), asked.body["max_tokens"])


def _prompt(asked: Asked) -> object:
    return [asked.body.get("system"), asked.body.get("messages"), asked.body.get("tools")]


def _message(asked: Asked, usage: Usage) -> object:
    return {
        "id": f"msg_{asked.id}",
        "type": "message",
        "role": "assistant",
        "model": asked.text("model"),
        "content": [{"type": "text", "text": text_of(usage.output)}],
        "stop_reason": "max_tokens" if usage.output == asked.body["max_tokens"] else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage.input,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": usage.output,
            "service_tier": "standard",
        },
    }


def _count(asked: Asked, usage: Usage) -> object:
    return {"input_tokens": tokens_of(_prompt(asked))}


def _model(name: str) -> dict[str, object]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "2025-01-01T00:00:00Z"}


def _models(asked: Asked, usage: Usage) -> object:
    return {"data": [_model(name) for name in MODELS], "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}


def _one_model(asked: Asked, usage: Usage) -> object:
    return _model(asked.names["model"])


def _output(usage: Usage) -> int:
    return usage.output


ANTHROPIC: Final = Api(
    key_in=KeyIn("header", "x-api-key"),
    dialect=DIALECTS["anthropic"],
    error=_error,
    missing=_missing,
    routes=(
        Route("POST", "/v1/messages", _message, ("model", "max_tokens", "messages"), _usage),
        Route("POST", "/v1/messages/count_tokens", _count, ("model", "messages")),
        Route("GET", "/v1/models", _models),
        Route("GET", "/v1/models/{model}", _one_model),
    ),
    cost=_output,
    unit="output tokens",
    headers={"anthropic-version": Trouble(400, "anthropic-version: header is required")},
    fields=("request-id: {id}", "anthropic-organization-id: 00000000-0000-4000-8000-000000000000"),
    request_id="req_{:024d}",
    id_in_errors="request_id",
)
