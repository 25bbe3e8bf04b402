"""How much a request holds: characters, and levels of nesting, of which code that recurses dies."""

from __future__ import annotations

from typing import Any

from gemma_serve.errors import RequestError

# Of messages, tools and arguments; JSON Schemas of tools rarely pass 20.
MAX_DEPTH = 64
_IMAGE_TYPES = ("image_url", "image", "input_image")


def text_chars(value: Any) -> int:
    """
    Characters in all strings below a value.

    Raises:
        RequestError: the value is nested deeper than `MAX_DEPTH`.
    """
    chars, level = 0, [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                chars += len(item)
            elif isinstance(item, dict):
                below += item
                below += item.values()
            elif isinstance(item, list | tuple):
                below += item
        if not below:
            return chars
        level = below
    raise RequestError(
        f"The request is nested deeper than {MAX_DEPTH} levels; send flatter messages and tools."
    )


def is_deeper(value: Any, levels: int) -> bool:
    """Whether objects and lists nest deeper than so many levels."""
    level = [value]
    for _ in range(levels + 1):
        holders = [item for item in level if isinstance(item, dict | list | tuple)]
        if not holders:
            return False
        level = [
            below
            for item in holders
            for below in (item.values() if isinstance(item, dict) else item)
        ]
    return True


def without_images(message: Any) -> Any:
    """The message without the image parts of its content: they are limited in bytes and pixels."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return message
    return {**message, "content": [part for part in content if not _is_image(part)]}


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _IMAGE_TYPES
