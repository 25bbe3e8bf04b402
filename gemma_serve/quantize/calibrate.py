"""
Largest magnitudes of activations and of the KV cache, measured on text that the user gives.

Runs the whole checkpoint in bf16 through transformers on the CPU, so that it needs the memory of
the model and a little more.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from transformers import AutoModelForCausalLM, AutoTokenizer

from gemma_serve.errors import QuantizeError
from gemma_serve.quantize.layers import decoder_module

# No longer than the smallest sliding window, so that a layer's cache holds every key.
SEQUENCE_TOKENS = 512
MAX_TOKENS = 32_768
MIN_TOKENS = 512

Peaks = dict[str, float]


def input_peaks(checkpoint: Path, text: Path, say: Callable[[str], None]) -> Peaks:
    """
    Decoder module -> largest magnitude of what enters it.

    Raises:
        QuantizeError: The text can't be read or is too short, or a peak is no scale's.
    """
    peaks: Peaks = defaultdict(float)
    sequences = _sequences(checkpoint, text, say)
    model = _load(checkpoint, say)
    for name, module in model.named_modules():
        if (key := decoder_module(name)) is not None:
            module.register_forward_pre_hook(_observe(peaks, key))
    for _ in _outputs(model, sequences, use_cache=False):
        pass
    return _all_positive(peaks)


def kv_peaks(checkpoint: Path, text: Path, say: Callable[[str], None]) -> Peaks:
    """
    "layers.N.self_attn.k" and ".v" -> largest magnitude of the layer's keys and values, as cached.

    Raises:
        QuantizeError: The text can't be read or is too short, or a peak is no scale's.
    """
    peaks: Peaks = defaultdict(float)
    sequences = _sequences(checkpoint, text, say)
    model = _load(checkpoint, say)
    for output in _outputs(model, sequences, use_cache=True):
        for number, layer in enumerate(output.past_key_values.layers):
            for letter, states in (("k", layer.keys), ("v", layer.values)):
                _raise_peak(peaks, f"layers.{number}.self_attn.{letter}", states)
    return _all_positive(peaks)


def _observe(peaks: Peaks, key: str) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
    def hook(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        _raise_peak(peaks, key, inputs[0])

    return hook


def _raise_peak(peaks: Peaks, key: str, values: torch.Tensor) -> None:
    # As of NaN: max() would keep the peak as it was, and nobody would know.
    peak = float(values.abs().max())
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
        content = text.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise QuantizeError(
            f"The calibration text {str(text)!r} can't be read ({error}); name a UTF-8 text file."
        ) from None
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokens = tokenizer(content, add_special_tokens=False).input_ids[:MAX_TOKENS]
    if len(tokens) < MIN_TOKENS:
        raise QuantizeError(
            f"The calibration text {str(text)!r} has {len(tokens)} tokens; give at least "
            f"{MIN_TOKENS} (the first {MAX_TOKENS:,} are used) of what the model will read."
        )
    say(f"Calibrating on {len(tokens):,} tokens of {text}")
    step = SEQUENCE_TOKENS - 1
    rows = [tokens[start : start + step] for start in range(0, len(tokens), step)]
    return [torch.tensor([[tokenizer.bos_token_id, *row]]) for row in rows]


def _load(checkpoint: Path, say: Callable[[str], None]) -> Any:
    say("  Loading the model in bf16")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    return model.eval()


def _outputs(model: Any, sequences: list[torch.Tensor], *, use_cache: bool) -> Iterator[Any]:
    console = Console(stderr=True)
    shown = track(
        sequences, "  Calibrating", console=console, transient=True, disable=not console.is_terminal
    )
    with torch.inference_mode():
        for row in shown:
            # No logits but the last token's: those of all would be the largest tensor by far.
            yield model(input_ids=row, use_cache=use_cache, logits_to_keep=1)
