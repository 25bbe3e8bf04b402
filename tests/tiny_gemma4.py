"""
Writes a random-weight Gemma 4 with per-layer embeddings, as E2B has them, for real vLLM.

It is a text model without a chat template, so that the packaged one is served, and its
generation_config.json stops at <eos> alone, as those of converted checkpoints do.
"""

from __future__ import annotations

from pathlib import Path

from transformers import Gemma4ForCausalLM, Gemma4TextConfig

from tests.tiny_gemma import (
    BOS,
    EOS,
    PAD,
    TOKENIZER_CONFIG,
    VOCAB_SIZE,
    train_tokenizer,
    write_json,
    write_model,
)

# Names as published; of the ids only the first three are.
GEMMA_4_TOKENS = [
    *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[multimodal]"),
    *("<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>"),
    *('<|"|>', "<|think|>", "<|channel>", "<channel|>", "<|turn>", "<turn|>"),
    *("<|image>", "<image|>", "<|image|>", "<|audio>", "<audio|>", "<|audio|>", "<|video|>"),
]
TURN, END_OF_TURN, TOOL_RESPONSE, THINK = (
    GEMMA_4_TOKENS.index(token) for token in ("<|turn>", "<turn|>", "<|tool_response>", "<|think|>")
)


def make_tiny_gemma4(directory: Path) -> Path:
    """Write the checkpoint (about 1 MB) and return its directory; the bytes are always the same."""
    write_model(directory, lambda: Gemma4ForCausalLM(_config()))
    train_tokenizer(GEMMA_4_TOKENS).save(str(directory / "tokenizer.json"))
    write_json(directory / "tokenizer_config.json", TOKENIZER_CONFIG)
    write_json(directory / "generation_config.json", {"bos_token_id": BOS, "eos_token_id": EOS})
    return directory


def _config() -> Gemma4TextConfig:
    return Gemma4TextConfig(
        vocab_size=VOCAB_SIZE,
        vocab_size_per_layer_input=VOCAB_SIZE,
        hidden_size=64,
        hidden_size_per_layer_input=16,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        global_head_dim=64,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=512,
        max_position_embeddings=8192,
        final_logit_softcapping=30.0,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=BOS,
        dtype="bfloat16",
    )
