"""Which tokens mean something to the model's format, by tokenizer and generation."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from gemma_serve.gemma.family import Generation
from gemma_serve.gemma.tokens import (
    control_tokens,
    control_tokens_of,
    read_added_tokens,
    stop_token_ids,
)
from tests.official_gemma3 import official_gemma3


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return official_gemma3(tmp_path_factory.getbasetemp())


def controls(names: Iterable[str], special: Iterable[str] = ()) -> set[str]:
    """The control tokens among added tokens of these names."""
    added = {name: id_ for id_, name in enumerate(names)}
    return set(control_tokens(added, set(special)).ids)


def test_published_tokenizer(official: Path) -> None:
    """Of Gemma 3's 6,415 added tokens all are control tokens but HTML and runs of spaces."""
    tokens = control_tokens_of(AutoTokenizer.from_pretrained(official))
    text = set(tokens.added) - set(tokens.ids)
    named = {name for name in tokens.ids if not name.startswith("<unused")}
    assert named == {
        *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[multimodal]"),
        *("<start_of_turn>", "<end_of_turn>"),
        *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
    }
    assert len(tokens.ids) - len(named) == 6242
    assert {name for name in text if name.strip("\u2581\t\n")} >= {"<table>", "</td>", "<s>", "<b>"}
    assert (tokens.bos, tokens.bos_id) == ("<bos>", 2)
    assert set(tokens.media.values()) == {255_999, 256_000, 262_144}


def test_tokens_of_other_generations() -> None:
    """Gemma 1 and 2, 3n, 4 and FunctionGemma: turns, media, tools, thoughts, quotes."""
    names = [
        *("[@BOS@]", "<2mass>", "<unused98>", "<audio_soft_token>", "<start_of_audio>"),
        *("<start_function_call>", "<end_function_declaration>", "<escape>"),
        *("<|turn>", "<turn|>", "<|tool_response>", "<tool|>", '<|"|>', "<|think|>", "<|channel>"),
        *("<|image>", "<image|>", "<|image|>", "<|audio|>", "<|video|>"),
    ]
    assert controls(names) == set(names)


def test_tokens_of_fine_tunes() -> None:
    """What a fine-tune added counts if it is special, or is named as formats name their tokens."""
    names = ["<|im_start|>", "<think>", "</think>", "<tool_call>", "</tool_response>", "[INST]"]
    assert controls([*names, "<speaker>", "###"], special=["###"]) == {*names, "###"}


@pytest.mark.parametrize("name", ["\n\n", "\u2581\u2581", "\t", "<h1>", "</table>", "<img>", "#"])
def test_text_is_no_control_token(name: str) -> None:
    """Spaces, tags of HTML and single characters are text."""
    assert controls([name], special=["#", "\n\n", "\u2581\u2581"]) == set()


def test_media_tokens() -> None:
    """What stands for an image, a sound or a film, and around them."""
    names = [
        *("<start_of_image>", "<end_of_audio>", "<image_soft_token>", "<audio_soft_token>"),
        *("<|image>", "<image|>", "<|image|>", "<audio|>", "<|video|>"),
    ]
    others = ["<bos>", "<|turn>", "<start_of_turn>", "<|tool>"]
    tokens = control_tokens({name: id_ for id_, name in enumerate([*names, *others])}, ())
    assert set(tokens.media) == set(names)


def test_bos_of_another_model() -> None:
    """A tokenizer's own BOS counts whatever its name; a tokenizer may have none."""
    assert control_tokens({"<s>": 1}, (), bos="<s>").bos_id == 1
    assert control_tokens({"<|im_end|>": 1}, (), bos=None).bos_id is None
    assert control_tokens({"<|im_end|>": 1}, ()).bos is None


GEMMA_3 = {"<eos>": 1, "<bos>": 2, "<start_of_turn>": 105, "<end_of_turn>": 106}
GEMMA_4 = {"<eos>": 1, "<|tool_response>": 50, "<|turn>": 105, "<turn|>": 106}


@pytest.mark.parametrize(
    ("generation", "vocab", "configured", "ids"),
    [
        (Generation.GEMMA_2, {"<eos>": 1, "<end_of_turn>": 107}, 1, [1, 107]),
        (Generation.GEMMA_3, GEMMA_3, None, [1, 106]),
        (Generation.GEMMA_3, GEMMA_3, [106], [106, 1]),
        (Generation.GEMMA_3, GEMMA_3, [1, 106, 7], [1, 106, 7]),
        (Generation.GEMMA_3, GEMMA_3 | {"<start_function_response>": 50}, [1], [1, 106, 50]),
        (Generation.GEMMA_4, GEMMA_4, [1, 106], [1, 106, 50]),
        (Generation.GEMMA_3N, {}, [], []),
        (None, GEMMA_3, 5, [5]),
    ],
)
def test_stop_ids_are_a_union(
    generation: Generation | None,
    vocab: dict[str, int],
    configured: int | list[int] | None,
    ids: list[int],
) -> None:
    """generation_config's ids and those that the generation needs, as far as they exist."""
    assert stop_token_ids(generation, vocab, configured) == ids


def test_added_tokens_are_read_from_the_head(official: Path) -> None:
    """The list before the vocabulary is what transformers reads."""
    added = read_added_tokens(official / "tokenizer.json")
    decoder = AutoTokenizer.from_pretrained(official).added_tokens_decoder
    assert added == {token.content: id_ for id_, token in decoder.items()}


@pytest.mark.parametrize("first", ["added_tokens", "model"])
def test_added_tokens_in_any_order(tmp_path: Path, first: str) -> None:
    """A file whose keys are in another order, or whose list is cut off by the head, is read too."""
    many = [{"id": id_, "content": f"<tökèn {id_}>"} for id_ in range(70_000)]
    rest = {"model": {"vocab": {"[": 0, '"added_tokens": [': 1}}, "added_tokens": many}
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({first: rest[first]} | rest, ensure_ascii=False), encoding="utf-8")
    assert read_added_tokens(file) == {token["content"]: token["id"] for token in many}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": {}}', '{"added_tokens": [{"id": 1}]}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    """What is no tokenizer.json is not read as one."""
    file = tmp_path / "tokenizer.json"
    file.write_text(text)
    with pytest.raises((ValueError, LookupError, TypeError)):
        read_added_tokens(file)
