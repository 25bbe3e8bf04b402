"""
The rules that mend a conversation, each named as its key under `chat:`.

A rule returns the list that it got if it had nothing to do, and never changes a message in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, TypeAlias

from gemma_serve.chat.abilities import Abilities
from gemma_serve.chat.image_parts import convert_image_parts
from gemma_serve.chat.parts import Message, as_string, is_blank, merge_messages, part_text
from gemma_serve.chat.tools import write_tools_as_text
from gemma_serve.profile.schema import Chat

Messages: TypeAlias = list[Message]


@dataclass(frozen=True)
class Context:
    """What a rule may look at beside the messages."""

    tools: list[dict[str, Any]] | None
    abilities: Abilities
    chat: Chat


Rule: TypeAlias = Callable[[Messages, Context], Messages]


def model_role(messages: Messages, _: Context) -> Messages:
    """Role model, Gemini's, becomes assistant."""
    return _renamed(messages, "model", "assistant")


def developer_to_system(messages: Messages, context: Context) -> Messages:
    """Role developer becomes system."""
    return messages if context.abilities.developer else _renamed(messages, "developer", "system")


def image_parts(messages: Messages, _: Context) -> Messages:
    """Hugging Face's and Responses' image parts become image_url."""
    return convert_image_parts(messages)


def merge_system(messages: Messages, context: Context) -> Messages:
    """
    Later system messages join the leading one, or become user turns.

    One that closes the conversation after an answer becomes a user turn either way: moved to the
    front it would leave the model nothing to answer.
    """
    if context.abilities.later_system or "system" not in [m["role"] for m in messages[1:]]:
        return messages
    if context.chat.merge_system == "user":
        return [messages[0], *_renamed(messages[1:], "system", "user")]
    end = len(messages)
    while end and messages[end - 1]["role"] == "system":
        end -= 1
    if not end or messages[end - 1]["role"] != "assistant":
        end = len(messages)
    system = [m for m in messages[:end] if m["role"] == "system"]
    others = [m for m in messages[:end] if m["role"] != "system"]
    leading = [merge_messages(system)] if system else []
    return [*leading, *others, *_renamed(messages[end:], "system", "user")]


def tools_as_text(messages: Messages, context: Context) -> Messages:
    """Declarations, calls and results become text."""
    if context.abilities.tools:
        return messages
    return write_tools_as_text(messages, context.tools, context.abilities)


def empty_content(messages: Messages, context: Context) -> Messages:
    """
    Null content becomes ''; empty assistant turns at the end, which ask to begin, are dropped.

    Where nothing else was said, an empty user turn stands in, so that there is a prompt.
    """
    end = len(messages)
    while end and _is_empty_answer(messages[end - 1]):
        end -= 1
    if end < len(messages):
        messages = messages[:end] or [{"role": "user", "content": ""}]
    if context.abilities.null_content or all(m.get("content") is not None for m in messages):
        return messages
    return [m if m.get("content") is not None else {**m, "content": ""} for m in messages]


def system_to_user(messages: Messages, context: Context) -> Messages:
    """A leading system message that the template would refuse or lose opens the first user turn."""
    if not messages or messages[0]["role"] != "system" or _takes_system(messages, context):
        return messages
    opening, rest = {**messages[0], "role": "user"}, messages[1:]
    if rest and rest[0]["role"] == "user":
        return [merge_messages([opening, rest[0]]), *rest[1:]]
    return [opening, *rest]


def assistant_first(messages: Messages, context: Context) -> Messages:
    """
    An empty user turn is put before an opening assistant turn, or that turn is dropped.

    It is dropped only where a user turn follows: else nothing would be left to answer.
    """
    start = 1 if messages and messages[0]["role"] == "system" else 0
    end = start
    while end < len(messages) and messages[end]["role"] == "assistant":
        end += 1
    if context.abilities.assistant_first or end == start:
        return messages
    follows = end < len(messages) and messages[end]["role"] == "user"
    if context.chat.assistant_first == "drop" and follows:
        return messages[:start] + messages[end:]
    return [*messages[:start], {"role": "user", "content": ""}, *messages[start:]]


def merge_turns(messages: Messages, context: Context) -> Messages:
    """User turns in a row, and assistant turns in a row, become one."""
    if context.abilities.repeated_roles or not any(
        one["role"] == other["role"] in _TURNS for one, other in pairwise(messages)
    ):
        return messages
    merged: Messages = []
    for role, run in groupby(messages, key=lambda message: message["role"]):
        turns = list(run)
        merged += [merge_messages(turns)] if role in _TURNS and len(turns) > 1 else turns
    return merged


def text_parts(messages: Messages, context: Context) -> Messages:
    """Text parts become one string where the template wants one, or would show only the first."""
    if list not in [type(message.get("content")) for message in messages]:
        return messages
    changed = [_with_string(message, context.abilities) for message in messages]
    same = all(one is other for one, other in zip(messages, changed, strict=True))
    return messages if same else changed


# In the order in which they apply: what a rule leaves behind is mended by the ones after it.
RULES: tuple[tuple[str, Rule], ...] = (
    ("model_role", model_role),
    ("developer_to_system", developer_to_system),
    ("image_parts", image_parts),
    ("merge_system", merge_system),
    ("tools_as_text", tools_as_text),
    ("empty_content", empty_content),
    ("system_to_user", system_to_user),
    ("assistant_first", assistant_first),
    ("merge_turns", merge_turns),
    ("text_parts", text_parts),
)
_TURNS = ("user", "assistant")


def _renamed(messages: Messages, old: str, new: str) -> Messages:
    if old not in [message["role"] for message in messages]:
        return messages
    return [{**m, "role": new} if m["role"] == old else m for m in messages]


def _is_empty_answer(message: Message) -> bool:
    says = ("tool_calls", "reasoning", "reasoning_content")
    return (
        message["role"] == "assistant"
        and not any(message.get(key) for key in says)
        and is_blank(message.get("content"))
    )


def _takes_system(messages: Messages, context: Context) -> bool:
    abilities = context.abilities
    if not abilities.system or (len(messages) == 1 and not abilities.system_alone):
        return False
    return abilities.system_parts or as_string(messages[0].get("content")) is not None


def _with_string(message: Message, abilities: Abilities) -> Message:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    if abilities.text_parts and (message["role"] != "system" or abilities.system_parts):
        return message
    if abilities.text_parts and len(content) == 1 and part_text(content[0]) is not None:
        return message
    text = as_string(content)
    return message if text is None else {**message, "content": text}
