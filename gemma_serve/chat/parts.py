"""
The content of a message: a string, or a list of parts.

A part that is text for vLLM is text here (vLLM 0.32, renderers/chat_utils.py: TEXT_PART_TYPES).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

Part: TypeAlias = dict[str, Any]
Content: TypeAlias = str | list[Part] | None
Message: TypeAlias = dict[str, Any]

PARAGRAPH = "\n\n"
LINE = "\n"

# As Gemma 4's template finds the thoughts of an answer, closed or not.
_THOUGHT = re.compile(r"<\|channel>.*?(?:<channel\|>|\Z)|<channel\|>", re.DOTALL)

# Where a part of a text type keeps its text.
TEXT_KEYS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}


def part_text(part: Part) -> str | None:
    """The text of a text part; None for an image and whatever else is no text."""
    key = TEXT_KEYS.get(part.get("type", ""))
    return part[key] if key else None


def as_string(content: Content) -> str | None:
    """The content as one string, its parts joined as vLLM does; None if a part is no text."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = [text for part in content if (text := part_text(part)) is not None]
    return LINE.join(texts) if len(texts) == len(content) else None


def is_blank(content: Content) -> bool:
    """Nothing but white space."""
    text = as_string(content)
    return text is not None and not text.strip()


def join_contents(contents: Sequence[Content]) -> Content:
    """
    Several contents as one, with an empty line where text meets text.

    Texts that meet become one part: Gemma's templates trim each part, which would lose the line.
    """
    kept = [content for content in contents if content]
    texts = [content for content in kept if isinstance(content, str)]
    if len(texts) == len(kept):
        return PARAGRAPH.join(texts)
    groups: list[list[Part]] = []
    for content in kept:
        first, *others = _parts(content)
        if groups and part_text(groups[-1][-1]) is not None and part_text(first) is not None:
            groups[-1].append(first)
        else:
            groups.append([first])
        groups.extend([part] for part in others)
    return [_fused(group) for group in groups]


def merge_messages(messages: Sequence[Message]) -> Message:
    """One message of several: contents and reasoning joined, tool calls in order, first name."""
    merged: Message = {}
    for message in reversed(messages):
        merged |= message
    merged["content"] = join_contents([message.get("content") for message in messages])
    for key in ("reasoning", "reasoning_content"):
        texts = [message[key] for message in messages if message.get(key)]
        if texts and all(isinstance(text, str) for text in texts):
            merged[key] = PARAGRAPH.join(texts)
    if calls := [call for message in messages for call in message.get("tool_calls") or ()]:
        merged["tool_calls"] = calls
    return merged


def without_thoughts(message: Message) -> Message:
    """
    The message without thoughts in its content.

    A template that takes them out by itself loses the place at which the answer goes on.
    """
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": _THOUGHT.sub("", content)}
    return {**message, "content": [_without_thoughts(part) for part in content]}


def _without_thoughts(part: Part) -> Part:
    text = part_text(part)
    return part if text is None else {**part, TEXT_KEYS[part["type"]]: _THOUGHT.sub("", text)}


def _parts(content: str | list[Part]) -> list[Part]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _fused(group: list[Part]) -> Part:
    if len(group) == 1:
        return group[0]
    texts = [text for part in group if (text := part_text(part))]
    return {"type": "text", "text": PARAGRAPH.join(texts)}
