"""The packaged facts about official checkpoints."""

from __future__ import annotations

import pytest

from gemma_serve.gemma.checkpoint import read_checkpoint
from gemma_serve.gemma.facts import facts_for, official_ids
from gemma_serve.gemma.family import GENERATIVE_ARCHITECTURES, generation_of


@pytest.mark.parametrize("model", official_ids())
def test_every_official_id_is_a_generative_gemma(model: str) -> None:
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
