"""Which Gemma a checkpoint is, by its files."""

from __future__ import annotations

from typing import Any

import pytest

from gemma_serve.gemma.family import Generation, family_of, generation_of

FUNCTION_TOKENS = {"<start_function_call>": 48, "<end_function_call>": 49, "<escape>": 52}
GEMMA_3: dict[str, Any] = {"model_type": "gemma3_text"}


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
    family = family_of(config, {}, {}, has_chat_template=None)
    assert (family.generation if family else None) == generation


@pytest.mark.parametrize(
    ("config", "generation_config", "added_tokens", "has_chat_template", "tuned"),
    [
        (GEMMA_3, {}, {}, True, True),
        (GEMMA_3, {}, {}, False, False),
        (GEMMA_3, {}, {}, None, None),
        (GEMMA_3 | {"eos_token_id": [1, 106]}, {}, {}, None, True),
        (GEMMA_3 | {"eos_token_id": 1}, {"eos_token_id": [1, 106]}, {}, False, True),
        (GEMMA_3 | {"eos_token_id": 1}, {"eos_token_id": 1}, {}, None, None),
        (GEMMA_3, {"eos_token_id": [1, 9]}, {"<end_of_turn>": 9}, None, True),
        (GEMMA_3, {"eos_token_id": [1, 106]}, {"<end_of_turn>": 9}, False, False),
        ({"model_type": "gemma2"}, {"eos_token_id": [1, 107]}, {}, None, True),
        ({"model_type": "gemma2"}, {"eos_token_id": [1, 106]}, {}, None, None),
        ({"model_type": "gemma4"}, {"eos_token_id": [1, 9]}, {"<turn|>": 9}, None, True),
        ({"model_type": "gemma3", "text_config": {"eos_token_id": 106}}, {}, {}, None, True),
    ],
)
def test_instruction_tuned(
    config: dict[str, Any],
    generation_config: dict[str, Any],
    added_tokens: dict[str, int],
    has_chat_template: bool | None,
    tuned: bool | None,
) -> None:
    """A chat template shows it, or an end of turn that ends answers; else it may be unknown."""
    family = family_of(config, generation_config, added_tokens, has_chat_template)
    assert family is not None
    assert family.instruction_tuned is tuned


def test_function_gemma_is_known_by_its_tokens() -> None:
    """Its config.json is that of Gemma 3 270M; only its tokenizer tells."""
    family = family_of(GEMMA_3, {}, FUNCTION_TOKENS, has_chat_template=True)
    assert family is not None
    assert family.function_calling
    assert (family.label, family.tool_call_parser) == ("FunctionGemma", "functiongemma")
    other = family_of(GEMMA_3, {}, {"<escape>": 52}, has_chat_template=True)
    assert other is not None
    assert (other.function_calling, other.label) == (False, "Gemma 3")


@pytest.mark.parametrize(
    ("model_type", "tools", "reasoning"),
    [
        ("gemma", None, None),
        ("gemma2", None, None),
        ("gemma3", "pythonic", None),
        ("gemma3n", "pythonic", None),
        ("gemma4", "gemma4", "gemma4"),
    ],
)
def test_parsers_by_family(model_type: str, tools: str | None, reasoning: str | None) -> None:
    """Each family has the parsers of the formats that it calls tools and thinks in."""
    family = family_of({"model_type": model_type}, {}, {}, has_chat_template=None)
    assert family is not None
    assert (family.tool_call_parser, family.reasoning_parser) == (tools, reasoning)


@pytest.mark.parametrize("generation", Generation)
def test_end_of_turn(generation: Generation) -> None:
    """Gemma 4 renamed the token that closes a turn."""
    expected = "<turn|>" if generation == Generation.GEMMA_4 else "<end_of_turn>"
    assert generation.end_of_turn == expected
