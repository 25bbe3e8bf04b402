"""
Image parts in the shape that vLLM takes: `{"type": "image_url", "image_url": {"url": ...}}`.

Hugging Face's parts (`{"type": "image"}` with url, image or base64) and those of OpenAI's Responses
become that one. Nothing is fetched or decoded here, and a file of this machine is never named.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from gemma_serve.chat.parts import Message, Part
from gemma_serve.chat.shapes import refuse

_URLS = ("https://", "http://", "data:")
_SOURCES = ("url", "image", "base64", "path", "image_url")
_HEAD_CHARS = 24  # of base64: the 18 bytes that tell the formats apart
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_WANTED = "give an https URL, a data URL, or base64 of a PNG, JPEG, WEBP or GIF"


def convert_image_parts(messages: list[Message]) -> list[Message]:
    """
    The messages with every image part as image_url; the same list where there is none to change.

    Raises:
        RequestError: an image part without an image, or with a local file.
    """
    if list not in [type(message.get("content")) for message in messages]:
        return messages
    changed = [_message(index, message) for index, message in enumerate(messages)]
    return changed if any(a is not b for a, b in zip(messages, changed, strict=True)) else messages


def _message(index: int, message: Message) -> Message:
    content = message.get("content")
    if not isinstance(content, list) or not any(_is_foreign(part) for part in content):
        return message
    where = f"messages[{index}].content"
    parts = [
        _converted(f"{where}[{position}]", part) if _is_foreign(part) else part
        for position, part in enumerate(content)
    ]
    return {**message, "content": parts}


def _is_foreign(part: Part) -> bool:
    kind = part.get("type")
    return (
        kind == "image"
        or kind == "input_image"
        or (kind == "image_url" and isinstance(part.get("image_url"), str))
    )


def _converted(where: str, part: Part) -> Part:
    others = {key: part[key] for key in ("detail", "uuid") if part.get(key) is not None}
    return {"type": "image_url", "image_url": {"url": _url(where, part)}, **others}


def _url(where: str, part: Part) -> str:
    if part["type"] == "image":
        key = next((key for key in _SOURCES if part.get(key) is not None), None)
    else:
        key = "image_url" if part.get("image_url") is not None else None
    if key is None:
        refuse(where, f"is an image part without an image; {_WANTED}")
    value: Any = part[key]
    if isinstance(value, dict):
        value = value.get("url")
    if not isinstance(value, str):
        refuse(f"{where}.{key}", f"must be a string; {_WANTED}")
    return _checked_url(f"{where}.{key}", key, value)


def _checked_url(where: str, key: str, value: str) -> str:
    if value[:8].lower().startswith(_URLS):
        return value
    mime = _sniffed(value) if key in ("base64", "image") else None
    if mime is None:
        refuse(where, f"is neither a URL nor an image (files are not opened); {_WANTED}")
    return f"data:{mime};base64,{''.join(value.split())}"


def _sniffed(text: str) -> str | None:
    """The media type that the first bytes tell, None for other formats and for no base64."""
    head = "".join(text[: 2 * _HEAD_CHARS].split())[:_HEAD_CHARS]
    try:
        data = base64.b64decode(head, validate=True)
    except (binascii.Error, ValueError):
        return None
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return next((mime for magic, mime in _MAGIC if data.startswith(magic)), None)
