"""
Which Gemma a checkpoint is, and what follows from that alone.

config.json and the tokenizer decide; the model's name plays no part, as a fine-tune may be called
anything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
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

    @property
    def end_of_turn(self) -> str:
        """The token that closes a turn."""
        return "<turn|>" if self is Generation.GEMMA_4 else "<end_of_turn>"


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

# Gemma 3 has no parser of its own in vLLM 0.32 (tool_parsers/__init__.py): its published convention
# is a list of Python calls, which needs a chat template that asks for them.
TOOL_CALL_PARSERS = {
    Generation.GEMMA_3: "pythonic",
    Generation.GEMMA_3N: "pythonic",
    Generation.GEMMA_4: "gemma4",
}
FUNCTION_CALLING_PARSER = "functiongemma"
REASONING_PARSERS = {Generation.GEMMA_4: "gemma4"}

# FunctionGemma is a Gemma 3 whose unused tokens got a meaning, and so a name.
# Source: vLLM 0.32 tool_parsers/functiongemma_tool_parser.py and the model card.
FUNCTION_TOKENS = frozenset({"<start_function_call>", "<end_function_call>", "<escape>"})

# The id of `Generation.end_of_turn` where the tokenizer is not at hand.
_END_OF_TURN_IDS = {Generation.GEMMA_1: 107, Generation.GEMMA_2: 107}
_END_OF_TURN_ID = 106


@dataclass(frozen=True)
class Family:
    """What kind of Gemma a checkpoint is."""

    generation: Generation
    instruction_tuned: bool | None  # None: not known without fetching more
    function_calling: bool  # FunctionGemma and what is tuned from it

    @property
    def label(self) -> str:
        """The name as people write it."""
        return "FunctionGemma" if self.function_calling else self.generation.label

    @property
    def tool_call_parser(self) -> str | None:
        """vLLM's parser for the format that it calls tools in, None where it has none."""
        if self.function_calling:
            return FUNCTION_CALLING_PARSER
        return TOOL_CALL_PARSERS.get(self.generation)

    @property
    def reasoning_parser(self) -> str | None:
        """vLLM's parser for the format that it thinks in, None where it does not."""
        return REASONING_PARSERS.get(self.generation)


def family_of(
    config: Mapping[str, Any],
    generation_config: Mapping[str, Any],
    added_tokens: Mapping[str, int],
    has_chat_template: bool | None,
) -> Family | None:
    """
    The family that a checkpoint's files describe; None where it is not Gemma.

    Args:
        config: Its config.json.
        generation_config: Its generation_config.json, empty where it has none.
        added_tokens: The added tokens of its tokenizer, empty where that is not at hand.
        has_chat_template: None where that is not known.
    """
    generation = generation_of(config)
    if generation is None:
        return None
    end_of_turn = added_tokens.get(
        generation.end_of_turn, _END_OF_TURN_IDS.get(generation, _END_OF_TURN_ID)
    )
    ends_turns = end_of_turn in (*eos_token_ids(config), *eos_token_ids(generation_config))
    return Family(
        generation,
        instruction_tuned=True if ends_turns else has_chat_template,
        function_calling=is_function_calling(added_tokens),
    )


def is_function_calling(added_tokens: Collection[str]) -> bool:
    """Whether a tokenizer has the tokens of FunctionGemma."""
    return FUNCTION_TOKENS.issubset(added_tokens)


def eos_token_ids(config: Mapping[str, Any]) -> list[int]:
    """The `eos_token_id` of a config.json or generation_config.json, which is an id or a list."""
    eos = config.get("eos_token_id")
    if eos is None:
        eos = (config.get("text_config") or {}).get("eos_token_id") or []
    return [eos] if isinstance(eos, int) else list(eos)


def generation_of(config: Mapping[str, Any]) -> Generation | None:
    """The generation that a config.json describes; None where it is not Gemma."""
    if model_type := config.get("model_type"):
        return _BY_MODEL_TYPE.get(str(model_type))
    for architecture in config.get("architectures") or ():
        if generation := GENERATIVE_ARCHITECTURES.get(architecture):
            return generation
    return None
