"""The tiny Gemma 3 that the engine tests serve."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.tiny_gemma import BOS, CONTROL_TOKENS, END_OF_TURN, EOS, START_OF_TURN, make_tiny_gemma


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gemma(tmp_path_factory.mktemp("tiny") / "gemma")


def test_two_calls_write_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    """A failing test can be run again on the very same model."""
    again = make_tiny_gemma(tmp_path)
    names = sorted(path.name for path in checkpoint.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert [n for n in names if (checkpoint / n).read_bytes() != (again / n).read_bytes()] == []


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


@pytest.mark.parametrize("text", ["two  spaces", "line\n\nline\t", "Grüße, 日本, 🙂", ""])
def test_text_survives_the_tokenizer(checkpoint: Path, text: str) -> None:
    """A byte-level tokenizer gives back any text, after the one BOS that it adds."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
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
