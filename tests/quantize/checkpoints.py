"""Small Gemma checkpoints on the disk, whole and broken, and what was made of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma4ForCausalLM, Gemma4TextConfig

from gemma_serve.quantize import run
from gemma_serve.quantize.card import Made
from tests.tiny_gemma import (
    BOS,
    END_OF_TURN,
    EOS,
    PAD,
    TOKENIZER_CONFIG,
    VOCAB_SIZE,
    train_tokenizer,
    write_model,
    write_text_files,
)

INDEX = "model.safetensors.index.json"
# What vLLM joins in one matrix must divide in blocks of 128: 4 heads x 32 both of queries and keys.
SHAPE = {"hidden_size": 256, "intermediate_size": 384, "num_key_value_heads": 4}

EXPERTS = 8


def mixture_of_experts(directory: Path) -> Path:
    """A random-weight mixture as Gemma 4 26B-A4B, experts in two tensors a layer."""
    config = Gemma4TextConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=128,
        enable_moe_block=True,
        num_experts=EXPERTS,
        top_k_experts=2,
        moe_intermediate_size=32,
        hidden_size_per_layer_input=0,
        num_hidden_layers=2,
        layer_types=["sliding_attention", "full_attention"],
        num_attention_heads=4,
        num_key_value_heads=2,
        num_global_key_value_heads=1,
        attention_k_eq_v=True,
        head_dim=32,
        global_head_dim=64,
        sliding_window=512,
        max_position_embeddings=8192,
        pad_token_id=PAD,
        eos_token_id=[EOS, END_OF_TURN],
        bos_token_id=BOS,
        dtype="bfloat16",
    )
    write_model(directory, lambda: Gemma4ForCausalLM(config))
    write_text_files(directory, train_tokenizer(), TOKENIZER_CONFIG)
    return directory


def copy_of(checkpoint: Path, directory: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(checkpoint, directory))


def tensors_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, in one shard or many."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        found |= load_file(file)
    return found


def in_shards(checkpoint: Path, number: int) -> Path:
    """Split its weights over `number` files, in place."""
    tensors = tensors_of(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    weight_map = {}
    for count in range(number):
        shard = f"model-{count + 1:05}-of-{number:05}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[count::number]}
        save_file(part, checkpoint / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, shard)
    write_json(checkpoint / INDEX, {"metadata": {}, "weight_map": weight_map})
    return checkpoint


def with_unused_keys(checkpoint: Path) -> Path:
    """
    Store keys and values of layers that share a cache too, in place, as Google's checkpoints do.

    transformers builds none for such layers, and so writes none.
    """
    file = checkpoint / "model.safetensors"
    tensors = load_file(file)
    for query in [name for name in tensors if name.endswith(".q_proj.weight")]:
        for letter in "kv":
            stored = tensors[query][: len(tensors[query]) // 2].clone()
            tensors.setdefault(query.replace("q_proj", f"{letter}_proj"), stored)
    save_file(tensors, file, metadata={"format": "pt"})
    return checkpoint


def change_weights(checkpoint: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    """Replace tensors in place."""
    for file in checkpoint.glob("*.safetensors"):
        changed = {name: change(name, tensor.clone()) for name, tensor in load_file(file).items()}
        save_file(changed, file, metadata={"format": "pt"})
    return checkpoint


def change_config(checkpoint: Path, **changes: Any) -> Path:
    """Replace values of its config.json in place."""
    file = checkpoint / "config.json"
    write_json(file, json.loads(file.read_text()) | changes)
    return checkpoint


def config_of(checkpoint: Path) -> dict[str, Any]:
    """Its config.json."""
    found: dict[str, Any] = json.loads((checkpoint / "config.json").read_text())
    return found


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content))


def quantize(source: Path | str, destination: Path, scheme: str, **options: Any) -> Made:
    """Convert in this process, silently."""
    request = run.Request(str(source), destination, scheme, **options)
    return run.quantize(request, lambda _line: None)
