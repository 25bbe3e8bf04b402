"""
The small files of the checkpoint: architecture, sampling defaults, tokenizer settings, template.

The values are those of Google's own Gemma 3 270M; a GGUF file holds only some of them.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

PAD, EOS, BOS, END_OF_TURN = 0, 1, 2, 106
NUM_LAYERS = 18
# Five layers see a window, the sixth everything.
FULL_ATTENTION_EVERY = 6

CONFIG: dict[str, Any] = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "dtype": "bfloat16",
    # `rope_parameters` is the form of 5; and without a version, transformers takes a local
    # tokenizer for an old Mistral one and warns of "an incorrect regex pattern".
    "transformers_version": "5.0.0",
    "vocab_size": 262_144,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 32_768,
    "sliding_window": 512,
    "layer_types": [
        "sliding_attention" if layer % FULL_ATTENTION_EVERY else "full_attention"
        for layer in range(1, NUM_LAYERS + 1)
    ],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    },
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_bidirectional_attention": False,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "use_cache": True,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": [EOS, END_OF_TURN],
}

GENERATION_CONFIG: dict[str, Any] = {
    "do_sample": True,
    "temperature": 1.0,
    "top_k": 64,
    "top_p": 0.95,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": [EOS, END_OF_TURN],
}

TOKENIZER_CONFIG: dict[str, Any] = {
    "tokenizer_class": "GemmaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    # Without image_token: transformers would add <image_soft_token>, see tokenizer.py.
    "extra_special_tokens": {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
    "clean_up_tokenization_spaces": False,
    "spaces_between_special_tokens": False,
    "model_max_length": 32_768,
    "padding_side": "left",
}


def chat_template() -> str:
    """Our text of Gemma 3's template; read as data, as gemma/ imports nothing from chat/."""
    path = resources.files("gemma_serve") / "chat" / "templates" / "gemma3.jinja"
    return path.read_text("utf-8")


def files() -> dict[str, str]:
    """File name -> text."""
    return {
        "config.json": _json(CONFIG),
        "generation_config.json": _json(GENERATION_CONFIG),
        "tokenizer_config.json": _json(TOKENIZER_CONFIG),
        "chat_template.jinja": chat_template(),
    }


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"
