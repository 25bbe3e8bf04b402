"""How much a request may hold, wherever it is put."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gemma_serve.chat.prompts import PromptLayer
from gemma_serve.chat.size import MAX_DEPTH, text_chars, without_images
from gemma_serve.errors import PayloadTooLargeError, RequestError
from gemma_serve.profile.schema import Chat, Limits
from tests.chat.conversation import GEMMA3, abilities, call, image, model, text, user
from tests.chat.test_guard import small

MAX_CHARS = 10_000
MUCH = "x" * (MAX_CHARS + 1)
LAYER = PromptLayer(Chat(), Limits(max_text_chars=MAX_CHARS), small(), None, 0, [])


def deep(levels: int = 900) -> dict[str, Any]:
    """An object in an object, as deep as JSON parsers still go."""
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def declared(parameters: Any) -> list[dict[str, Any]]:
    """A tool with these parameters."""
    return [{"type": "function", "function": {"name": "f", "parameters": parameters}}]


def prepared(name: str, messages: list[dict[str, Any]], tools: Any = None) -> Any:
    """What the prompt layer makes of a conversation for a packaged template."""
    return asyncio.run(LAYER.prepare(messages, tools, abilities(name)))


def test_characters_are_those_of_all_strings() -> None:
    """Keys and values count, at every level; numbers do not."""
    assert text_chars({"ab": ["c", {"d": ("efg",)}], "h": 1, "i": None}) == 9


def test_depth_is_bounded() -> None:
    """As many levels as allowed are counted, one more is refused."""
    assert text_chars(deep(MAX_DEPTH)) == MAX_DEPTH - 1
    with pytest.raises(RequestError, match=f"nested deeper than {MAX_DEPTH} levels"):
        text_chars(deep(MAX_DEPTH + 1))


def test_images_are_left_out_of_the_content_alone() -> None:
    """An image part has limits of its own; all else of the message is counted."""
    message = user([text("a"), image(MUCH)]) | {"type": "image"}
    assert without_images(message) == user([text("a")]) | {"type": "image"}
    assert without_images(user("a")) == user("a")
    assert without_images(MUCH) == MUCH


LONG = {
    "message": ([user(MUCH)], None),
    "part": ([user([text(MUCH)])], None),
    "unknown key of a message": ([user("a") | {"x": MUCH}], None),
    "message that calls itself an image": ([user(MUCH) | {"type": "image"}], None),
    "key that calls itself an image": ([user("a") | {"x": {"type": "image", "y": MUCH}}], None),
    "schema that calls itself an image": ([user("a")], declared({"type": "image", "x": MUCH})),
    "arguments": ([user("a"), model("", tool_calls=[call("f", {"a": MUCH})])], None),
    "arguments as text": (
        [user("a"), model("", tool_calls=[call("f", json.dumps({"a": MUCH}))])],
        None,
    ),
}


@pytest.mark.parametrize(("messages", "tools"), LONG.values(), ids=LONG)
@pytest.mark.parametrize("name", [GEMMA3, "gemma4"])
def test_text_counts_wherever_it_stands(name: str, messages: Any, tools: Any) -> None:
    """Text over the limit is refused, whatever the object around it says that it is."""
    with pytest.raises(PayloadTooLargeError, match=r"limits\.max_text_chars"):
        prepared(name, messages, tools)


DEEP = {
    "unknown key of a message": ([user("a") | {"x": deep()}], None),
    "key that calls itself an image": ([user("a") | {"x": {"type": "image", "y": deep()}}], None),
    "part": ([user([text("a") | {"x": deep()}])], None),
    "schema": ([user("a")], declared(deep())),
    "schema that calls itself an image": ([user("a")], declared({"type": "image", "x": deep()})),
    "arguments": ([user("a"), model("", tool_calls=[call("f", deep())])], None),
    "arguments as text": ([user("a"), model("", tool_calls=[call("f", json.dumps(deep()))])], None),
}


@pytest.mark.parametrize(("messages", "tools"), DEEP.values(), ids=DEEP)
@pytest.mark.parametrize("name", [GEMMA3, "gemma4"])
def test_depth_counts_wherever_it_stands(name: str, messages: Any, tools: Any) -> None:
    """What would end a function that recurses is refused, also where only a string holds it."""
    with pytest.raises(RequestError, match=f"nested deeper than {MAX_DEPTH} levels"):
        prepared(name, messages, tools)
