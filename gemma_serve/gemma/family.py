"""Which Gemma generation a checkpoint is of, and what follows from that alone."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Generation(StrEnum):
    """A Gemma generation; the value is what Google puts after the name."""

    GEMMA_1 = "1"
    GEMMA_2 = "2"
    GEMMA_3 = "3"
    GEMMA_3N = "3n"
    GEMMA_4 = "4"

    @property
    def label(self) -> str:
        """The generation's full name, as people write it."""
        return f"Gemma {self.value}"


_BY_MODEL_TYPE = {
    "gemma": Generation.GEMMA_1,
    "gemma2": Generation.GEMMA_2,
    "gemma3": Generation.GEMMA_3,
    "gemma3_text": Generation.GEMMA_3,
    "gemma3n": Generation.GEMMA_3N,
    "gemma3n_text": Generation.GEMMA_3N,
    "gemma4": Generation.GEMMA_4,
    "gemma4_text": Generation.GEMMA_4,
    "gemma4_unified": Generation.GEMMA_4,
    "gemma4_unified_text": Generation.GEMMA_4,
}

# Source: vLLM 0.32 model_executor/models/registry.py.
GENERATIVE_ARCHITECTURES = {
    "GemmaForCausalLM": Generation.GEMMA_1,
    "Gemma2ForCausalLM": Generation.GEMMA_2,
    "Gemma3ForCausalLM": Generation.GEMMA_3,
    "Gemma3ForConditionalGeneration": Generation.GEMMA_3,
    "Gemma3nForCausalLM": Generation.GEMMA_3N,
    "Gemma3nForConditionalGeneration": Generation.GEMMA_3N,
    "Gemma4ForCausalLM": Generation.GEMMA_4,
    "Gemma4ForConditionalGeneration": Generation.GEMMA_4,
    "Gemma4UnifiedForConditionalGeneration": Generation.GEMMA_4,
}

# Gemma 3 has no parser of its own in vLLM 0.32 (tool_parsers/__init__.py); its calls are Python
# expressions, which need a chat template that asks for them.
TOOL_CALL_PARSERS = {Generation.GEMMA_4: "gemma4"}
REASONING_PARSERS = {Generation.GEMMA_4: "gemma4"}


def generation_of(config: Mapping[str, Any]) -> Generation | None:
    """
    The generation that a config.json describes; None where it is not Gemma.

    The model's name plays no part: a fine-tune may be called anything.
    """
    if model_type := config.get("model_type"):
        return _BY_MODEL_TYPE.get(str(model_type))
    for architecture in config.get("architectures") or ():
        if generation := GENERATIVE_ARCHITECTURES.get(architecture):
            return generation
    return None
