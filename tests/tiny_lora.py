"""Writes a LoRA adapter of random weights for the tiny models, as peft would have saved it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.tiny_gemma import SEED, text_config, write_json

RANK = 8


def make_tiny_lora(directory: Path, prefix: str = "model") -> Path:
    """
    Write the adapter and return its directory; it changes the query projections a lot.

    Args:
        prefix: Where the text model stands: `model`, or `model.language_model` in a multimodal one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config, draw = text_config(), torch.Generator().manual_seed(SEED)
    sizes = {
        "lora_A": (RANK, config.hidden_size),
        "lora_B": (config.num_attention_heads * config.head_dim, RANK),
    }
    tensors = {
        f"base_model.model.{prefix}.layers.{layer}.self_attn.q_proj.{part}.weight": torch.randn(
            size, generator=draw
        )
        for layer in range(config.num_hidden_layers)
        for part, size in sizes.items()
    }
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    write_json(
        directory / "adapter_config.json",
        {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK}
        | {"target_modules": ["q_proj"], "bias": "none", "base_model_name_or_path": None},
    )
    return directory
