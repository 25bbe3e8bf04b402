"""The profile that serves a quantised checkpoint, written beside its weights."""

from __future__ import annotations

from pathlib import Path

import yaml

from gemma_serve.profile.load import list_profiles
from gemma_serve.quantize.schemes import About

FILE = "profile.yaml"


def write_profile(
    directory: Path, destination: Path, source: str, scheme: str, about: About
) -> None:
    """
    Write profile.yaml.

    Args:
        directory: Where to.
        destination: Where the checkpoint will stand, as an absolute path.
    """
    profile: dict[str, object] = {}
    if base := _profile_of(source):
        profile["extends"] = base
    profile |= {
        "model": str(destination),
        "dtype": about.dtype,
        "served_model_name": destination.name,
        "meta": {"description": f"{source} quantised by gemma-serve: {scheme}"},
    }
    if scheme == "kv-fp8":
        profile["kv_cache_dtype"] = "fp8"
    text = yaml.safe_dump(profile, sort_keys=False, allow_unicode=True)
    if scheme == "q4_0":
        text += (
            "env:\n"
            "  # With AMX, vLLM would round activations to int8 too: faster, and not this grid.\n"
            '  VLLM_CPU_INT4_W4A8: "0"\n'
        )
    head = "# Written by gemma-serve quantize; `model` is where the checkpoint stood then.\n"
    (directory / FILE).write_text(head + text, encoding="utf-8")


def _profile_of(source: str) -> str | None:
    """The packaged bf16 profile of a checkpoint, if there is one."""
    found = (known for known in list_profiles() if known.model == source and known.dtype == "bf16")
    return next((known.name for known in found), None)
