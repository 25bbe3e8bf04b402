"""Which parts of a message are images, and what becomes of them."""

from __future__ import annotations

import asyncio
import copy
import threading
from typing import Any

import pytest

from gemma_serve.chat.media import ImageLoader, inline_images
from gemma_serve.chat.media import loader as loader_module
from gemma_serve.errors import RequestError
from tests.chat.evil_images import SETTINGS, data_url, noise, picture, saved

PNG = data_url(saved(picture(), "PNG"))
OTHER = data_url(saved(noise(), "PNG"))
TEXT = {"type": "text", "text": "What is this?"}
IMAGE = {"type": "image_url", "image_url": {"url": PNG}}


def inline(
    messages: list[dict[str, Any]], max_images: int = 4, takes_images: bool = True
) -> list[dict[str, Any]]:
    """The messages after all images are loaded."""

    async def run() -> list[dict[str, Any]]:
        loader = ImageLoader(SETTINGS)
        try:
            return await inline_images(messages, loader if takes_images else None, max_images)
        finally:
            await loader.aclose()

    return asyncio.run(run())


def user(*parts: Any) -> dict[str, Any]:
    """One user message of these parts."""
    return {"role": "user", "content": list(parts)}


def refusal(*parts: Any, **options: Any) -> RequestError:
    """Why a conversation that ends with these parts is refused."""
    with pytest.raises(RequestError) as caught:
        inline([{"role": "system", "content": "Hi"}, user(*parts)], **options)
    assert caught.value.status == 400
    assert len(caught.value.message) <= 300
    return caught.value


def test_messages_without_images_are_the_same_object() -> None:
    """Text costs a look at each part, and nothing is copied."""
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": []},
        user(TEXT, "plain", {**TEXT, "cache_control": {"type": "ephemeral"}}),
        {"role": "tool"},
    ]
    assert inline(messages) is messages
    assert inline(messages, takes_images=False) is messages


def test_image_is_replaced_and_the_input_kept() -> None:
    """Only the part with the image is new; the caller's messages stay as they were."""
    messages = [user(TEXT), user(TEXT, IMAGE, TEXT), {"role": "assistant", "content": "A cat."}]
    before = copy.deepcopy(messages)
    result = inline(messages)
    assert messages == before
    assert result[0] is messages[0]
    assert result[2] is messages[2]
    first, image, last = result[1]["content"]
    assert first is last is TEXT
    assert image.keys() == {"type", "image_url"}
    assert image["image_url"].keys() == {"url"}
    assert image["image_url"]["url"].startswith("data:image/bmp;base64,")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": PNG, "detail": "high"}},
        {"type": "image_url", "image_url": {"url": PNG}, "uuid": "someone-elses"},
        {"type": "image_url", "image_url": PNG},
        {"type": "input_image", "image_url": PNG, "detail": "auto"},
        {"image_url": {"url": PNG}},
        {"image_url": PNG, "uuid": "1"},
        {"type": "image_url", "image_url": {"url": PNG}, "video_url": {"url": "https://a.example"}},
    ],
)
def test_every_form_becomes_one(part: dict[str, Any]) -> None:
    """All forms of an image become the one; uuid, detail and other keys do not reach vLLM."""
    ((found,),) = [message["content"] for message in inline([user(part)])]
    assert found == inline([user(IMAGE)])[0]["content"][0]


def test_order_is_kept() -> None:
    """Images come back where they stood, whichever is decoded first."""
    other = {"type": "image_url", "image_url": {"url": OTHER}}
    result = inline([user(other, IMAGE), user(IMAGE, other)])
    urls = [part["image_url"]["url"] for message in result for part in message["content"]]
    assert urls[0] == urls[3] != urls[1] == urls[2]


def test_model_without_images_refuses_them() -> None:
    """A text-only model says so before anything is loaded."""
    error = refusal(TEXT, {"type": "image_url", "image_url": {"url": "x"}}, takes_images=False)
    assert (error.code, error.param) == ("images_not_supported", "messages[1].content[1]")


