"""Triton's users' words for a precision, and ours."""

from __future__ import annotations

from dataclasses import dataclass

from gemma_serve.triton.importing.findings import Draft, Outcome, Setting

FP16 = "Gemma overflows in fp16; bf16 takes the same memory"


@dataclass(frozen=True)
class _Precision:
    dtype: str
    outcome: Outcome
    reason: str


_FP16 = _Precision("bf16", "changed", FP16)
_BF16 = _Precision("bf16", "renamed", "the same precision")
_FP32 = _Precision("fp32", "renamed", "the same precision, at twice the memory of bf16")
_AUTO = _Precision("bf16", "renamed", "what Gemma's checkpoints are stored in")
_WORDS = {
    "float16": _FP16,
    "half": _FP16,
    "fp16": _FP16,
    "bfloat16": _BF16,
    "bf16": _BF16,
    "float32": _FP32,
    "float": _FP32,
    "fp32": _FP32,
    "auto": _AUTO,
}


def import_dtype(draft: Draft, setting: Setting) -> None:
    """Write `dtype` for a precision as vLLM, PyTorch or transformers call it."""
    if "dtype" in draft.values:
        draft.drop(setting, f"dtype: {draft.values['dtype']} is said already")
        return
    word = str(setting.value).strip().lower().removeprefix("torch.")
    found = _WORDS.get(word)
    if found is None:
        draft.drop(
            setting, "no precision that is known here, or one that the code decides; dtype is bf16"
        )
        return
    draft.must_put(setting, ("dtype",), found.dtype, found.reason, found.outcome)
