"""What a request asks of the engine, as far as it can be told before it is tokenised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from gemma_serve.api.keys import Key
from gemma_serve.chat.size import text_chars, without_images
from gemma_serve.engine.deadline import Deadline

# Where the protocols have a prompt's text. An image counts as its protocol's few words.
MESSAGES = ("messages", "input")
TEXTS = ("prompt", "system", "instructions", "tools")


@dataclass(frozen=True)
class Demand:
    """One request, of whatever protocol."""

    num_sequences: int = 1  # prompts times `n`: each takes a place in the engine's batch
    num_chars: int = 0
    num_tokens: int = 0  # of prompts that come as token ids
    priority: int = 0  # vLLM's and Triton's: lower goes first
    stream: bool = False
    deadline: Deadline = field(default_factory=Deadline)
    key: Key | None = None


def demand_of(asked: Any, body: Any, deadline: Deadline, key: Key | None) -> Demand:
    """
    The demand of a request of the OpenAI or Anthropic APIs.

    Args:
        asked: The parsed request.
        body: The JSON that it was parsed from; None leaves its characters uncounted.
    """
    prompt = getattr(asked, "prompt", None)
    num_prompts = len(prompt) if _is_batch(prompt) else 1
    return Demand(
        num_sequences=num_prompts * (getattr(asked, "n", None) or 1),
        num_chars=_num_chars(body) if isinstance(body, Mapping) else 0,
        num_tokens=_num_ids(prompt),
        priority=getattr(asked, "priority", None) or 0,
        stream=bool(getattr(asked, "stream", False)),
        deadline=deadline,
        key=key,
    )


def _num_chars(body: Mapping[str, Any]) -> int:
    texts: list[Any] = [body.get(name) for name in TEXTS]
    for name in MESSAGES:
        value = body.get(name)
        texts += map(without_images, value) if isinstance(value, list) else [value]
    return text_chars(texts)


def _is_batch(prompt: Any) -> TypeGuard[list[str] | list[list[int]]]:
    return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], str | list)


def _num_ids(prompt: Any) -> int:
    prompts = prompt if _is_batch(prompt) else [prompt]
    return sum(len(ids) for ids in prompts if isinstance(ids, list))
