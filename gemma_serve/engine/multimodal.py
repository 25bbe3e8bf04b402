"""
Engine arguments of images: how many, how large, and what the model sees of them.

Gemma 3n and 4 also take audio, 4 takes video; our API takes images only, so vLLM gets 0 for those.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from gemma_serve.engine.settings import Context, Derived, Setting
from gemma_serve.errors import ProfileError
from gemma_serve.gemma.family import Generation

_IMAGE_KEYS = ("images_per_prompt", "images.pan_and_scan", "images.max_soft_tokens")
# The one generation whose image processor knows the key.
# Source: vLLM 0.32 model_executor/models/gemma3_mm.py, gemma4_mm.py.
_GENERATION_OF = {
    "images.pan_and_scan": Generation.GEMMA_3,
    "images.max_soft_tokens": Generation.GEMMA_4,
}
# Sources: transformers 5.19, models/gemma3: configuration and processing (the image and 4 crops).
_GEMMA_3_TOKENS_PER_IMAGE = 256
_MAX_CROPS = 4


def multimodal_args(context: Context) -> Derived:
    """
    How many images one prompt may hold, and what the model's image processor makes of each.

    Raises:
        ProfileError: The tokens of one image would fill the whole context.
    """
    profile = context.profile
    if not context.checkpoint.is_multimodal:
        yield from _without_effect(
            context, ("text_only", *_IMAGE_KEYS), "the model takes text only"
        )
    elif profile.text_only:
        reason = "towers are not loaded, and their memory goes to the KV cache"
        yield Setting("language_model_only", True, context.origin("text_only"), reason)
        yield from _without_effect(context, _IMAGE_KEYS, "text_only leaves the image tower out")
    elif profile.images_per_prompt == 0:
        yield _items_per_prompt(context)
        yield from _without_effect(context, _IMAGE_KEYS, "images_per_prompt is 0")
    else:
        yield _items_per_prompt(context)
        yield from _processor_args(context)
        if context.on_cpu and context.checkpoint.bidirectional_image_attention:
            yield (
                "On CPU, image tokens get causal attention: "
                "answers about images differ from a GPU's."
            )


def _items_per_prompt(context: Context) -> Setting:
    asked, modalities = context.profile.images_per_prompt, context.checkpoint.modalities
    images = context.profile.max_images
    limits = {name: images if name == "image" else 0 for name in modalities}
    reason = "vLLM would take 999 images in one request" if asked is None else "as the profile asks"
    if others := [name for name in modalities if name != "image"]:
        reason += f"; no {' or '.join(others)}: requests carry text and images only"
    return Setting("limit_mm_per_prompt", limits, context.origin("images_per_prompt"), reason)


def _processor_args(context: Context) -> Derived:
    generation = context.checkpoint.generation
    for key, known_by in _GENERATION_OF.items():
        if generation != known_by:
            yield from _without_effect(context, (key,), f"only {known_by.label} has it")
    images = context.profile.images
    if images.pan_and_scan and generation == Generation.GEMMA_3:
        tokens = context.checkpoint.config.get("mm_tokens_per_image", _GEMMA_3_TOKENS_PER_IMAGE)
        yield _processor_arg(
            context,
            "pan_and_scan",
            {"do_pan_and_scan": True},
            f"an image that is not square comes with up to {_MAX_CROPS} crops: "
            f"up to {tokens * (1 + _MAX_CROPS)} tokens instead of {tokens}",
        )
    if images.max_soft_tokens and generation == Generation.GEMMA_4:
        _check_fits(context, images.max_soft_tokens)
        value = {"max_soft_tokens": images.max_soft_tokens}
        yield _processor_arg(
            context, "max_soft_tokens", value, "an image becomes at most this many tokens"
        )


def _processor_arg(context: Context, key: str, value: dict[str, Any], reason: str) -> Setting:
    return Setting("mm_processor_kwargs", value, context.origin(f"images.{key}"), reason)


def _check_fits(context: Context, tokens: int) -> None:
    longest = context.profile.max_model_len or context.checkpoint.max_position_embeddings
    if longest and tokens >= longest:
        raise ProfileError(
            f"images.max_soft_tokens {tokens} leaves no room in a context of {longest} tokens; "
            "lower it, or raise max_model_len."
        )


def _without_effect(context: Context, keys: Collection[str], why: str) -> Iterator[str]:
    """One note for each key that was asked for and that nothing comes of."""
    for key in keys:
        value: Any = context.profile
        for name in key.split("."):
            value = getattr(value, name)
        if value:
            yield f"{key} has no effect: {why}."
