"""A LiteLLM Router with one deployment per key, each with its rpm; usage-based routing, which enforces it.

LiteLLM counts requests per calendar minute, so the limit is scaled to 60 s. Calls go out through a custom provider
over the same aiohttp session as everybody's, since the judge's answers are no chat completions; everything else is the
Router's default, its two retries and its cooling down of keys included.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import litellm  # type: ignore[import-not-found]  # it has an environment of its own
from litellm import CustomLLM, ModelResponse, Router
from litellm.llms.custom_llm import CustomLLMError  # type: ignore[import-not-found]

from bench.peers.contest import Get, Run, Work, a_task_per_call, compete, http


class Provider(CustomLLM):  # type: ignore[misc]  # its type isn't known here
    """One call; the path is the message."""

    def __init__(self, get: Get) -> None:
        super().__init__()
        self._get = get

    async def acompletion(self, *args: Any, **given: Any) -> Any:
        status = await self._get(given["api_key"], given["messages"][0]["content"])
        if status != 200:
            raise CustomLLMError(status, f"the upstream answered {status}")
        answer = ModelResponse()
        answer.choices[0].message.content = "ok"
        return answer


@asynccontextmanager
async def opened(work: Work) -> AsyncIterator[Run]:
    logging.disable(logging.CRITICAL)
    litellm.suppress_debug_info = True
    rpm = round(work.most * 60 / work.per)
    deployments = [
        {"model_name": "judge", "litellm_params": {"model": "judge/any", "api_key": secret, "rpm": rpm}}
        for secret in work.secrets
    ]
    async with http(work) as get:
        litellm.custom_provider_map = [{"provider": "judge", "custom_handler": Provider(get)}]
        router = Router(model_list=deployments, routing_strategy="usage-based-routing-v2")

        async def one(path: str) -> bool:
            try:
                await router.acompletion(model="judge", messages=[{"role": "user", "content": path}])
            except Exception:  # of many kinds, all of which a caller has to deal with
                return False
            return True

        yield a_task_per_call(one, work.at_once)


if __name__ == "__main__":
    compete(opened)
