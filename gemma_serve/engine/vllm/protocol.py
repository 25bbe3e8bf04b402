"""What clients send and get: vLLM's request models, with messages left for us to check."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from starlette.datastructures import State
from vllm.entrypoints.anthropic.protocol import (
    AnthropicCountTokensRequest,
    AnthropicMessagesRequest,
)
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest as VllmCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.serve.tokenize.protocol import (
    DetokenizeRequest,
    TokenizeChatRequest,
    TokenizeCompletionRequest,
)
from vllm.entrypoints.serve.utils.api_utils import with_cancellation as vllm_with_cancellation

__all__ = [
    "AnthropicCountTokensRequest",
    "AnthropicMessagesRequest",
    "ChatRequest",
    "CompletionRequest",
    "DetokenizeRequest",
    "ResponsesRequest",
    "TokenizeRequest",
    "response_events",
    "with_cancellation",
]


class ChatRequest(ChatCompletionRequest):  # type: ignore[misc]  # vllm is not typed for us
    """OpenAI's chat request; `chat/messages.py` reads its messages, Gemini's and others' too."""

    messages: list[dict[str, Any]]


class CompletionRequest(VllmCompletionRequest):  # type: ignore[misc]
    """OpenAI's completion request; without max_tokens it is as long as a chat's answer may be."""

    max_tokens: int | None = None  # vLLM's default is 16

    def allow_tokens(self, max_model_len: int) -> None:
        """Allow as many as the context has, where the client names no number; vLLM needs one."""
        if self.max_tokens is None:
            self.max_tokens = max_model_len


class TokenizeMessagesRequest(TokenizeChatRequest):  # type: ignore[misc]
    """The chat kind of vLLM's tokenize request; messages as in `ChatRequest`."""

    messages: list[dict[str, Any]]


TokenizeRequest = TokenizeCompletionRequest | TokenizeMessagesRequest

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")


def with_cancellation(
    handler: Callable[Parameters, Awaitable[Answer]],
) -> Callable[Parameters, Awaitable[Answer]]:
    """Cancel a route's handler, and with it the engine's work, when the client leaves."""
    wrapped: Callable[Parameters, Awaitable[Answer]] = vllm_with_cancellation(handler)
    return wrapped


async def response_events(events: AsyncIterator[Any], state: State) -> AsyncGenerator[str, None]:
    """
    The Responses API's event objects as server-sent events; the other protocols come as text.

    The usage stands in the last event only; it is put where the other protocols leave it, in
    `state.request_metadata`.
    """
    async for event in events:
        if usage := getattr(getattr(event, "response", None), "usage", None):
            state.request_metadata.final_usage_info = usage
        yield f"event: {event.type}\ndata: {event.model_dump_json(by_alias=True)}\n\n"
