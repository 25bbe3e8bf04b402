"""
Are the messages messages at all, before anything looks inside.

What comes out has dicts for parts, dicts for the arguments of tool calls, and no legacy names.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from gemma_serve.chat.parts import TEXT_KEYS, Message, Part
from gemma_serve.chat.size import text_chars
from gemma_serve.errors import RequestError

ROLES = ("system", "developer", "user", "assistant", "model", "tool", "function")
# OpenAI's name before tools; and what Google's agent kit sends to Gemma 4 (adk-python #5655).
_TOOL_ALIASES = frozenset({"function", "tool_responses"})
_KNOWN = frozenset(ROLES) | _TOOL_ALIASES
_MODEL = frozenset({"assistant", "model"})
_ECHO_CHARS = 30


def checked(messages: Any) -> list[Message]:
    """
    A new list of the messages, each as it was unless it had to be read (arguments, legacy names).

    Raises:
        RequestError: with `param` saying where, such as `messages[3].content[0]`.
    """
    if not isinstance(messages, list):
        refuse("messages", "must be a list of objects with a role and content")
    return [checked_message(f"messages[{index}]", each) for index, each in enumerate(messages)]


def checked_message(where: str, message: Any) -> Message:
    """
    One message as in `checked`.

    Raises:
        RequestError: with `param` saying where in it, such as `messages[3].content[0]`.
    """
    if not isinstance(message, dict):
        refuse(where, "must be an object with a role and content")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in _KNOWN:
        _refuse_role(where, role)
    changes: Message = {}
    if content is not None and not isinstance(content, str):
        parts = _parts(f"{where}.content", content)
        if parts is not content:
            changes["content"] = parts
    if role in _TOOL_ALIASES:
        changes["role"] = "tool"
    if role in _MODEL and (message.get("tool_calls") or message.get("function_call")):
        changes["tool_calls"] = _calls(where, message)
        message = {key: message[key] for key in message if key != "function_call"}
    return {**message, **changes} if changes else message


def refuse(where: str, fault: str) -> NoReturn:
    """Refuse the request for what stands at `where`."""
    raise RequestError(f"{where} {fault}.", param=where)


def _refuse_role(where: str, role: Any) -> NoReturn:
    is_what = f"is {role[:_ECHO_CHARS]!r}" if isinstance(role, str) else "is no string"
    refuse(f"{where}.role", f"{is_what}; use {', '.join(ROLES[:-1])} or {ROLES[-1]}")


def _parts(where: str, content: Any) -> list[Part]:
    """The parts, bare strings among them made text parts; the same list where there are none."""
    if not isinstance(content, list):
        refuse(where, "must be a string or a list of parts")
    for index, part in enumerate(content):
        if not isinstance(part, str):
            _check_part(where, index, part)
    if not any(isinstance(part, str) for part in content):
        return content
    return [{"type": "text", "text": p} if isinstance(p, str) else p for p in content]


def _check_part(where: str, index: int, part: Any) -> None:
    kind = part.get("type", "") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        refuse(f"{where}[{index}]", "must be a string or an object with a type")
    key = TEXT_KEYS.get(kind)
    if key and not isinstance(part.get(key), str):
        refuse(f"{where}[{index}].{key}", "must be a string")


def _calls(where: str, message: Message) -> list[dict[str, Any]]:
    where = f"{where}.tool_calls"
    calls = message.get("tool_calls") or [{"function": message["function_call"]}]
    if not isinstance(calls, list):
        refuse(where, "must be a list")
    return [_call(f"{where}[{position}]", call) for position, call in enumerate(calls)]


def _call(where: str, call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        refuse(where, "must be an object with a function")
    if not isinstance(function.get("name"), str) or not function["name"]:
        refuse(f"{where}.function.name", "must be a string that is not empty")
    arguments = function.get("arguments")
    if not isinstance(arguments, dict):
        arguments = _arguments(f"{where}.function.arguments", arguments)
    return {"type": "function", **call, "function": {**function, "arguments": arguments}}


def _arguments(where: str, arguments: Any) -> dict[str, Any]:
    """The arguments as an object; clients send '' where a function takes none."""
    if arguments is None or arguments == "":
        return {}
    try:
        parsed = json.loads(arguments, parse_constant=_no_constant)
    except (TypeError, ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        refuse(where, "must be a JSON object, or a string that holds one")
    text_chars(parsed)  # refuses what is nested too deep, as it does where no string hides it
    return parsed


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's
