"""
The request of a workload's item in each API, and what the events of its answer say.

Source of the fields: OpenAI's API reference; vLLM 0.32 (`ignore_eos`, `return_token_ids`,
`cache_salt`); the Triton generate extension and its vLLM and python backends, whose inputs have the
same names over gRPC.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from benchmarks.records import TRITON_PROTOCOLS, Item, Protocol, TritonContract

Message = dict[str, Any]
# Gemma has a token for each digit, so that every prompt gets as many more tokens as any other.
SALT_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Extras:
    """What beyond the API is asked for; a server that refuses it is asked without."""

    ignore_eos: bool = False  # answers of exactly max_tokens
    token_ids: bool = False  # vLLM's return_token_ids; Triton's count of each response's tokens
    continuous_usage: bool = False
    cache_salt: str | None = None  # no prefix-cache block is shared with another salt


@dataclass(slots=True)
class Event:
    """What one event of a stream says."""

    has_choice: bool = False
    text: str = ""
    token_ids: list[int] | None = None
    num_tokens: int | None = None  # of this event alone
    finish_reason: str | None = None
    says_if_finished: bool = False  # an event with a reason must come
    prompt_tokens: int | None = None
    output_tokens: int | None = None  # so far, by the usage
    cached_tokens: int | None = None
    error: str | None = None


def path(protocol: Protocol, model: str) -> str:
    """The route."""
    return {
        "openai-chat": "/v1/chat/completions",
        "openai-completions": "/v1/completions",
        "triton-generate": f"/v2/models/{model}/generate_stream",
        "triton-grpc": "/inference.GRPCInferenceService/ModelStreamInfer",
    }[protocol]


def has_ignore_eos(protocol: Protocol, contract: TritonContract) -> bool:
    """Whether a request can ask for an answer of exactly max_tokens."""
    return protocol not in TRITON_PROTOCOLS or contract == "vllm-backend"


def body(
    protocol: Protocol,
    model: str,
    item: Item,
    extras: Extras,
    *,
    history: list[Message] | None = None,
    contract: TritonContract = "python-backend",
) -> dict[str, Any]:
    """
    A greedy, streaming request.

    Args:
        history: What was said before in the item's conversation: a message a turn, and one an
            answer. Where there are no messages it is one text, line by line before the new turn.

    Raises:
        ValueError: the protocol has no place for the item's kind of prompt.
    """
    if protocol in TRITON_PROTOCOLS:
        return _triton_body(protocol, item, extras, contract)
    asked: dict[str, Any] = {
        "model": model,
        "max_tokens": item.max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if protocol == "openai-chat":
        asked["messages"] = [*(history or []), *_messages(item)]
    else:
        asked["prompt"] = _prompt(item, history or [])
    if extras.ignore_eos:
        asked["ignore_eos"] = True
    if extras.token_ids:
        asked["return_token_ids"] = True
    if extras.continuous_usage:
        asked["stream_options"]["continuous_usage_stats"] = True
    if extras.cache_salt:
        asked["cache_salt"] = extras.cache_salt
    return asked


def _prompt(item: Item, history: list[Message]) -> str | list[int]:
    if item.prompt_token_ids is not None:
        return item.prompt_token_ids
    text = _text(item, "openai-completions")
    return "\n".join([*(message["content"] for message in history), text])


def _messages(item: Item) -> list[Message]:
    if item.messages is not None:
        return item.messages
    return [{"role": "user", "content": _text(item, "openai-chat")}]


def _text(item: Item, protocol: Protocol) -> str:
    if item.prompt is not None:
        return item.prompt
    if item.messages and len(item.messages) == 1 and isinstance(item.messages[0]["content"], str):
        return item.messages[0]["content"]
    kind = "messages" if item.messages else "token ids"
    allowed = {"openai-chat": "messages or text", "openai-completions": "text or token ids"}
    raise ValueError(
        f"request {item.index} of the workload has {kind}, and {protocol} takes "
        f"{allowed.get(protocol, 'text')}; choose another --protocol or another workload"
    )


def salted(text: str, salt: str | None) -> str:
    """
    The text after digits that the salt decides: another first block of a prefix cache.

    For protocols that have no `cache_salt`.
    """
    if salt is None:
        return text
    digest = hashlib.blake2b(salt.encode(), digest_size=8).digest()
    return f"{int.from_bytes(digest) % 10**SALT_DIGITS:0{SALT_DIGITS}d} {text}"


def _triton_body(
    protocol: Protocol, item: Item, extras: Extras, contract: TritonContract
) -> dict[str, Any]:
    if item.conversation is not None:
        raise ValueError(
            f"request {item.index} of the workload is a turn of a conversation, and {protocol} "
            "takes text; choose openai-chat or another workload"
        )
    text = salted(_text(item, protocol), extras.cache_salt)
    if contract == "vllm-backend":
        sampling = {
            "temperature": 0,
            "max_tokens": item.max_tokens,
            "ignore_eos": extras.ignore_eos,
        }
        flags = {"exclude_input_in_output": True, "stream": True}
        if extras.token_ids:
            flags |= {"return_num_output_tokens": True, "return_num_input_tokens": True}
            flags["return_finish_reason"] = True
        # A JSON object becomes the STRING input of that name, as perf_analyzer sends it.
        return {"text_input": text, "sampling_parameters": json.dumps(sampling), **flags}
    if contract == "tensorrtllm":
        return {
            "text_input": text,
            "max_tokens": item.max_tokens,
            "temperature": 0.0,
            "stream": True,
        }
    return {
        "text_input": text,
        "max_new_tokens": item.max_tokens,
        "do_sample": False,
        "stream": True,
    }


def read_event(protocol: Protocol, said: dict[str, Any]) -> Event:
    """What one event's JSON says; unknown keys are none of our business."""
    if said.get("error") is not None and "choices" not in said:
        return Event(error=_error_text(said["error"]))
    if protocol in TRITON_PROTOCOLS:
        return _triton_event(said)
    event = Event()
    for choice in said.get("choices") or []:
        event.has_choice = True
        event.text += _choice_text(choice)
        if (ids := choice.get("token_ids")) is not None:
            event.token_ids, event.num_tokens = ids, len(ids)
        event.finish_reason = choice.get("finish_reason") or event.finish_reason
    if usage := said.get("usage"):
        event.prompt_tokens = usage.get("prompt_tokens")
        event.output_tokens = usage.get("completion_tokens")
        event.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    return event


def _choice_text(choice: dict[str, Any]) -> str:
    """The text of any channel: reasoning and tool calls are tokens too."""
    if "text" in choice:
        return choice["text"] or ""
    delta = choice.get("delta") or {}
    parts = [delta.get("reasoning_content") or delta.get("reasoning"), delta.get("content")]
    for call in delta.get("tool_calls") or []:
        function = call.get("function") or {}
        parts += [function.get("name"), function.get("arguments")]
    return "".join(part for part in parts if part)


def _triton_event(said: dict[str, Any]) -> Event:
    text, reason = said.get("text_output"), _scalar(said.get("finish_reason"))
    return Event(
        has_choice=text is not None,
        text="".join(text) if isinstance(text, list) else text or "",
        # The vLLM backend writes Python's None as text until there is a reason.
        finish_reason=None if reason == "None" else reason,
        says_if_finished=reason is not None,
        prompt_tokens=_scalar(said.get("num_input_tokens")),
        # The vLLM backend counts each response's own tokens, not those so far.
        num_tokens=_scalar(said.get("num_output_tokens")),
    )


def _scalar(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _error_text(error: Any) -> str:
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)
