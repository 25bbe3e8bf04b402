"""What an answer tells of itself: whose prompt it had, and whether its tokens are counted right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.faults.answers import told_by

CHAT, TEXT, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/messages"
RESPONSES, GENERATE = "/v1/responses", "/v2/models/tiny/generate"
OURS, OTHERS = [1], [2]


def decode(ids: Sequence[int]) -> str:
    """A tokenizer of two prompts."""
    return {1: "The sea [ours]", 2: "The sea [others]"}[ids[0]]


def chat(prompt: list[int], tokens: int, usage: int) -> list[dict[str, Any]]:
    """A chat's stream: a chunk that names the prompt, one a token, the usage."""
    chunk = {"choices": [{"delta": {"content": "a"}, "token_ids": [7]}]}
    first = {"choices": [{"delta": {"role": "assistant"}}], "prompt_token_ids": prompt}
    return [first, *[chunk] * tokens, {"choices": [], "usage": {"completion_tokens": usage}}]


def text(prompt: list[int], tokens: int, usage: int) -> list[dict[str, Any]]:
    """A completion in one piece."""
    choice = {"text": "a" * tokens, "token_ids": [7] * tokens, "prompt_token_ids": prompt}
    return [{"choices": [choice], "usage": {"completion_tokens": usage}}]


def messages(usage: int) -> list[dict[str, Any]]:
    """Anthropic's stream."""
    return [
        {"type": "message_start", "message": {"usage": {"output_tokens": 0}}},
        {"type": "content_block_delta", "delta": {"text": "aaa"}},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": usage}},
    ]


def responses(prompt: list[int], said: str, usage: int) -> list[dict[str, Any]]:
    """A stream of the Responses API, which repeats its text at the end."""
    response = {
        "object": "response",
        "output": [{"content": [{"text": said}]}],
        "usage": {"output_tokens": usage},
        "input_messages": [{"tokens": prompt}],
        "output_messages": [{"tokens": [7, 7, 7]}],
    }
    delta = {"type": "response.output_text.delta", "delta": "a"}
    return [delta, delta, delta, {"type": "response.completed", "response": response}]


@pytest.mark.parametrize(
    ("path", "events", "wrong"),
    [
        (CHAT, chat(OURS, 3, 3), ""),
        (CHAT, chat(OTHERS, 3, 3), "it answers another prompt than [ours]"),
        (CHAT, chat(OURS, 3, 4), "its usage says 4 tokens and 3 came"),
        (CHAT, chat(OURS, 2, 2), "its usage says 2 tokens, of 3 that were asked for"),
        (TEXT, text(OURS, 3, 3), ""),
        (TEXT, text(OTHERS, 3, 3), "it answers another prompt than [ours]"),
        (TEXT, text(OURS, 4, 4), "its usage says 4 tokens, of 3 that were asked for"),
        (MESSAGES, messages(3), ""),
        (MESSAGES, messages(2), "its usage says 2 tokens, of 3 that were asked for"),
        (MESSAGES, messages(3)[:-1], "its usage says None tokens, of 3 that were asked for"),
        (RESPONSES, responses(OURS, "aaa", 3), ""),
        (RESPONSES, responses(OTHERS, "aaa", 3), "it answers another prompt than [ours]"),
        (RESPONSES, responses(OURS, "aab", 3), "its events have another text than its end"),
        (GENERATE, [{"text_output": "aa"}, {"text_output": "a"}], ""),
    ],
)
def test_answer(path: str, events: list[dict[str, Any]], wrong: str) -> None:
    """An answer of three tokens to a prompt of ours, which was cut for its length."""
    told = told_by(events)
    assert told.text == "aaa" or wrong
    assert told.faults(path, "[ours]", 3, decode, cut=True) == wrong
