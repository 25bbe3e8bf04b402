"""Sampling defaults: the checkpoint's where it has them, Gemma's otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemma_serve.gemma.checkpoint import read_checkpoint
from tests.engine.derive import derive

MODEL = "google/gemma-3-27b-it"
GEMMA = {"temperature": 1.0, "top_k": 64, "top_p": 0.95}


def overrides(directory: Path, known: dict[str, Any] | None, **keys: Any) -> Any:
    """What vLLM is told to sample with, for a checkpoint with this generation_config.json."""
    checkpoint = replace(read_checkpoint(MODEL, download=False), generation_config=known)
    resolved = derive(directory, "h100", model=MODEL, checkpoint=checkpoint, **keys)
    return resolved.engine_kwargs().get("override_generation_config")


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, GEMMA),
        ({"eos_token_id": 1}, GEMMA),
        ({"top_k": 20}, {"temperature": 1.0, "top_p": 0.95}),
        (GEMMA, None),
        (None, None),
    ],
)
def test_gemmas_defaults_fill_what_the_checkpoint_leaves_out(
    tmp_path: Path, known: dict[str, Any] | None, expected: Any
) -> None:
    """The checkpoint's own values stay; where its file is not known, nothing is assumed."""
    assert overrides(tmp_path, known) == expected


def test_longest_answer(tmp_path: Path) -> None:
    """limits.max_tokens caps every answer, through vLLM's max_new_tokens."""
    keys = {"limits": {"max_tokens": 100}}
    assert overrides(tmp_path, GEMMA, **keys) == {"max_new_tokens": 100}
    assert overrides(tmp_path, {}, **keys) == {**GEMMA, "max_new_tokens": 100}


def test_engine_section_wins(tmp_path: Path) -> None:
    """What `engine:` says is passed on word for word."""
    keys = {"engine": {"override_generation_config": {"temperature": 0.5}}}
    assert overrides(tmp_path, {}, **keys) == {"temperature": 0.5}
