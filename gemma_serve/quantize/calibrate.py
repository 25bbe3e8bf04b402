"""
Largest magnitudes of activations and of the KV cache, measured on text that the user gives.

Runs the checkpoint in bf16 through transformers on the CPU, from its files (`offloaded`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, DynamicCache

from gemma_serve.engine.heap import give_back_freed_memory
from gemma_serve.errors import QuantizeError
from gemma_serve.quantize import offloaded
from gemma_serve.quantize.layers import decoder_module

# No longer than the smallest sliding window, so that every layer sees all of a row.
SEQUENCE_TOKENS = 512
MAX_TOKENS = 32_768
MIN_TOKENS = 512
MOST_CHARACTERS = 32  # of a token, on average: more of a file is not even read

Peaks = dict[str, float]


def input_peaks(checkpoint: Path, text: Path, say: Callable[[str], None]) -> Peaks:
    """
    Decoder module -> largest magnitude of what enters it.

    Raises:
        QuantizeError: The text can't be read or is too short, or a peak is no scale's.
    """
    peaks: Peaks = defaultdict(float)
    sequences = _sequences(checkpoint, text, say)
    model = offloaded.load(checkpoint)
    for name, module in model.named_modules():
        if (key := decoder_module(name)) is not None:
            module.register_forward_pre_hook(_observe(peaks, key))
    offloaded.run(model, sequences)
    return _all_positive(peaks)


def kv_peaks(checkpoint: Path, text: Path, say: Callable[[str], None]) -> Peaks:
    """
    "layers.N.self_attn.k" and ".v" -> largest magnitude of the layer's keys and values, as cached.

    Raises:
        QuantizeError: The text can't be read or is too short, or a peak is no scale's.
    """
    peaks: Peaks = defaultdict(float)
    sequences = _sequences(checkpoint, text, say)
    offloaded.run(offloaded.load(checkpoint), sequences, _PeakCache(peaks))
    return _all_positive(peaks)


class _PeakCache(DynamicCache):  # type: ignore[misc]  # transformers is not typed for us
    """
    Notes the largest magnitudes of what is cached, and keeps none of it.

    transformers' own cache of a layer with a sliding window drops the first token where the row is
    as long as the window, and that is BOS, whose keys are unlike all others.
    """

    def __init__(self, peaks: Peaks) -> None:
        super().__init__()
        self._peaks = peaks

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_args: Any,
        **_kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What attention sees: these keys and values, (rows, heads, tokens, head_dim) each."""
        for letter, states in (("k", key_states), ("v", value_states)):
            _raise_peak(self._peaks, f"layers.{layer_idx}.self_attn.{letter}", states)
        return key_states, value_states


def _observe(peaks: Peaks, key: str) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
    def hook(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        _raise_peak(peaks, key, inputs[0])

    return hook


def _raise_peak(peaks: Peaks, key: str, values: torch.Tensor) -> None:
    # As of NaN: max() would keep the peak as it was, and nobody would know.
    peak = float(torch.stack(torch.aminmax(values)).abs().max())
    if not math.isfinite(peak):
        raise QuantizeError(
            f"Calibration met NaN or infinite values at {key!r}, which no scale fits; fetch the "
            "checkpoint again, or repair it."
        )
    peaks[key] = max(peaks[key], peak)


def _all_positive(peaks: Peaks) -> Peaks:
    zeros = sorted(key for key, peak in peaks.items() if peak == 0)
    if zeros:
        more = f" and {len(zeros) - 1} more" if len(zeros) > 1 else ""
        raise QuantizeError(
            f"Calibration met nothing but zeros at {zeros[0]!r}{more}, from which no scale "
            "follows; give text like that which the model will read, or fetch the checkpoint again."
        )
    return dict(peaks)


def _sequences(checkpoint: Path, text: Path, say: Callable[[str], None]) -> list[torch.Tensor]:
    """The text's tokens in rows of SEQUENCE_TOKENS, each behind a BOS."""
    try:
        with text.open(encoding="utf-8") as stream:
            content = stream.read(MAX_TOKENS * MOST_CHARACTERS)
    except (OSError, ValueError) as error:
        raise QuantizeError(
            f"The calibration text {str(text)!r} can't be read ({error}); name a UTF-8 text file."
        ) from None
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    # Not verbose: it would warn that the model can't read the whole text at once.
    tokens = tokenizer(content, add_special_tokens=False, verbose=False).input_ids[:MAX_TOKENS]
    if len(tokens) < MIN_TOKENS:
        raise QuantizeError(
            f"The calibration text {str(text)!r} has {len(tokens)} tokens; give at least "
            f"{MIN_TOKENS} (the first {MAX_TOKENS:,} are used) of what the model will read."
        )
    say(f"Calibrating on {len(tokens):,} tokens of {text}")
    bos, step = tokenizer.bos_token_id, SEQUENCE_TOKENS - 1
    del tokenizer
    give_back_freed_memory()
    rows = [tokens[start : start + step] for start in range(0, len(tokens), step)]
    return [torch.tensor([[bos, *row]]) for row in rows]
