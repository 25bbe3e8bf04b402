"""Text that is a chat: JSON in `text_input`, and the request parameters that go with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gemma_serve.engine.pieces import ChatPrompt, TextPrompt
from gemma_serve.errors import RequestError

# Request parameters that no backend of Triton's knows; the first asks for the chat template alone.
CHAT_PARAMETERS = ("chat", "chat_template_kwargs", "tools", "tool_choice")


def read_prompt(
    text: str, parameters: Mapping[str, Any], *, lists_are_chats: bool
) -> TextPrompt | ChatPrompt:
    """
    A prompt as plain text, or as a chat.

    Args:
        lists_are_chats: A JSON list is a chat without further ado, as in the python backend. Else
            only with one of `CHAT_PARAMETERS`, with which plain text is one user message.

    Raises:
        RequestError: a JSON list that is no chat, or a parameter that can't be read.
    """
    wants_chat = any(parameters.get(name) not in (None, False) for name in CHAT_PARAMETERS)
    messages = _messages(text) if lists_are_chats or wants_chat else None
    if messages is None and not wants_chat:
        return TextPrompt(text)
    return ChatPrompt(
        messages if messages is not None else [{"role": "user", "content": text}],
        _json_parameter(parameters, "tools", list),
        _tool_choice(parameters.get("tool_choice")),
        _json_parameter(parameters, "chat_template_kwargs", dict),
    )


def _messages(text: str) -> list[dict[str, Any]] | None:
    if not text.lstrip().startswith("["):
        return None
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None  # text that happens to begin with a bracket
    is_chat = bool(parsed) and all(isinstance(item, dict) and "role" in item for item in parsed)
    if not is_chat:
        raise RequestError(
            "text_input is a JSON list and no chat; send plain text, or a list of messages such as "
            '[{"role": "user", "content": "..."}].',
            param="text_input",
        )
    return list(parsed)


def _json_parameter(parameters: Mapping[str, Any], name: str, kind: type) -> Any:
    """A parameter that is JSON in a string, as gRPC needs it, or JSON itself."""
    value = parameters.get(name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = ...
    if value is None or isinstance(value, kind):
        return value or None
    what = "a list" if kind is list else "an object"
    raise RequestError(f"The parameter {name!r} must be {what} in JSON.", param=name)


def _tool_choice(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        return _json_parameter({"tool_choice": value}, "tool_choice", dict)
    return value
