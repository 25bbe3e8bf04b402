"""
From what clients send to what Gemma's chat template takes.

Gemma's templates refuse a good part of what OpenAI clients send every day. Each rule (`rules.py`)
mends one such thing, and only where the template at hand can't (`abilities.py`); what the template
takes by itself reaches it untouched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gemma_serve.chat.abilities import Abilities
from gemma_serve.chat.parts import Message, is_blank, without_thoughts
from gemma_serve.chat.rules import RULES, Context
from gemma_serve.chat.shapes import checked
from gemma_serve.errors import RequestError
from gemma_serve.profile.schema import Chat

__all__ = ["Abilities", "Normalised", "helpful", "normalise"]

PREFILL = "prefill"


@dataclass(frozen=True)
class Normalised:
    """A conversation that the template takes, and what was done to get there."""

    messages: list[dict[str, Any]]  # a new list; unchanged messages are the caller's own
    tools: list[dict[str, Any]] | None  # None where they were written as text
    rules: tuple[str, ...]  # the rules that changed something, in order of use
    continue_final_message: bool


def normalise(
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    abilities: Abilities,
    chat: Chat,
    *,
    is_answered: bool = True,
) -> Normalised:
    """
    Apply the rules of `chat` that the template needs. The input is never changed.

    Args:
        is_answered: Whether the prompt ends where the model goes on; else no message is continued.

    Raises:
        RequestError: what is no message, or no image; with `chat.strict`, any conversation that a
            rule would have changed.
    """
    given = checked(messages)
    result, rules = _apply(given, Context(tools, abilities, chat))
    if chat.strict:
        if rules:
            raise _refusal(rules)
        return Normalised(given, tools, (), continue_final_message=False)
    continued = chat.prefill and is_answered and _is_prefill(given, result)
    if continued and abilities.strips_thoughts:
        result = [*result[:-1], without_thoughts(result[-1])]
        continued = not is_blank(result[-1]["content"])
    return Normalised(
        result,
        None if "tools_as_text" in rules else tools,
        (*rules, PREFILL) if continued else rules,
        continued,
    )


def helpful(
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    abilities: Abilities,
    chat: Chat,
) -> tuple[str, ...]:
    """The rules that are off and would have changed something, for a template's refusal."""
    off = [name for name, _ in RULES if not getattr(chat, name)]
    if not off:
        return ()
    on = chat.model_copy(update={name: Chat.model_fields[name].default for name in off})
    try:
        _, rules = _apply(checked(messages), Context(tools, abilities, on))
    except RequestError:
        return ()  # the rule would have refused too
    return tuple(name for name in rules if name in off)


def _apply(messages: list[Message], context: Context) -> tuple[list[Message], tuple[str, ...]]:
    used = []
    for name, rule in RULES:
        if getattr(context.chat, name):
            before, messages = messages, rule(messages, context)
            if messages is not before:
                used.append(name)
    return messages, tuple(used)


def _refusal(rules: tuple[str, ...]) -> RequestError:
    return RequestError(
        f"The messages need {', '.join(rules)} to fit the model's chat template, and chat.strict "
        "changes nothing; send them as the template takes them, or serve with chat.strict: false.",
        param="messages",
        code="strict_prompt",
    )


def _is_prefill(given: list[Message], result: list[Message]) -> bool:
    """Does the client's last message open the answer? A tool call does not, nor does silence."""
    if not result or result[-1]["role"] != "assistant" or is_blank(result[-1].get("content")):
        return False
    last = next((message for message in reversed(given) if not _is_silent(message)), None)
    return (
        last is not None and last["role"] in ("assistant", "model") and not last.get("tool_calls")
    )


def _is_silent(message: Message) -> bool:
    return (
        message["role"] in ("assistant", "model")
        and not message.get("tool_calls")
        and is_blank(message.get("content"))
    )
