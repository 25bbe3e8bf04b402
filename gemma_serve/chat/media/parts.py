"""
Finds the images in a request's messages and puts checked bytes in their place.

vLLM takes a part for media by any of its keys, whatever its type says, fetches what it finds and
trusts a `uuid` as the name of an image in its cache (0.32, renderers/chat_utils.py). So every part
that is not plain text is either written anew here or refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gemma_serve.chat.media.loader import ImageLoader
from gemma_serve.errors import RequestError

_IMAGE_TYPES = frozenset({"image_url", "input_image"})
# In the order in which an error names them.
_OTHER_MEDIA = (
    "image",
    "image_pil",
    "image_embeds",
    "audio",
    "audio_url",
    "audio_embeds",
    "input_audio",
    "video",
    "video_url",
    "video_embeds",
    "prompt_embeds",
    "file",
    "input_file",
    "uuid",
)
_OTHER_TYPES = frozenset(_OTHER_MEDIA)
_TEXT_KEYS = frozenset({"type", "text"})

Message = dict[str, Any]


@dataclass(frozen=True)
class _Image:
    """Where an image stands, and its URL as it was sent."""

    message: int
    part: int
    url: str

    @property
    def param(self) -> str:
        return _param(self.message, self.part)


async def inline_images(
    messages: list[Message], loader: ImageLoader | None, max_images: int
) -> list[Message]:
    """
    The messages with every image as a data: URL of checked bytes.

    Messages without images come back as the same object. The input is never changed.

    Args:
        loader: None where the model takes no images.
        max_images: how many images the request may carry.

    Raises:
        RequestError: images_not_supported, too_many_images, unsupported_content, or what
            `ImageLoader.load` raises; `param` names the part.
    """
    images = list(_images_in(messages))
    if not images:
        return messages
    sources = [(image.url, image.param) for image in images]
    return _replaced(messages, images, await load_images(sources, loader, max_images))


async def load_images(
    sources: Sequence[tuple[str, str]], loader: ImageLoader | None, max_images: int
) -> list[str]:
    """
    Images of a request as data: URLs of checked bytes.

    Args:
        sources: The URL of each, and the parameter that an error names.

    Raises:
        RequestError: as `inline_images`.
    """
    if loader is None:
        raise RequestError(
            "This server takes no images with this model; send text only, or use a multimodal "
            "Gemma without text_only.",
            code="images_not_supported",
            param=sources[0][1],
        )
    if len(sources) > max_images:
        raise RequestError(
            f"The request has {len(sources)} images; this server takes at most {max_images} "
            "(images_per_prompt).",
            code="too_many_images",
            param=sources[max_images][1],
        )
    return await _load_all(sources, loader)


def _images_in(messages: list[Message]) -> Iterator[_Image]:
    for at, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list):
            for position, part in enumerate(content):
                if isinstance(part, dict) and not _is_plain_text(part):
                    yield from _image_in(part, at, position)
        elif content is not None and not isinstance(content, str):
            # vLLM reads any iterable: what is not looked at here must not get there.
            raise RequestError(
                "A message's content must be a string, null or a list of parts.",
                code="unsupported_content",
                param=f"messages[{at}].content",
            )


def _is_plain_text(part: dict[str, Any]) -> bool:
    return part.get("type") == "text" and part.keys() == _TEXT_KEYS


def _image_in(part: dict[str, Any], message: int, position: int) -> Iterator[_Image]:
    """The part's image, if it has one; a key that is null says nothing."""
    param = _param(message, position)
    kind = part.get("type")
    if kind is None and part.get("image_url") is not None:
        kind = "image_url"
    if not (isinstance(kind, str) and kind in _IMAGE_TYPES):
        _refuse_other_media(part, param)
        return
    source = part.get("image_url")
    url = source.get("url") if isinstance(source, dict) else source
    if not isinstance(url, str):
        raise RequestError(
            'An image part has no URL; send {"type": "image_url", "image_url": {"url": "data:..."}}'
            " with a string.",
            code="invalid_image_url",
            param=param,
        )
    yield _Image(message, position, url)


def _refuse_other_media(part: dict[str, Any], param: str) -> None:
    kind = part.get("type")
    named = [key for key in (*_OTHER_MEDIA, "image_url") if part.get(key) is not None]
    found = kind if isinstance(kind, str) and kind in _OTHER_TYPES else next(iter(named), None)
    if found is not None:
        raise RequestError(
            f"Content {found!r} in a part is not supported here; a part is text, or an image "
            "as type image_url.",
            code="unsupported_content",
            param=param,
        )


def _param(message: int, part: int) -> str:
    return f"messages[{message}].content[{part}]"


async def _load_all(sources: Sequence[tuple[str, str]], loader: ImageLoader) -> list[str]:
    """All at once; how many are worked on is the loader's to bound. One failure ends the rest."""
    tasks = [asyncio.ensure_future(loader.load(url, param=param)) for url, param in sources]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _replaced(messages: list[Message], images: list[_Image], urls: list[str]) -> list[Message]:
    """Whole new parts: `detail`, `uuid` and unknown keys do not pass."""
    changed = list(messages)
    for at in {image.message for image in images}:
        changed[at] = {**messages[at], "content": list(messages[at]["content"])}
    for image, url in zip(images, urls, strict=True):
        part = {"type": "image_url", "image_url": {"url": url}}
        changed[image.message]["content"][image.part] = part
    return changed
