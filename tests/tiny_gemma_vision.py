"""
Writes a random-weight Gemma 3 that takes images, for real vLLM on two CPU cores.

Text part and tokenizer are those of `tiny_gemma`; to them come a SigLIP tower, the projector, and
the newline tokens that Gemma 3's processor in vLLM looks up.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, SiglipVisionConfig

from tests.tiny_gemma import (
    BOS,
    CONTROL_TOKENS,
    END_OF_TURN,
    EOS,
    PAD,
    TOKENIZER_CONFIG,
    VOCAB_SIZE,
    text_config,
    train_tokenizer,
    write_json,
    write_model,
    write_text_files,
)

IMAGE_SIZE = 56
PATCH_SIZE = 14
SOFT_TOKENS = 4  # of one image; 4 x 4 patches are pooled 2 x 2
# Around an image: two newlines as one token, <start_of_image>, the soft tokens, <end_of_image>, and
# two newlines again. <start_of_image> alone is what the chat template writes.
TOKENS_PER_IMAGE = SOFT_TOKENS + 4
NEWLINES = ["\n" * length for length in (1, 2, 3, 4)]
START_OF_IMAGE, END_OF_IMAGE, IMAGE_SOFT_TOKEN = (
    CONTROL_TOKENS.index(token)
    for token in ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
)


def make_tiny_gemma_vision(directory: Path) -> Path:
    """Write the checkpoint (about 2 MB) and return its directory; the bytes are always the same."""
    write_model(directory, _draw_model)
    _name_as_published(directory / "model.safetensors")
    tokenizer = train_tokenizer()
    tokenizer.add_tokens([AddedToken(run, normalized=False) for run in NEWLINES])
    write_text_files(directory, tokenizer, TOKENIZER_CONFIG | _image_tokens())
    write_json(directory / "preprocessor_config.json", _preprocessor_config())
    write_json(
        directory / "processor_config.json",
        {"processor_class": "Gemma3Processor", "image_seq_length": SOFT_TOKENS},
    )
    return directory


def _draw_model() -> Gemma3ForConditionalGeneration:
    model = Gemma3ForConditionalGeneration(_config())
    # transformers leaves it at zero, and every image would look the same.
    projection = model.model.multi_modal_projector.mm_input_projection_weight
    torch.nn.init.normal_(projection, std=0.02)
    return model


def _name_as_published(weights: Path) -> None:
    """Rename the tower's weights: transformers 5 saves names that vLLM 0.32 does not know."""
    tensors = {
        name.replace("vision_tower.", "vision_tower.vision_model."): tensor
        for name, tensor in load_file(weights).items()
    }
    save_file(tensors, weights, metadata={"format": "pt"})


def _config() -> Gemma3Config:
    vision = SiglipVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        vision_use_head=False,
    )
    return Gemma3Config(
        text_config=text_config(vocab_size=VOCAB_SIZE + len(NEWLINES)),
        vision_config=vision,
        mm_tokens_per_image=SOFT_TOKENS,
        boi_token_index=START_OF_IMAGE,
        eoi_token_index=END_OF_IMAGE,
        image_token_index=IMAGE_SOFT_TOKEN,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=[EOS, END_OF_TURN],
        dtype="bfloat16",
    )


def _image_tokens() -> dict[str, object]:
    """What Gemma3Processor asks the tokenizer for by name."""
    tokens = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    return tokens | {"extra_special_tokens": tokens, "processor_class": "Gemma3Processor"}


def _preprocessor_config() -> dict[str, object]:
    """Build what Gemma3ImageProcessor reads: any image becomes IMAGE_SIZE x IMAGE_SIZE."""
    return {
        "processor_class": "Gemma3Processor",
        "image_processor_type": "Gemma3ImageProcessor",
        "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "resample": 2,
        "do_convert_rgb": None,
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_pan_and_scan": None,
        "image_seq_length": SOFT_TOKENS,
    }
