"""What is asked of the engine for one prompt, and what it gives: for protocols that are no API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gemma_serve.engine.deadline import Deadline

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class TextPrompt:
    """Raw text, as in the completions API; images stand where the text has their token."""

    text: str
    images: tuple[str, ...] = ()  # base64 of the files, as they were sent


@dataclass(frozen=True)
class ChatPrompt:
    """Messages, which get the chat template."""

    messages: list[JsonObject]
    tools: list[JsonObject] | None = None
    tool_choice: Any = None
    template_kwargs: JsonObject | None = None

    @property
    def is_parsed(self) -> bool:
        """Whether the answer has more than text in it: tool calls, or thinking."""
        return bool(self.tools or self.template_kwargs)


@dataclass(frozen=True)
class Ask:
    """One prompt on its way to the engine."""

    prompt: TextPrompt | ChatPrompt
    sampling: Mapping[str, Any]  # fields of the completions API, vLLM's own among them
    stream: bool
    request_id: str
    model: str  # a served name; an adapter's chooses the adapter
    max_total_tokens: int | None = None  # prompt and answer
    priority: int = 0  # vLLM's: lower goes first
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    deadline: Deadline = field(default_factory=Deadline)


@dataclass(frozen=True)
class Part:
    """What one answer gained since the last piece; all of it when not streaming."""

    text: str
    num_tokens: int
    finish_reason: str | None
    cumulative_logprob: float | None = None
    logprobs: list[JsonObject] | None = None  # per token: id -> logprob, rank, decoded_token
    tool_calls: list[JsonObject] | None = None  # as OpenAI writes them
    index: int = 0  # which of several answers (`n`) it belongs to


@dataclass(frozen=True)
class Times:
    """Where the engine's seconds went, by its own clock."""

    queue_s: float
    infer_s: float


@dataclass(frozen=True)
class Piece:
    """What the engine gave for a prompt in one go."""

    parts: tuple[Part, ...]  # one an answer (`n`)
    prompt: str
    num_prompt_tokens: int
    finished: bool
    times: Times | None = None
