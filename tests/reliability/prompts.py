"""Class F: templates, tools, roles and control tokens that are wrong or hostile, over four APIs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.api import test_bad_templates_and_tools as tables
from tests.chat.attacks import ATTACKS
from tests.reliability.case import EITHER, MESSAGES, RESPONSES, Case, chat, post

CONTEXT_CHARS = 8_000  # of an attack that is to fit the context of the tests' profile


def cases() -> Iterator[Case]:
    """All of them."""
    for name, template in tables.TEMPLATES.items():
        yield chat(f"F template {name}", chat_template=template)
    for name, variables in tables.VARIABLES.items():
        if name != "long":  # the tests' server takes no body of this size
            yield chat(f"F template variable {name}", chat_template_kwargs=variables)
    for name, text in tables.JINJA.items():
        yield chat(f"F Jinja {name}", EITHER, messages=[{"role": "user", "content": text}])
        tool = {"type": "function", "function": {"name": text, "description": text}}
        yield chat(f"F Jinja in a tool, {name}", EITHER, tools=[tool])
    for name, change in tables.TOOLS.items():
        yield chat(f"F tools: {name}", **change)
        yield chat(f"F tools, streamed: {name}", stream=True, **change)
    for name, messages in tables.MESSAGES.items():
        yield chat(f"F messages: {name}", messages=messages)
    for name, answer in tables.ANSWERS.items():
        turns = [tables.USER, {"role": "assistant"} | answer, tables.USER]
        yield chat(f"F calls: {name}", messages=turns)
    yield from _attacks()


def _attacks() -> Iterator[Case]:
    """Text that tries to be a turn, an image or a call: it stays text, and is answered."""
    for attack in ATTACKS:
        tools: dict[str, Any] = {"tools": attack.tools} if attack.tools else {}
        yield chat(f"F attack {attack.name}", EITHER, messages=attack.messages, **tools)
        if len(attack.messages) == 1 and isinstance(text := attack.messages[0]["content"], str):
            turn = {"role": "user", "content": text[:CONTEXT_CHARS]}
            message = {"model": "tiny", "max_tokens": 1, "messages": [turn]}
            yield post(f"F attack {attack.name}, Anthropic", MESSAGES, message, EITHER)
            yield post(f"F attack {attack.name}, responses", RESPONSES, {"input": text}, EITHER)
