"""Conversations in short, and the prompts that the packaged templates make of them."""

from __future__ import annotations

import dataclasses
from functools import cache
from importlib import resources
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from gemma_serve.chat.abilities import Abilities, abilities_of
from gemma_serve.chat.messages import Normalised, normalise
from gemma_serve.profile.schema import Chat

GEMMA1, GEMMA2, GEMMA3 = "gemma1", "gemma2", "gemma3"
# What every Gemma 4 template takes: all of it, a system message only in its own turn.
EVERYTHING = Abilities(*[True] * len(dataclasses.fields(Abilities)))


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def model(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def image(url: str = "https://example.com/cat.png") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def call(name: str, arguments: Any = "{}", call_id: str = "call_1") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def tool(content: Any, call_id: str | None = "call_1") -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": call_id}


@cache
def template(name: str) -> str:
    """The text of a packaged template."""
    path = resources.files("gemma_serve") / f"chat/templates/{name}.jinja"
    return path.read_text("utf-8")


def render(
    name: str,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None = None,
    generate: bool = True,
    go_on: bool = False,
) -> str:
    """The prompt, with images as vLLM hands them to a template."""
    seen = [{**message, "content": _shown(message.get("content"))} for message in messages]
    texts, _ = render_jinja_template(
        conversations=[seen],
        tools=tools,
        chat_template=template(name),
        bos_token="<bos>",
        add_generation_prompt=generate and not go_on,
        continue_final_message=go_on,
    )
    return str(texts[0])


@cache
def abilities(name: str) -> Abilities:
    """What a packaged template does by itself, tried as vLLM's renderer tries it."""
    return abilities_of(lambda messages, tools: render(name, messages, tools, generate=False))


def normalised(
    name: str,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None = None,
    **rules: Any,
) -> Normalised:
    """The conversation as the rules, by default all of them, make it for a packaged template."""
    return normalise(messages, tools, abilities(name), Chat(**rules))


def prompt(
    name: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None
) -> str:
    """The prompt that a request becomes."""
    result = normalised(name, messages, tools)
    return render(name, result.messages, result.tools)


def _shown(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return [{"type": "image"} if part.get("type") == "image_url" else part for part in content]
