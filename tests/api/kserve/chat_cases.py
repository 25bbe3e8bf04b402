"""Texts that are no chat, and request parameters that no chat can have."""

from __future__ import annotations

import json
from typing import Any

from tests.api.kserve.refusals import MARKER

USER = {"role": "user", "content": MARKER}
CALL = {"role": "assistant", "content": MARKER, "tool_calls": "lamp()"}


def nested(levels: int, *, in_objects: bool = False) -> str:
    """JSON of so many levels."""
    if in_objects:
        return '{"a":' * levels + "1" + "}" * levels
    return "[" * levels + "]" * levels


def tool(name: Any = "lamp", **more: Any) -> dict[str, Any]:
    """A tool as OpenAI has it."""
    return {"type": "function", "function": {"name": name, **more}}


# `text_input`: a JSON list, and no chat.
CHATS = {
    "numbers": "[1,2]",
    "empty": "[]",
    "empty with space": " \n[ ] ",
    "null": "[null]",
    "strings": json.dumps([MARKER]),
    "a list in the list": "[[]]",
    "an empty object": "[{}]",
    "no role": json.dumps([{"content": MARKER}]),
    "a number for a role": json.dumps([{"role": 5, "content": MARKER}]),
    "a number for a role alone": '[{"role": 5}]',
    "a list for a role": json.dumps([{"role": ["user"], "content": MARKER}]),
    "null for a role": json.dumps([{"role": None, "content": MARKER}]),
    "unknown role": json.dumps([{"role": "wizard", "content": MARKER}]),
    "template in the role": json.dumps([{"role": "{{ 7*7 }}", "content": MARKER}]),
    "one of two is no message": json.dumps([USER, MARKER]),
    "a number for content": json.dumps([{"role": "user", "content": 7}]),
    "an object for content": json.dumps([{"role": "user", "content": {"text": MARKER}}]),
    "a number for a part": json.dumps([{"role": "user", "content": [7]}]),
    "unknown part": json.dumps([{"role": "user", "content": [{"type": "smell"}]}]),
    "a part without text": json.dumps([{"role": "user", "content": [{"type": "text"}]}]),
    "a number for text": json.dumps([{"role": "user", "content": [{"type": "text", "text": 7}]}]),
    "an image": json.dumps(
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": MARKER}}]}]
    ),
    "a file": json.dumps(
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}]
    ),
    "calls that are no list": json.dumps([USER, CALL, USER]),
    "too many messages": json.dumps([USER] * 2049),
    "longer than the context": json.dumps([{"role": "user", "content": f"{MARKER} " * 2_000}]),
    "a lone surrogate": json.dumps([{"role": "user", "content": f"\ud800{MARKER}"}]),
    "a lone surrogate in a part": json.dumps(
        [{"role": "user", "content": [{"type": "text", "text": f"{MARKER}\udfff"}]}]
    ),
    "a lone surrogate in a role": json.dumps([{"role": "\ud800", "content": MARKER}]),
    **{
        f"{levels} levels of content": f'[{{"role": "user", "content": {nested(levels)}}}]'
        for levels in (65, 300, 900)
    },
    **{
        f"{levels} levels beside content": json.dumps([USER | {"more": {}}]).replace(
            "{}", nested(levels, in_objects=True)
        )
        for levels in (65, 300, 900)
    },
}

# Request parameters, as JSON in a string: so gRPC has them, and HTTP may.
PARAMETERS: dict[str, str] = {
    "tools, no JSON": MARKER,
    "tools, empty text": "",
    "tools, half": '[{"type": ',
    "tools, an object": json.dumps(tool()),
    "tools, a number": "5",
    "tools, true": "true",
    "tools, NaN": "NaN",
    "tools, numbers": "[1]",
    "tools, strings": json.dumps([MARKER]),
    "tools, no function": json.dumps([{"type": "function"}]),
    "tools, no name": json.dumps([{"type": "function", "function": {"description": MARKER}}]),
    "tools, a number for a name": json.dumps([tool(7)]),
    "tools, a list for parameters": json.dumps([tool(parameters=[MARKER])]),
    "tools, 129": json.dumps([tool(f"f{number}") for number in range(129)]),
    "tools, a lone surrogate": json.dumps([tool(description=f"\ud800{MARKER}")]),
    **{
        f"tools, {levels} levels": json.dumps([tool(parameters={})]).replace(
            "{}", nested(levels, in_objects=True)
        )
        for levels in (65, 300, 900, 20_000)
    },
    "chat_template_kwargs, no JSON": MARKER,
    "chat_template_kwargs, empty text": "",
    "chat_template_kwargs, half": '{"a": ',
    "chat_template_kwargs, a list": "[1]",
    "chat_template_kwargs, a number": "5",
    "chat_template_kwargs, unknown": '{"colour": "red"}',
    "chat_template_kwargs, template": '{"chat_template": "{{ 7*7 }}"}',
    "chat_template_kwargs, messages": json.dumps({"messages": [USER]}),
    "chat_template_kwargs, bos": '{"bos_token": ""}',
    "chat_template_kwargs, text": json.dumps({"add_generation_prompt": f"{MARKER} and more"}),
    "chat_template_kwargs, list": '{"add_generation_prompt": [1]}',
    "chat_template_kwargs, surrogate": '{"add_generation_prompt": "\\ud800"}',
    "chat_template_kwargs, surrogate name": '{"\\ud800": 1}',
    **{
        f"chat_template_kwargs, {levels} levels": nested(levels, in_objects=True)
        for levels in (65, 300, 900, 20_000)
    },
    "tool_choice, required of none": "required",
    "tool_choice, auto of none": "auto",
    "tool_choice, unknown": "sometimes",
    "tool_choice, half": '{"type": "function"',
    "tool_choice, no function": '{"type": "function"}',
    "tool_choice, no name": '{"type": "function", "function": {}}',
    "tool_choice, name of none": json.dumps(tool()),
}
