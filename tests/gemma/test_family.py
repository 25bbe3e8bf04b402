"""The generation of a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

from gemma_serve.gemma.family import Generation, generation_of


@pytest.mark.parametrize(
    ("config", "generation"),
    [
        ({"model_type": "gemma"}, Generation.GEMMA_1),
        ({"model_type": "gemma2"}, Generation.GEMMA_2),
        ({"model_type": "gemma3"}, Generation.GEMMA_3),
        ({"model_type": "gemma3_text"}, Generation.GEMMA_3),
        ({"model_type": "gemma3n"}, Generation.GEMMA_3N),
        ({"model_type": "gemma4"}, Generation.GEMMA_4),
        ({"model_type": "gemma4_unified"}, Generation.GEMMA_4),
        ({"architectures": ["Gemma2ForCausalLM"]}, Generation.GEMMA_2),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, None),
        ({"model_type": "paligemma"}, None),
        ({"model_type": "gemma4_assistant"}, None),
        ({"_name_or_path": "google/gemma-3-4b-it"}, None),
        ({}, None),
    ],
)
def test_config_decides_the_generation(
    config: dict[str, Any], generation: Generation | None
) -> None:
    """model_type and architectures decide; a name never does."""
    assert generation_of(config) == generation
