"""The calls of a run whose upstream is the judge: chats, as OpenAI's API takes them.

Rule: each call has a text of its own, so that the judge can tell it from all others, and says how many tokens its
answer may have, so that what the pool counts beforehand is never too little.
"""

from __future__ import annotations

import json
from typing import Final

from apiflux_grpc.v1 import apiflux_pb2 as pb

PATH: Final = "/v1/chat/completions"
ANSWER: Final = 40  # tokens at most
TEXT: Final = (
    "This is call {call} of request {request}. A batch of calls shares a few keys with many other batches, and every "
    "key has a limit of calls and a limit of tokens in any few seconds. Nobody may exceed either of them, nobody "
    "should wait while a key is free, and whoever came last should not be served last. In one short sentence: which "
    "call is this, and what is it waiting for?"
)
TYPE: Final = pb.Header(name="Content-Type", value="application/json")


def calls_of(request: int, count: int) -> list[pb.Call]:
    """The calls of one of the requests."""
    return [pb.Call(method="POST", path=PATH, headers=[TYPE], body=_chat(request, place)) for place in range(count)]


def _chat(request: int, place: int) -> bytes:
    text = TEXT.format(call=place + 1, request=request + 1)
    chat = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "max_completion_tokens": ANSWER}
    return json.dumps(chat).encode()
