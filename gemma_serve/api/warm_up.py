"""A few requests through the whole HTTP path before the server says that it is ready."""

from __future__ import annotations

from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from gemma_serve.errors import StartupError

PROMPT = "Write one sentence about the sea."
MAX_TOKENS = 8
TIMEOUT_S = 600


async def warm_up(app: ASGIApp, model: str) -> None:
    """
    Send a completion and a chat, streamed and not, so that the first client finds everything warm.

    Raises:
        StartupError: the server failed on one of them. A 4xx is no failure: a base model without a
            chat template has no chats to warm up.
    """

    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        # The mark lets these pass keys and readiness; it can't come from outside.
        scope["gemma_serve.warm_up"] = True
        await app(scope, receive, send)

    chat = {"messages": [{"role": "user", "content": PROMPT}]}
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/v1/completions", {"prompt": PROMPT}),
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", chat | {"stream": True}),
    ]
    transport = httpx.ASGITransport(app=marked)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", timeout=TIMEOUT_S
    ) as client:
        # Describing vLLM's request models takes most of a second: not the first reader's.
        await client.get("/openapi.json")
        for path, body in requests:
            answer = await client.post(path, json=body | {"model": model, "max_tokens": MAX_TOKENS})
            if answer.status_code >= 500:
                raise StartupError(
                    f"The warm-up request to {path} failed with {answer.status_code}: "
                    f"{answer.text[:300]}"
                )
