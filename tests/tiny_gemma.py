"""
Writes a random-weight Gemma 3 that real vLLM starts and serves on two CPU cores in seconds.

Its text is noise, all else is real: architecture, control tokens, chat template, files on disk.
"""

from __future__ import annotations

import json
import pydoc_data.topics
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedModel

VOCAB_SIZE = 4096
SEED = 0
# The ids are those of the published Gemma 3 up to <end_of_turn>; its image tokens have ids beyond
# this vocabulary (255999, 256000, 262144) and follow here.
CONTROL_TOKENS = [
    *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[multimodal]"),
    *(f"<unused{number}>" for number in range(99)),
    *("<start_of_turn>", "<end_of_turn>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
]
PAD, EOS, BOS, START_OF_TURN, END_OF_TURN = 0, 1, 2, 105, 106
# What AutoTokenizer reads; the class is the plain one, Gemma's own is no byte-level tokenizer.
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 8192,
}


def make_tiny_gemma(directory: Path, **overrides: Any) -> Path:
    """
    Write the checkpoint (about 1 MB) and return its directory.

    Args:
        directory: Made if need be.
        overrides: Fields of transformers' Gemma3TextConfig; two calls with the same ones write
            the same bytes.
    """
    write_model(directory, lambda: Gemma3ForCausalLM(text_config(**overrides)))
    write_text_files(directory, train_tokenizer(), TOKENIZER_CONFIG)
    return directory


def text_config(**overrides: Any) -> Gemma3TextConfig:
    """Build the config; head_dim 32 is the smallest that vLLM's CPU attention takes."""
    shape = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 512,
        "max_position_embeddings": 8192,
    }
    tokens = {"pad_token_id": PAD, "eos_token_id": [EOS, END_OF_TURN], "bos_token_id": BOS}
    return Gemma3TextConfig(**(shape | tokens | {"dtype": "bfloat16"} | overrides))


def write_model(directory: Path, draw: Callable[[], PreTrainedModel]) -> None:
    """Write config.json and the weights that `draw` makes, from a fixed seed."""
    directory.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = draw()
    # Tied embeddings: short rows make a control token distinct as input and unlikely as output, so
    # that answers are text and as long as was asked for.
    with torch.no_grad():
        model.get_input_embeddings().weight[: len(CONTROL_TOKENS)] *= 0.1
    model.to(model.config.dtype).save_pretrained(directory)


def write_text_files(
    directory: Path, tokenizer: Tokenizer, tokenizer_config: dict[str, Any]
) -> None:
    """Write what a checkpoint has beside its weights: tokenizer, chat template, sampling."""
    tokenizer.save(str(directory / "tokenizer.json"))
    write_json(directory / "tokenizer_config.json", tokenizer_config)
    write_json(
        directory / "generation_config.json",
        {"bos_token_id": BOS, "eos_token_id": [EOS, END_OF_TURN], "pad_token_id": PAD}
        | {"do_sample": True, "top_k": 64, "top_p": 0.95},
    )
    template = files("gemma_serve") / "chat" / "templates" / "gemma3.jinja"
    (directory / "chat_template.jinja").write_text(template.read_text())


def train_tokenizer(control_tokens: Sequence[str] = CONTROL_TOKENS) -> Tokenizer:
    """Train a byte-level BPE on Python's own documentation: English, with some code."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, special=True) for token in control_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pydoc_data.topics.topics.values(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", BOS)]
    )
    return tokenizer


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
