"""Text and token ids of a given length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from benchmarks.workload import WorkloadError
from benchmarks.workload.text import Text, draw_ids
from benchmarks.workload.words import WORDS


def rng(seed: int = 1) -> np.random.Generator:
    """A stream."""
    return np.random.Generator(np.random.PCG64(seed))


def save_tokenizer(path: Path, vocab_size: int) -> Path:
    """A byte-level BPE that knows part of our words, and begins with <bos>."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<bos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"{word} {word}" for word in WORDS[::4]] * 2, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 0)]
    )
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.json in which part of our words are single tokens."""
    return save_tokenizer(tmp_path_factory.mktemp("bpe") / "tokenizer.json", 1500)


def test_word_list() -> None:
    """Some hundred words, each once, lower-case letters alone."""
    assert len(set(WORDS)) == len(WORDS) > 500
    assert all(word.isalpha() and word.islower() and word.isascii() for word in WORDS)


def test_a_word_a_token() -> None:
    """Without a tokenizer a word counts as a token, and the description says so."""
    text = Text()

    assert len(text.draw(rng(), 40).split()) == 40
    assert text.counted_by == "lengths of text approximate, a word counted as a token"


@pytest.mark.parametrize("num_tokens", [1, 2, 17, 128, 1000])
def test_exact_length(tokenizer: Path, num_tokens: int) -> None:
    """With a tokenizer the encoded text has exactly the length, control tokens not counted."""
    drawn = Text(tokenizer).draw(rng(), num_tokens)
    encode = Tokenizer.from_file(str(tokenizer)).encode

    assert len(encode(drawn, add_special_tokens=False).ids) == num_tokens
    assert len(encode(drawn).ids) == num_tokens + 1


def test_exact_where_words_merge(tokenizer: Path) -> None:
    """Text grows until it is long enough where neighbouring words become one token."""
    text = Text(tokenizer)
    whole = text.count
    # A pair of words counts one less than its two words would.
    text.count = lambda drawn: whole(drawn) - len(drawn.split()) // 4  # type: ignore[method-assign]

    assert text.count(text.draw(rng(), 60)) == 60


def test_exact_where_words_break(tokenizer: Path) -> None:
    """Text is cut until it is short enough where a word is several tokens after all."""
    text = Text(tokenizer)
    whole = text.count
    text.count = lambda drawn: whole(drawn) + len(drawn.split()) // 4  # type: ignore[method-assign]

    drawn = text.draw(rng(), 60)
    # 48 words count 48 + 48 // 4 = 60.
    assert (text.count(drawn), len(drawn.split())) == (60, 48)


def test_no_text_of_this_length(tokenizer: Path) -> None:
    """A tokenizer that gives no text of the length is an error, no endless search."""
    text = Text(tokenizer)
    text.count = lambda drawn: 2 * len(drawn.split())  # type: ignore[method-assign]

    with pytest.raises(WorkloadError, match="no text of exactly 7 tokens was found"):
        text.draw(rng(), 7)


def test_checkpoint_directory(tokenizer: Path) -> None:
    """A checkpoint's directory stands for its tokenizer.json."""
    assert Text(tokenizer.parent).counted_by == Text(tokenizer).counted_by


def test_wrong_tokenizers(tmp_path: Path) -> None:
    """No file, no tokenizer, and one without our words: each is one sentence."""
    with pytest.raises(WorkloadError, match=r"is no file; give a tokenizer\.json"):
        Text(tmp_path / "tokenizer.json")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(WorkloadError, match=r"broken\.json' cannot be read"):
        Text(tmp_path / "broken.json")
    letters = save_tokenizer(tmp_path / "letters.json", 260)
    with pytest.raises(WorkloadError, match="text of an exact length takes 50; use style ids"):
        Text(letters)


@given(st.integers(1, 80), st.integers(1, 80))
def test_shorter_text_begins_longer(one: int, other: int) -> None:
    """A shorter draw of the same stream begins the longer one, for text and for ids."""
    short, long = sorted((one, other))

    assert Text().draw(rng(), long).split()[:short] == Text().draw(rng(), short).split()
    assert draw_ids(rng(), long, 3, 10, 90)[:short] == draw_ids(rng(), short, 3, 10, 90)


@given(st.integers(-500, 500), st.integers(1, 50), st.integers(0, 100), st.integers(1, 100))
def test_ids_in_range(number: int, length: int, low: int, width: int) -> None:
    """Ids stay within low and high, whatever the number."""
    drawn = draw_ids(rng(), length, number, low, low + width)

    assert len(drawn) == length
    assert all(low <= token < low + width for token in drawn)


def test_first_ids_differ() -> None:
    """Numbers in a row have different first ids, until the range is used up."""
    firsts = [draw_ids(rng(), 4, number, 10, 20)[0] for number in range(-3, 8)]

    # 11 numbers in a range of 10: the last has the first one's id, 10 + -3 mod 10 = 17.
    assert len(set(firsts[:10])) == 10
    assert firsts[10] == firsts[0] == 17
