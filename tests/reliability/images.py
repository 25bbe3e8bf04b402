"""Classes G1 and G2: images that are none, too large or too clever, and where they may be from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.chat.evil_images import bad_images, data_url, good_images
from tests.chat.test_media_urls import BAD_URLS
from tests.reliability.case import MESSAGES, OK, Case, chat, post


def bad_files() -> Iterator[Case]:
    """Class G1: what must be refused, and what is odd but good."""
    for name, url in bad_images().items():
        yield chat(f"G1 {name}", messages=_turn(url))
    for name, (file, _) in good_images().items():
        yield chat(f"G1 good: {name}", OK, messages=_turn(data_url(file)))
    for name, url in list(bad_images().items())[::8]:
        source = {"type": "base64", "media_type": "image/png", "data": url.partition(",")[2]}
        turn = {"role": "user", "content": [{"type": "image", "source": source}]}
        message = {"model": "tiny", "max_tokens": 1, "messages": [turn]}
        yield post(f"G1 {name}, Anthropic", MESSAGES, message)
    picture = next(iter(good_images().values()))[0]
    yield chat("G1 65 images", messages=_turn(*[data_url(picture)] * 65))


def bad_urls() -> Iterator[Case]:
    """Class G2: addresses that are nobody's business; fetching is off, as by default."""
    for url in BAD_URLS:
        yield chat(f"G2 {url[:60]!r}", messages=_turn(url))


def _turn(*urls: str) -> list[dict[str, Any]]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *parts]}]
