"""
A Gemma that computes on the CPU straight from its files, with one module's weights in memory.

transformers leaves the weights where they are (device_map "disk"), and hooks of accelerate map
those of a module in when it computes and let go of them after. The price is that each batch reads
the whole checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from transformers import AutoConfig, AutoModelForCausalLM, Cache

from gemma_serve.errors import QuantizeError

# What the intermediate values of one batch may take; a batch has one row at least.
BATCH_BYTES = 128 * 1024 * 1024


def load(checkpoint: Path) -> Any:
    """
    A model whose weights are read when they are used.

    Raises:
        QuantizeError: A package is missing that the model needs.
    """
    if find_spec("accelerate") is None:
        raise QuantizeError(
            "Calibration runs the model from its files through accelerate, which is not installed; "
            "install gemma-serve[quantize]."
        )
    options: dict[str, Any] = {"experts_implementation": "eager"}  # no copies of all experts
    if _has_soft_cap(AutoConfig.from_pretrained(checkpoint)):
        options["attn_implementation"] = "eager"  # the one that knows Gemma 2's soft-cap
    try:
        with _quiet("accelerate.big_modeling"):  # says that weights are on the disk
            model = AutoModelForCausalLM.from_pretrained(
                checkpoint, dtype=torch.bfloat16, device_map={"": "disk"}, **options
            )
    except ImportError as error:  # of towers, which are built though nothing is computed in them
        first = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise QuantizeError(
            f"transformers can't build {checkpoint} without another package: {first.strip()}"
        ) from error
    return model.eval()


def run(model: Any, rows: Sequence[torch.Tensor], cache: Cache | None = None) -> None:
    """
    Compute the decoder over rows of token ids; what it says is dropped.

    Args:
        rows: (1, tokens) each.
        cache: What is told of each layer's keys and values. Must keep nothing from row to row.
    """
    console = Console(stderr=True)
    batches = list(_batches(rows, max(1, BATCH_BYTES // _row_bytes(model, rows[0].shape[1]))))
    shown = track(
        batches, "  Calibrating", console=console, transient=True, disable=not console.is_terminal
    )
    with torch.inference_mode():
        for batch in shown:
            # Not the head: its logits would be the largest tensor by far, and nobody asks.
            model.base_model(input_ids=batch, past_key_values=cache, use_cache=cache is not None)


def _has_soft_cap(config: Any) -> bool:
    return bool(getattr(config.get_text_config(), "attn_logit_softcapping", None))


def _batches(rows: Sequence[torch.Tensor], size: int) -> Iterator[torch.Tensor]:
    """Up to `size` rows of one length at a time."""
    for _, group in groupby(rows, key=lambda row: row.shape[1]):
        alike = list(group)
        for start in range(0, len(alike), size):
            yield torch.cat(alike[start : start + size])


def _row_bytes(model: Any, num_tokens: int) -> int:
    """
    The most that one row's intermediate values take, about.

    In bf16 four as wide as the MLP, or the residual and a norm's float32 copies of it; and where
    attention is eager, its scores in bf16, in float32, and as probabilities.
    """
    text = model.config.get_text_config()
    widths = text.intermediate_size  # 3n has one for each layer
    widest = max(widths) if isinstance(widths, Sequence) else widths
    row = num_tokens * max(8 * widest, 16 * text.hidden_size)
    if _has_soft_cap(model.config):
        row += text.num_attention_heads * num_tokens**2 * (2 + 4 + 2)
    return int(row)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """No warnings of a library's logger."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
