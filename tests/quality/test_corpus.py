"""The texts that ship, and how they are cut."""

from __future__ import annotations

from collections import Counter
from importlib import resources

import numpy as np
import pytest
from tokenizers import Tokenizer

from gemma_serve.gemma.embedded import prepare
from gemma_serve.quality.corpus import (
    TEXTS,
    WINDOW_TOKENS,
    corpus_sha256,
    cut_windows,
    ids_sha256,
    read_text,
)

FOLDER = resources.files("gemma_serve.quality") / "texts"
# References in the world are of these bytes; who changes a text breaks them all.
SHA256 = "dfc473a2875f542d5bc96e51e8f6a88ae2653b29e9ca2112ef50c02f160f4be0"


def test_corpus_is_what_references_were_recorded_of() -> None:
    """No byte of the texts has changed."""
    assert corpus_sha256() == SHA256


def test_every_text_has_a_source() -> None:
    """The files are the texts in order, and SOURCES.md names each."""
    names = {file.name for file in FOLDER.iterdir()}
    assert names == {f"{name}.txt" for name in TEXTS} | {"SOURCES.md"}
    sources = (FOLDER / "SOURCES.md").read_text(encoding="utf-8")
    assert all(f"`{name}.txt`" in sources for name in TEXTS)


def test_texts_are_small_and_clean() -> None:
    """Of a size for a repository, without control tokens of Gemma's or carriage returns."""
    texts = [read_text(name) for name in TEXTS]
    assert 100_000 < sum(len(text.encode()) for text in texts) < 150_000
    marks = ("<bos>", "<start_of_turn>", "<|turn>", "<start_of_image>", "\r", "\ufeff", "\ufffd")
    assert not [mark for text in texts for mark in marks if mark in text]


def test_windows_by_gemmas_tokenizer() -> None:
    """At least 20,000 tokens; three windows of every text, in rounds, each beginning with BOS."""
    tokenizer = Tokenizer.from_file(str(prepare(say=print) / "tokenizer.json"))
    windows = cut_windows(lambda text: tokenizer.encode(text, add_special_tokens=False).ids, 2)
    assert windows.texts == TEXTS * 3
    assert windows.token_ids.shape == (42, WINDOW_TOKENS)
    assert windows.token_ids.size == 21_504
    assert (windows.token_ids[:, 0] == 2).all()
    assert not (windows.token_ids[:, 1:] == 2).any()


def test_windows_hold_the_text_in_order() -> None:
    """Without BOS, a text's windows are its tokens one after another; the rest is left out."""
    windows = cut_windows(lambda text: [100 + ord(char) % 7 for char in text], 2)
    of_english = windows.token_ids[np.array(windows.texts) == "en", 1:].ravel()
    text = read_text("en")
    assert of_english.tolist() == [100 + ord(char) % 7 for char in text[: len(of_english)]]
    assert len(text) - len(of_english) < WINDOW_TOKENS - 1
    counts = Counter(windows.texts)
    assert counts["en"] == len(text) // (WINDOW_TOKENS - 1)


@pytest.mark.parametrize("other", [np.zeros((2, 3)), np.zeros((3, 2)), np.ones((2, 3))])
def test_hash_of_ids(other: np.ndarray) -> None:
    """Other ids or another shape give another hash; the integer type does not."""
    one = np.zeros((2, 3), dtype=np.int32)
    assert ids_sha256(one) == ids_sha256(one.astype(np.int64))
    assert (ids_sha256(other) == ids_sha256(one)) == np.array_equal(other, one)
