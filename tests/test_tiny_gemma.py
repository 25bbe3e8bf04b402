"""The tiny Gemma 3 that the engine tests serve, and the one that takes images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from gemma_serve.gemma.checkpoint import read_checkpoint
from tests.tiny_gemma import BOS, CONTROL_TOKENS, END_OF_TURN, EOS, START_OF_TURN, make_tiny_gemma
from tests.tiny_gemma_vision import (
    END_OF_IMAGE,
    IMAGE_SOFT_TOKEN,
    NEWLINES,
    SOFT_TOKENS,
    START_OF_IMAGE,
    TOKENS_PER_IMAGE,
    make_tiny_gemma_vision,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gemma(tmp_path_factory.mktemp("tiny") / "gemma")


@pytest.fixture(scope="module")
def vision_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gemma_vision(tmp_path_factory.mktemp("tiny-vision") / "gemma")


def different_files(one: Path, other: Path) -> list[str]:
    names = {path.name for directory in (one, other) for path in directory.iterdir()}
    return [n for n in names if (one / n).read_bytes() != (other / n).read_bytes()]


def test_two_calls_write_the_same_bytes(
    checkpoint: Path, vision_checkpoint: Path, tmp_path: Path
) -> None:
    """A failing test can be run again on the very same model."""
    assert different_files(checkpoint, make_tiny_gemma(tmp_path / "text")) == []
    assert different_files(vision_checkpoint, make_tiny_gemma_vision(tmp_path / "vision")) == []


def test_caller_keeps_its_random_state(tmp_path: Path) -> None:
    """Making the model does not reseed the process."""
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    make_tiny_gemma(tmp_path)
    assert torch.equal(torch.rand(1), expected)


def test_control_tokens_are_single_ids(checkpoint: Path) -> None:
    """Each control token of Gemma 3 is one id, in the published order."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    ids = [tokenizer.encode(token, add_special_tokens=False) for token in CONTROL_TOKENS]
    assert ids == [[number] for number in range(len(CONTROL_TOKENS))]
    assert tokenizer.convert_tokens_to_ids(["<eos>", "<bos>"]) == [EOS, BOS]
    assert tokenizer.convert_tokens_to_ids("<start_of_turn>") == START_OF_TURN == 105
    assert tokenizer.convert_tokens_to_ids("<end_of_turn>") == END_OF_TURN == 106


@pytest.mark.parametrize("text", ["two  spaces", "line\n\nline\t", "Grüße, 日本, 🙂", "", "\n" * 9])
@pytest.mark.parametrize("which", ["checkpoint", "vision_checkpoint"])
def test_text_survives_the_tokenizer(which: str, text: str, request: pytest.FixtureRequest) -> None:
    """A byte-level tokenizer gives back any text, after the one BOS that it adds."""
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(which))
    ids = tokenizer.encode(text)
    assert ids.count(BOS) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_chat_template_writes_gemma_turns(checkpoint: Path) -> None:
    """A chat becomes Gemma 3's turns, with one BOS."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    messages = [{"role": "system", "content": "Brief."}, {"role": "user", "content": "Hi"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert prompt == ("<bos><start_of_turn>user\nBrief.\n\nHi<end_of_turn>\n<start_of_turn>model\n")


def test_model_writes_text_of_the_length_asked_for(checkpoint: Path) -> None:
    """Greedy answers are neither control tokens nor cut short by a stop id."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    prompt = torch.tensor([[BOS, START_OF_TURN, 500, END_OF_TURN]])
    answer = model.generate(prompt, max_new_tokens=64, do_sample=False)[0, prompt.shape[1] :]
    assert len(answer) == 64
    assert int(answer.min()) >= len(CONTROL_TOKENS)


def test_overrides_reach_the_config(tmp_path: Path) -> None:
    """A test can ask for another shape, such as heads that only a TP of 1 divides."""
    directory = make_tiny_gemma(tmp_path, num_attention_heads=1, num_key_value_heads=1)
    config = AutoConfig.from_pretrained(directory)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (1, 1, 32)


# --- the one that takes images


def test_vision_checkpoint_is_gemma_3_with_a_tower(vision_checkpoint: Path) -> None:
    """Its config.json says what published multimodal checkpoints say."""
    checkpoint = read_checkpoint(str(vision_checkpoint), download=False)
    assert checkpoint.architecture == "Gemma3ForConditionalGeneration"
    assert checkpoint.modalities == ("image",)
    assert checkpoint.bidirectional_image_attention


def test_newline_runs_are_single_ids(vision_checkpoint: Path) -> None:
    """One to four newlines are one token each, as Gemma 3's processor in vLLM expects."""
    tokenizer = AutoTokenizer.from_pretrained(vision_checkpoint)
    ids = [tokenizer.encode(run, add_special_tokens=False) for run in NEWLINES]
    assert ids == [[tokenizer.get_vocab()[run]] for run in NEWLINES]


def test_processor_writes_the_tokens_of_an_image(vision_checkpoint: Path) -> None:
    """transformers' own processor makes of an image what the tests count."""
    processor = AutoProcessor.from_pretrained(vision_checkpoint)
    image = Image.new("RGB", (30, 20))
    two_newlines = processor.tokenizer.get_vocab()["\n\n"]
    [ids] = processor(text="<start_of_image>", images=[image])["input_ids"]
    soft_tokens = [IMAGE_SOFT_TOKEN] * SOFT_TOKENS
    tokens = [two_newlines, START_OF_IMAGE, *soft_tokens, END_OF_IMAGE, two_newlines]
    assert ids == [BOS, *tokens]
    assert len(tokens) == TOKENS_PER_IMAGE


def test_image_changes_what_the_model_says(vision_checkpoint: Path) -> None:
    """The projector is not all zeros: two images give two answers, in transformers too."""
    processor = AutoProcessor.from_pretrained(vision_checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(vision_checkpoint, dtype=torch.float32)
    logits = []
    for colour in ("black", "white"):
        image = Image.new("RGB", (30, 20), colour)
        inputs = processor(text="<bos><start_of_image>", images=[image], return_tensors="pt")
        with torch.inference_mode():
            logits.append(model(**inputs).logits[0, -1])
    assert not torch.allclose(*logits, atol=0.01)
