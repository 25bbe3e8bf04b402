"""What clients send and get: vLLM's request models, with messages left for us to check."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from pydantic import TypeAdapter, ValidationError, field_validator, model_validator
from starlette.datastructures import State
from vllm.entrypoints.anthropic.protocol import (
    AnthropicCountTokensRequest,
    AnthropicMessagesRequest,
)
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest as VllmCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponseInputOutputItem
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest as VllmResponsesRequest
from vllm.entrypoints.serve.tokenize.protocol import (
    DetokenizeRequest,
    TokenizeChatRequest,
    TokenizeCompletionRequest,
)
from vllm.entrypoints.serve.utils.api_utils import with_cancellation as vllm_with_cancellation

from gemma_serve.chat.parts import part_text
from gemma_serve.chat.shapes import checked_message, refuse
from gemma_serve.engine.vllm.sampling import SAMPLING, check_values

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


def _check_sampling(data: Any) -> Any:
    """Check a body's sampling parameters, as every protocol's are."""
    if isinstance(data, dict):
        check_values({name: data[name] for name in SAMPLING & data.keys()})
    return data


class ChatRequest(ChatCompletionRequest):  # type: ignore[misc]  # vllm is not typed for us
    """OpenAI's chat request; `chat/messages.py` reads its messages, Gemini's and others' too."""

    messages: list[dict[str, Any]]

    check_sampling = model_validator(mode="before")(_check_sampling)


class CompletionRequest(VllmCompletionRequest):  # type: ignore[misc]
    """OpenAI's completion request; without max_tokens it is as long as a chat's answer may be."""

    max_tokens: int | None = None  # vLLM's default is 16

    check_sampling = model_validator(mode="before")(_check_sampling)

    def allow_tokens(self, max_model_len: int) -> None:
        """Allow as many as the context has, where the client names no number; vLLM needs one."""
        if self.max_tokens is None:
            self.max_tokens = max_model_len


class ResponsesRequest(VllmResponsesRequest):  # type: ignore[misc]
    """OpenAI's Responses request; messages in its input as in `ChatRequest`."""

    input: str | list[Any]

    @model_validator(mode="before")  # vLLM's own run after it
    @classmethod
    def read_messages(cls, data: Any) -> Any:
        """Check the messages among the items; what `chat/messages.py` mends stays as it is."""
        items = data.get("input") if isinstance(data, dict) else None
        if not isinstance(items, list):
            return data
        return {**data, "input": [one for at, item in enumerate(items) for one in _read(at, item)]}

    @field_validator("input")
    @classmethod
    def check_items(cls, items: str | list[Any]) -> str | list[Any]:
        """Check the items that are no messages, which vLLM makes messages of."""
        if isinstance(items, str):
            return items
        return [item if _is_message(item) else _other_item(item) for item in items]


_OTHER_ITEM = TypeAdapter(ResponseInputOutputItem)


def _is_message(item: Any) -> bool:
    return isinstance(item, dict) and "role" in item and item.get("type") in (None, "message")


def _read(index: int, item: Any) -> list[Any]:
    """The item; an assistant's message so that vLLM neither cuts it nor loses its calls."""
    if not _is_message(item):
        return [item]
    message = checked_message(f"input[{index}]", item)
    if message["role"] != "assistant":
        return [message]
    calls = [_as_item(call) for call in message.get("tool_calls") or ()]
    rest = {key: message[key] for key in message if key not in ("type", "tool_calls")}
    return [rest | {"content": _uncut(message.get("content"))}, *calls]


def _uncut(content: Any) -> Any:
    """The content; vLLM takes a first part's `text` for all of it, and a list without it whole."""
    if not isinstance(content, list) or not content or (text := part_text(content[0])) is None:
        return content
    return text if len(content) == 1 else [{"type": "refusal", "refusal": text}, *content[1:]]


def _as_item(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    name, call_id = function["name"], call.get("id")
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def _other_item(item: Any) -> Any:
    try:
        return _OTHER_ITEM.validate_python(item)
    except ValidationError:
        refuse(
            "input",
            "holds an item that is neither a message (role and content) nor a complete "
            "function_call, function_call_output or reasoning",
        )


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
