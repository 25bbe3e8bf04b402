"""
Tools in words, for templates that have no place for them.

The convention is the one that Google publishes for Gemma 3 (ai.google.dev, Function calling with
Gemma): declarations as JSON before the conversation, calls as a Python list `[f(a=1), g()]`, which
vLLM's `pythonic` parser reads back. Results come in `<tool_response>`, as in vLLM's example
template for Gemma 3.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from gemma_serve.chat.abilities import Abilities
from gemma_serve.chat.parts import Content, Message, as_string, join_contents, merge_messages
from gemma_serve.chat.shapes import refuse

_INSTRUCTION = (
    "You can call functions. To call some, answer with nothing but a Python list of the calls, "
    'with keyword arguments and literal values, such as [one(city="Rome", days=2), other()]. '
    "Add no words and no Markdown to it. If no function helps, or you do not know a value that "
    "one needs, say so in words instead.\n"
    "The functions, as JSON:\n"
)
_OPEN, _CLOSE = "<tool_response>", "</tool_response>"
_DECLARED = ("name", "description", "parameters")


def write_tools_as_text(
    messages: list[Message], tools: list[dict[str, Any]] | None, abilities: Abilities
) -> list[Message]:
    """
    The messages with declarations, calls and results as text; the same list where there are none.

    Raises:
        RequestError: a declaration without a name, or one that is nested too deep to write.
    """
    if any(message["role"] == "tool" or message.get("tool_calls") for message in messages):
        messages = _conversation(messages)
    return _opened(messages, declarations_text(tools), abilities) if tools else messages


def declarations_text(tools: list[dict[str, Any]]) -> str:
    """How to call, and what: one JSON object a line, as short as JSON gets without being packed."""
    lines = [_declaration(index, tool) for index, tool in enumerate(tools)]
    return _INSTRUCTION + "\n".join(lines)


def calls_text(calls: Iterable[dict[str, Any]]) -> str:
    """Calls, whose arguments are objects, as a Python list: `[get_weather(city="Paris")]`."""
    return f"[{', '.join(_call(call['function']) for call in calls)}]"


def result_content(content: Content, name: str | None) -> Content:
    """A result between its tags, after the function's name where that is known."""
    opening = f"{_OPEN}\n{name}: " if name else f"{_OPEN}\n"
    text = as_string(content)
    if text is not None:
        return f"{opening}{text}\n{_CLOSE}"
    parts = content if isinstance(content, list) else []
    return [{"type": "text", "text": opening}, *parts, {"type": "text", "text": f"\n{_CLOSE}"}]


def _declaration(index: int, tool: dict[str, Any]) -> str:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        refuse(f"tools[{index}]", "must be an object with a function that has a name")
    declared = {key: function[key] for key in _DECLARED if function.get(key) is not None}
    try:
        return json.dumps(declared, ensure_ascii=False)
    except (RecursionError, TypeError, ValueError):
        refuse(f"tools[{index}].function.parameters", "can't be written as JSON")


def _opened(messages: list[Message], text: str, abilities: Abilities) -> list[Message]:
    """The conversation with the text in its system message, or else in its first user turn."""
    first = messages[0]["role"] if messages else None
    if first == "system":
        system = {**messages[0], "content": join_contents([messages[0].get("content"), text])}
        return [system, *messages[1:]]
    if abilities.system:
        return [{"role": "system", "content": text}, *messages]
    if first == "user":
        user = {**messages[0], "content": join_contents([text, messages[0].get("content")])}
        return [user, *messages[1:]]
    return [{"role": "user", "content": text}, *messages]


def _conversation(messages: list[Message]) -> list[Message]:
    """Calls as assistant text, each run of results as one user turn."""
    names: dict[str, str] = {}
    written: list[Message] = []
    for is_result, run in groupby(messages, key=lambda message: message["role"] == "tool"):
        if is_result:
            written.append(merge_messages([_result(message, names) for message in run]))
        else:
            written.extend(_answer(message, names) for message in run)
    return written


def _answer(message: Message, names: dict[str, str]) -> Message:
    """The message with its calls as text; notes which id is whose."""
    calls = message.get("tool_calls")
    if message["role"] != "assistant" or not calls:
        return message
    for call in calls:
        if isinstance(call.get("id"), str):
            names[call["id"]] = call["function"]["name"]
    content = join_contents([message.get("content"), calls_text(calls)])
    return {**{k: message[k] for k in message if k != "tool_calls"}, "content": content}


def _result(message: Message, names: dict[str, str]) -> Message:
    call_id, name = message.get("tool_call_id"), message.get("name")
    if isinstance(call_id, str):
        name = names.get(call_id, name)
    known = name if isinstance(name, str) else None
    return {"role": "user", "content": result_content(message.get("content"), known)}


def _call(function: dict[str, Any]) -> str:
    try:
        arguments = ", ".join(f"{k}={_literal(v)}" for k, v in function["arguments"].items())
    except (RecursionError, ValueError):
        refuse("messages", "hold a tool call whose arguments are nested too deep to write")
    return f"{function['name']}({arguments})"


def _literal(value: Any) -> str:
    """A JSON value as Python writes it; JSON's escapes in strings are Python's too."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_literal(k)}: {_literal(v)}' for k, v in value.items())}}}"
    return repr(value)
