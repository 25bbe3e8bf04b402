"""The packaged facts about official checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gemma_serve.gemma.architecture import Checkpoint
from gemma_serve.gemma.checkpoint import read_checkpoint
from gemma_serve.gemma.facts import facts_for, known_ids
from gemma_serve.gemma.family import GENERATIVE_ARCHITECTURES, generation_of


@pytest.mark.parametrize("model", known_ids())
def test_every_known_id_is_a_generative_gemma(model: str) -> None:
    """Facts name the generation twice, by type and by architecture, and both agree."""
    facts = facts_for(model)
    assert facts is not None
    generation = generation_of(facts.config)
    assert generation is not None
    assert generation == GENERATIVE_ARCHITECTURES[facts.config["architectures"][0]]
    assert "/gemma-" not in model or f"gemma-{generation.value}-" in model


@pytest.mark.parametrize(
    ("model", "bytes_a_token"),
    [
        # layers with a KV cache of their own x KV heads x head size x 2 (K and V) x 2 bytes
        ("google/gemma-2-9b-it", 42 * 8 * 256 * 4),
        ("google/gemma-3-27b-it", 62 * 16 * 128 * 4),
        ("google/gemma-3n-E4B-it", 20 * 2 * 256 * 4),
    ],
)
def test_numbers_give_the_published_kv_cache_size(model: str, bytes_a_token: int) -> None:
    """Layers, heads and head size multiply to the bytes a token that the planner's table has."""
    checkpoint = read_checkpoint(model, download=False)
    text = checkpoint.text
    own_layers = text["num_hidden_layers"] - text.get("num_kv_shared_layers", 0)
    (head_dim,) = checkpoint.head_dims
    assert own_layers * text["num_key_value_heads"] * head_dim * 4 == bytes_a_token


@pytest.mark.parametrize("model", known_ids())
def test_weights_are_no_less_than_the_parameters(model: str) -> None:
    """Two bytes for each parameter of the language model, and not much more: towers, AltUp."""
    checkpoint = read_checkpoint(model, download=False)
    assert checkpoint.weight_bytes is not None
    if checkpoint.is_fp8:
        return
    language_model = 2 * _parameters(checkpoint)
    rounding = 2**30 // 20  # facts are in tenths of a GiB
    assert language_model - rounding <= checkpoint.weight_bytes
    assert checkpoint.weight_bytes <= language_model + 2.1 * 2**30


def test_weights_of_fp8_are_half_but_for_embeddings() -> None:
    """The one FP8 checkpoint among the facts, against its bf16 model."""
    fp8 = read_checkpoint("RedHatAI/gemma-2-9b-it-FP8", download=False)
    bf16 = read_checkpoint("google/gemma-2-9b-it", download=False)
    assert fp8.is_fp8
    assert not fp8.is_block_fp8
    assert fp8.weight_bytes is not None
    assert bf16.weight_bytes is not None
    embeddings = 2 * bf16.num_embedding_parameters
    expected = embeddings + (bf16.weight_bytes - embeddings) / 2
    assert fp8.weight_bytes == pytest.approx(expected, rel=0.01)


def _parameters(checkpoint: Checkpoint) -> int:
    """Of embeddings, attention and MLPs, by the shapes that the config gives them."""
    text = checkpoint.text
    layers, pattern = text["num_hidden_layers"], text["sliding_window_pattern"]
    of_global = layers // pattern
    attention = (layers - of_global) * _attention(text, text["num_key_value_heads"], "head_dim")
    global_heads = text.get("num_global_key_value_heads") or text["num_key_value_heads"]
    global_dim = "global_head_dim" if "global_head_dim" in text else "head_dim"
    attention += of_global * _attention(text, global_heads, global_dim)
    wide = text.get("num_kv_shared_layers", 0) if text.get("use_double_wide_mlp") else 0
    widths = (layers + wide) * text["intermediate_size"]
    widths += layers * text.get("num_experts", 0) * text.get("moe_intermediate_size", 0)
    return checkpoint.num_embedding_parameters + attention + 3 * widths * text["hidden_size"]


def _attention(text: Mapping[str, Any], kv_heads: int, head_dim: str) -> int:
    """Of one layer; where keys are the values too, they have one matrix."""
    shared = head_dim == "global_head_dim" and text.get("attention_k_eq_v")
    heads = 2 * text["num_attention_heads"] + kv_heads * (1 if shared else 2)
    return int(heads * text[head_dim] * text["hidden_size"])


def test_embedded_model_has_the_config_of_the_official_one() -> None:
    """embedded/gemma-3-270m is google/gemma-3-270m, with a chat template."""
    embedded, official = facts_for("embedded/gemma-3-270m"), facts_for("google/gemma-3-270m")
    assert embedded is not None
    assert official is not None
    assert embedded.config == official.config
    assert (embedded.has_chat_template, official.has_chat_template) == (True, False)


def test_unknown_id_has_no_facts() -> None:
    """A fine-tune is not taken for the model that its name resembles."""
    assert facts_for("someone/gemma-3-4b-it") is None
