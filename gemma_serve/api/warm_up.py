"""A few requests through the whole HTTP path before the server says that it is ready."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from gemma_serve.engine.step_times import StepTimes
from gemma_serve.errors import StartupError

PROMPT = "Write one sentence about the sea."
PROMPT_TOKENS = 8  # of Gemma's tokenizer
MAX_TOKENS = 8
TIMEOUT_S = 600
# The first may still compile something for its length.
NUM_PREFILLS = 3
# Sequences in one step, and steps, by which a step's time is told from that of a single one; three
# rounds, so that one that was disturbed is outvoted.
NUM_TOGETHER = 8
NUM_STEPS = 12
NUM_ROUNDS = 3


async def warm_up(app: ASGIApp, model: str) -> None:
    """
    Send a completion and a chat, streamed and not, so that the first client finds everything warm.

    Log-probabilities too: vLLM compiles a function of theirs when it is first asked for them, which
    held every request up for 9 s on a CPU, and for 2 s where the result was in torch's cache.

    Raises:
        StartupError: the server failed on one of them. A 4xx is no failure: a base model without a
            chat template has no chats to warm up.
    """
    chat = {"messages": [{"role": "user", "content": PROMPT}]}
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/v1/completions", {"prompt": PROMPT}),
        ("/v1/completions", {"prompt": PROMPT, "logprobs": 1}),
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", chat | {"stream": True}),
    ]
    async with _client(app) as client:
        # Describing vLLM's request models takes most of a second: not the first reader's.
        await client.get("/openapi.json")
        for path, body in requests:
            answer = await client.post(path, json=body | {"model": model, "max_tokens": MAX_TOKENS})
            if answer.status_code >= 500:
                raise StartupError(
                    f"The warm-up request to {path} failed with {answer.status_code}: "
                    f"{answer.text[:300]}"
                )


async def measure_prefill(app: ASGIApp, model: str, num_tokens: int) -> float | None:
    """
    Prompt tokens a second, of one prompt after the other, from the body to the first token.

    Args:
        num_tokens: About as long as each is.

    Returns:
        The fastest one's; None where the model answers none.
    """
    rates = [0.0]
    async with _client(app) as client:
        for at in range(NUM_PREFILLS):
            # Each begins differently, so that none finds its beginning in the prefix cache.
            prompt = f"{at} {PROMPT * max(num_tokens // PROMPT_TOKENS, 1)}"
            body = {"model": model, "prompt": prompt, "max_tokens": 1}
            began_s = time.perf_counter()
            answer = await client.post("/v1/completions", json=body)
            if answer.status_code == 200:
                took_s = time.perf_counter() - began_s
                rates.append(answer.json()["usage"]["prompt_tokens"] / took_s)
    return max(rates) or None


async def measure_steps(app: ASGIApp, model: str, max_num_seqs: int, times: StepTimes) -> None:
    """
    Have the engine take steps of one sequence, and of several.

    Args:
        max_num_seqs: That the engine takes at once.
        times: Keeps how long they are.
    """
    body = {"model": model, "prompt": PROMPT, "max_tokens": NUM_STEPS, "ignore_eos": True}
    num_together = min(NUM_TOGETHER, max_num_seqs)
    async with _client(app) as client:
        for _ in range(NUM_ROUNDS):
            with times.round():
                await client.post("/v1/completions", json=body)
                asking = [client.post("/v1/completions", json=body) for _ in range(num_together)]
                await asyncio.gather(*asking)


def _client(app: ASGIApp) -> httpx.AsyncClient:
    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        # The mark lets these pass keys and readiness; it can't come from outside.
        scope["gemma_serve.warm_up"] = True
        await app(scope, receive, send)

    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=marked), base_url="http://localhost", timeout=TIMEOUT_S
    )
