"""How answers are sampled where a request does not say, and how long they may be."""

from __future__ import annotations

from typing import Any

from gemma_serve.engine.settings import DEFAULT, Context, Derived, Setting

# What Google publishes in the generation_config.json of Gemma 3, 3n and 4.
GEMMA_SAMPLING = {"temperature": 1.0, "top_k": 64, "top_p": 0.95}


def generation_args(context: Context) -> Derived:
    """
    Defaults of the sampling parameters; a request's own win.

    vLLM takes them from generation_config.json; converted and older checkpoints leave them out.
    """
    known = context.checkpoint.generation_config
    value: dict[str, Any] = {}
    if known is not None:
        value = {key: default for key, default in GEMMA_SAMPLING.items() if key not in known}
    reason = "the checkpoint's generation_config.json does not say; these are Gemma's"
    origin = DEFAULT
    limit = context.profile.limits.max_tokens
    if limit is not None:
        value |= {"max_new_tokens": limit}
        origin = context.origin("limits.max_tokens")
        reason = "no answer is longer than max_new_tokens; the rest is Gemma's sampling"
    if value:
        yield Setting("override_generation_config", value, origin, reason)
