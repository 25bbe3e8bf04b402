"""
Random-weight checkpoints of a megabyte, one for each way in which a Gemma keeps its KV cache.

Each is written with a tokenizer, so that real vLLM serves it: `make_golden.py` does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3nForCausalLM,
    Gemma3nTextConfig,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    PreTrainedModel,
)

from tests.tiny_gemma import (
    BOS,
    END_OF_TURN,
    EOS,
    PAD,
    TOKENIZER_CONFIG,
    VOCAB_SIZE,
    make_tiny_gemma,
    train_tokenizer,
    write_model,
    write_text_files,
)

_SLIDING, _FULL = "sliding_attention", "full_attention"
_TOKENS = {"pad_token_id": PAD, "eos_token_id": [EOS, END_OF_TURN], "bos_token_id": BOS}
_SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "sliding_window": 512,
    "max_position_embeddings": 8192,
    "dtype": "bfloat16",
}


def dense_sliding(directory: Path) -> Path:
    """Five local layers to a global one, as Gemma 3; two groups of local layers are padded."""
    types = [_SLIDING] * 5 + [_FULL] + [_SLIDING] * 4 + [_FULL]
    return make_tiny_gemma(directory, num_hidden_layers=len(types), layer_types=types)


def gemma2(directory: Path) -> Path:
    """Local and global layers in turn; an odd number, so that both groups are as large."""
    config = Gemma2Config(**_SHAPE, **_TOKENS, num_hidden_layers=5, query_pre_attn_scalar=32)
    return _write(directory, lambda: Gemma2ForCausalLM(config))


def gemma3n(directory: Path) -> Path:
    """Four local layers to a global one, of which the last five share the cache of others."""
    config = Gemma3nTextConfig(
        **_SHAPE,
        **_TOKENS,
        num_hidden_layers=15,
        num_kv_shared_layers=5,
        vocab_size_per_layer_input=VOCAB_SIZE,
        hidden_size_per_layer_input=16,
        laurel_rank=8,
        activation_sparsity_pattern=[0.0] * 15,
    )
    return _write(directory, lambda: Gemma3nForCausalLM(config))


def gemma4(directory: Path) -> Path:
    """Two head sizes with pages that divide each other, and layers that share a cache, as 4 E."""
    types = [_SLIDING] * 4 + [_FULL] + [_SLIDING] * 4 + [_FULL] + [_SLIDING] * 4 + [_FULL]
    config = Gemma4TextConfig(
        **_SHAPE,
        **_TOKENS,
        num_hidden_layers=len(types),
        layer_types=types,
        num_kv_shared_layers=5,
        global_head_dim=64,
        vocab_size_per_layer_input=VOCAB_SIZE,
        hidden_size_per_layer_input=16,
    )
    return _write(directory, lambda: Gemma4ForCausalLM(config))


STYLES: dict[str, Callable[[Path], Path]] = {
    "dense-sliding": dense_sliding,
    "gemma2": gemma2,
    "gemma3n": gemma3n,
    "gemma4": gemma4,
}


def _write(directory: Path, draw: Callable[[], PreTrainedModel]) -> Path:
    write_model(directory, draw)
    write_text_files(directory, train_tokenizer(), TOKENIZER_CONFIG)
    return directory