@pytest.mark.parametrize(("sent", "allowed"), [(2, 1), (65, 64), (1, 0)])
def test_too_many_images(sent: int, allowed: int) -> None:
    """Over images_per_prompt the numbers are named, and no image is decoded."""
    bad = {"type": "image_url", "image_url": {"url": "data:image/png;base64,!"}}
    error = refusal(*[bad] * sent, max_images=allowed)
    assert (error.code, error.param) == ("too_many_images", f"messages[1].content[{allowed}]")
    assert error.message == (
        f"The request has {sent} images; this server takes at most {allowed} (images_per_prompt)."
    )


@pytest.mark.parametrize(
    "kind",
    [
        "image_pil",
        "image_embeds",
        "audio_url",
        "input_audio",
        "video_url",
        "audio_embeds",
        "video_embeds",
        "prompt_embeds",
        "file",
        "input_file",
        "image",
    ],
)
def test_other_media_are_refused(kind: str) -> None:
    """Audio, video, embeddings and files are refused by type and by key, and named."""
    secret = "https://127.0.0.1/secret"
    for part in [{"type": kind, kind: {"url": secret}}, {kind: secret}, {**TEXT, kind: secret}]:
        error = refusal(IMAGE, part)
        assert (error.code, error.param) == ("unsupported_content", "messages[1].content[1]")
        assert repr(kind) in error.message
        assert secret not in error.message


@pytest.mark.parametrize("hidden", [{"image_url": "https://127.0.0.1/"}, {"uuid": "cached"}])
def test_media_hidden_in_text_is_refused(hidden: dict[str, Any]) -> None:
    """vLLM fetches a URL in a part of type text, if the part has a uuid; it never sees one."""
    for part in [TEXT | hidden, TEXT | hidden | {"uuid": "1"}]:
        assert refusal(part).code == "unsupported_content"


def test_null_keys_say_nothing() -> None:
    """Clients that write out every key of their own model are served."""
    messages = [user(TEXT | {"image_url": None, "input_audio": None, "uuid": None})]
    assert inline(messages) is messages


@pytest.mark.parametrize("source", [None, 5, [], {}, {"url": None}, {"url": 5}, {"url": [PNG]}])
@pytest.mark.parametrize("kind", ["image_url", "input_image"])
def test_image_without_url(kind: str, source: Any) -> None:
    """An image part must carry a string."""
    error = refusal({"type": kind, "image_url": source, "uuid": "cached"})
    assert (error.code, error.param) == ("invalid_image_url", "messages[1].content[0]")


@pytest.mark.parametrize("kind", [5, [], {}, True])
def test_odd_types_are_not_images(kind: Any) -> None:
    """A type that is no string does not bring us down; an image hidden behind it is refused."""
    assert refusal({"type": kind, "image_url": PNG}).code == "unsupported_content"


def test_failing_image_is_named() -> None:
    """With several images, param points at the one that is bad."""
    bad = {"type": "image_url", "image_url": {"url": data_url(b"nothing")}}
    error = refusal(IMAGE, TEXT, bad, IMAGE)
    assert (error.code, error.param) == ("invalid_image", "messages[1].content[2]")


def test_decoding_is_bounded_and_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many images of many requests are decoded by two threads, never by the event loop's."""
    seen: set[int] = set()
    decode = loader_module.to_data_url

    def noted(data: bytes, max_pixels: int) -> str:
        seen.add(threading.get_ident())
        return decode(data, max_pixels)

    monkeypatch.setattr(loader_module, "to_data_url", noted)

    async def crowd() -> None:
        loader = ImageLoader(SETTINGS)
        await asyncio.gather(*[inline_images([user(IMAGE, IMAGE)], loader, 4) for _ in range(20)])
        await loader.aclose()

    asyncio.run(crowd())
    assert 1 <= len(seen) <= loader_module.DECODERS
    assert threading.get_ident() not in seen


@pytest.mark.parametrize("content", [(IMAGE,), iter([IMAGE]), {"image_url": PNG}, 5, b"x"])
def test_content_that_can_not_be_looked_at_is_refused(content: Any) -> None:
    """vLLM would read images out of any iterable; only lists get past us."""
    with pytest.raises(RequestError) as caught:
        inline([{"role": "user", "content": content}])
    assert (caught.value.code, caught.value.param) == ("unsupported_content", "messages[0].content")
