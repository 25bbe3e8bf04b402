"""The sampling parameters of clients who write them in JSON, before vLLM's models read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gemma_serve.errors import RequestError

# What a client may set of a completion; the rest is ours, or would get around the prompt layer.
SAMPLING = frozenset(
    {
        "allowed_token_ids",
        "bad_words",
        "frequency_penalty",
        "ignore_eos",
        "include_stop_str_in_output",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "min_p",
        "min_tokens",
        "n",
        "presence_penalty",
        "repetition_penalty",
        "response_format",
        "seed",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "stop",
        "stop_token_ids",
        "structured_outputs",
        "temperature",
        "top_k",
        "top_p",
        "truncate_prompt_tokens",
    }
)


def check_sampling(sampling: Mapping[str, Any]) -> None:
    """
    Refuse names that are not known, and what `check_values` refuses.

    Raises:
        RequestError: with the parameter's name as `param`.
    """
    unknown = sorted(sampling.keys() - SAMPLING)
    if unknown:
        raise RequestError(
            f"The sampling parameter {unknown[0][:60]!r} is not known; use "
            f"{', '.join(sorted(SAMPLING))}.",
            param=unknown[0][:60],
        )
    check_values(sampling)


def check_values(sampling: Mapping[str, Any]) -> None:
    """
    Refuse values that vLLM's models take and its engine fails on.

    Raises:
        RequestError: with the parameter's name as `param`.
    """
    for name, value in sampling.items():
        _check_text(name, value)
    structured = sampling.get("structured_outputs")
    if structured is not None and not isinstance(structured, dict):
        raise RequestError(
            'structured_outputs must be an object, such as {"regex": "[0-9]+"}.',
            param="structured_outputs",
        )


def _check_text(name: str, value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RequestError(f"{name} has a lone surrogate; send valid UTF-8.", param=name) from None
    except RecursionError:
        raise RequestError(f"{name} is nested too deep; send flatter JSON.", param=name) from None
