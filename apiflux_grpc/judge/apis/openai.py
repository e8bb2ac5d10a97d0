"""OpenAI: chat completions, responses, embeddings, moderations and models.

Its answers: https://platform.openai.com/docs/api-reference. Its errors:
https://platform.openai.com/docs/guides/error-codes. A limit of cost counts `usage.total_tokens`.
"""

import base64
import json
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from apiflux_grpc.judge.apis.api import Api, Asked, Route, Said, Trouble, Usage
from apiflux_grpc.judge.apis.tokens import text_of, tokens_of, usage_of
from apiflux_grpc.judge.dialects import DIALECTS
from apiflux_grpc.judge.places import BEARER

DIMENSIONS: Final = 1536
MOST_DIMENSIONS: Final = 4096
MOST_INPUTS: Final = 2048
MODELS: Final = ("gpt-4o", "gpt-4o-mini", "text-embedding-3-small", "omni-moderation-latest")


class _Kind(NamedTuple):
    type: str
    code: str | None
    message: str


INVALID: Final = "invalid_request_error"
ERRORS: Final[Mapping[int, _Kind]] = {
    400: _Kind(INVALID, None, "The request is invalid."),
    401: _Kind(INVALID, "invalid_api_key", "Incorrect API key provided."),
    403: _Kind(INVALID, "unsupported_country_region_territory", "The API is not available here."),
    404: _Kind(INVALID, None, "There is nothing at this URL."),
    429: _Kind("requests", "rate_limit_exceeded", "Rate limit reached."),
    500: _Kind("server_error", None, "The server had an error while it processed the request."),
    503: _Kind("server_error", None, "The engine is overloaded; try again later."),
}


def _error(trouble: Trouble) -> Said:
    kind = ERRORS.get(trouble.status) or ERRORS[500 if trouble.status >= 500 else 400]
    error = {
        "message": trouble.message or kind.message,
        "type": kind.type,
        "param": trouble.param,
        "code": trouble.code or kind.code,
    }
    return Said(trouble.status, {"error": error})


def _missing(name: str) -> Trouble:
    return Trouble(400, f"Missing required parameter: '{name}'.", name, "missing_required_parameter")


# -- chat ----------------------------------------------------------------------------------------


def _most(asked: Asked) -> int | None:
    """What an answer may have at most; `max_tokens` is the older name."""
    said = map(asked.body.get, ("max_completion_tokens", "max_tokens", "max_output_tokens"))
    return next((most for most in said if isinstance(most, int) and most > 0), None)


def _chat_usage(asked: Asked) -> Usage:
    return usage_of(asked, asked.body.get("messages"), _most(asked))


def _counted(usage: Usage) -> dict[str, object]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": sum(usage),
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _chat(asked: Asked, usage: Usage) -> object:
    message: dict[str, object] = {
        "role": "assistant",
        "content": text_of(usage.output),
        "refusal": None,
        "annotations": [],
    }
    ended = "length" if usage.output == _most(asked) else "stop"
    return {
        "id": f"chatcmpl-{asked.id}",
        "object": "chat.completion",
        "created": asked.now,
        "model": asked.text("model"),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": ended}],
        "usage": _counted(usage),
        "service_tier": "default",
        "system_fingerprint": None,
    }


# -- responses -----------------------------------------------------------------------------------


def _response_usage(asked: Asked) -> Usage:
    return usage_of(asked, [asked.body.get("instructions"), asked.body.get("input")], _most(asked))


def _response(asked: Asked, usage: Usage) -> object:
    cut = usage.output == _most(asked)
    status = "incomplete" if cut else "completed"
    text = {"type": "output_text", "text": text_of(usage.output), "annotations": [], "logprobs": []}
    return {
        "id": f"resp_{asked.id}",
        "object": "response",
        "created_at": asked.now,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": asked.text("instructions") or None,
        "max_output_tokens": _most(asked),
        "model": asked.text("model"),
        "output": [
            {"type": "message", "id": f"msg_{asked.id}", "status": status, "role": "assistant", "content": [text]}
        ],
        "metadata": {},
        "usage": {
            "input_tokens": usage.input,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": sum(usage),
        },
    }


# -- embeddings ----------------------------------------------------------------------------------


def _embedding_usage(asked: Asked) -> Usage:
    return Usage(tokens_of(asked.body.get("input")))


def _embeddings(asked: Asked, usage: Usage) -> object:
    """As text: the vectors are long, and all the same."""
    given = asked.body["input"]
    inputs = 1 if isinstance(given, list) and given and isinstance(given[0], int) else _inputs(given)
    wanted = asked.body.get("dimensions")
    size = wanted if isinstance(wanted, int) and 0 < wanted <= MOST_DIMENSIONS else DIMENSIONS
    vector = _vector(size, asked.body.get("encoding_format") == "base64")
    data = ",".join(f'{{"object":"embedding","index":{at},"embedding":{vector}}}' for at in range(inputs))
    tail = {"model": asked.text("model"), "usage": {"prompt_tokens": usage.input, "total_tokens": usage.input}}
    return f'{{"object":"list","data":[{data}],{json.dumps(tail)[1:]}'


def _inputs(given: Any) -> int:
    """How many there are; the API takes no more than MOST_INPUTS."""
    return min(len(given), MOST_INPUTS) if isinstance(given, list) else 1


@lru_cache(maxsize=16)
def _vector(size: int, packed: bool) -> str:
    """A vector of length 1 as JSON: numbers, or their bytes in base64."""
    each = round(size**-0.5, 6)
    if packed:
        return json.dumps(base64.b64encode(struct.pack(f"<{size}f", *[each] * size)).decode())
    return json.dumps([each] * size, separators=(",", ":"))


# -- the others ----------------------------------------------------------------------------------


def _moderation(asked: Asked, usage: Usage) -> object:
    categories = ("harassment", "hate", "illicit", "self-harm", "sexual", "violence")
    result = {
        "flagged": False,
        "categories": dict.fromkeys(categories, False),
        "category_scores": dict.fromkeys(categories, 0.0),
    }
    model = asked.text("model") or "omni-moderation-latest"
    return {"id": f"modr-{asked.id}", "model": model, "results": [result] * _inputs(asked.body["input"])}


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "openai"}


def _models(asked: Asked, usage: Usage) -> object:
    return {"object": "list", "data": [_model(name) for name in MODELS]}


def _one_model(asked: Asked, usage: Usage) -> object:
    return _model(asked.names["model"])


OPENAI: Final = Api(
    key_in=BEARER,
    dialect=DIALECTS["openai"],
    error=_error,
    missing=_missing,
    routes=(
        Route("POST", "/v1/chat/completions", _chat, ("model", "messages"), _chat_usage),
        Route("POST", "/v1/responses", _response, ("model", "input"), _response_usage),
        Route("POST", "/v1/embeddings", _embeddings, ("model", "input"), _embedding_usage),
        Route("POST", "/v1/moderations", _moderation, ("input",)),
        Route("GET", "/v1/models", _models),
        Route("GET", "/v1/models/{model}", _one_model),
    ),
    unit="tokens",
    fields=("x-request-id: {id}", "openai-version: 2020-10-01", "openai-organization: judged"),
    request_id="req_{:032x}",
)
