"""
Text of a given number of tokens, and token ids.

With a tokenizer.json the number is exact; without one a word counts as a token, which for common
English words is nearly so in Gemma's vocabulary.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.workload.errors import WorkloadError
from benchmarks.workload.words import WORDS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MIN_VOCABULARY = 50
MAX_ROUNDS = 20


class Text:
    """Makes text of common words, and counts tokens in text."""

    def __init__(self, tokenizer: Path | None = None) -> None:
        """
        Args:
            tokenizer: A tokenizer.json, or the directory of a checkpoint that has one.

        Raises:
            WorkloadError: there is none, or it has too few common words that are single tokens.
        """
        self.exact = tokenizer is not None
        self.vocabulary: tuple[str, ...] = WORDS
        self.counted_by = "lengths of text approximate, a word counted as a token"
        if tokenizer is not None:
            self._load(tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer)

    def _load(self, path: Path) -> None:
        self._tokenizer = _load_tokenizer(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        self.counted_by = f"lengths of text exact by tokenizer.json {digest}"
        self.vocabulary = tuple(word for word in WORDS if self._is_one_token(word))
        if len(self.vocabulary) < MIN_VOCABULARY:
            raise WorkloadError(
                f"{path} has {len(self.vocabulary)} of {len(WORDS)} common English words as single "
                f"tokens, and text of an exact length takes {MIN_VOCABULARY}; use style ids, or no "
                "tokenizer"
            )

    def _is_one_token(self, word: str) -> bool:
        # Alone and after a space, so that words keep their number wherever they stand.
        return self.count(word) == 1 and self.count(f"{word} {word}") == 2

    def count(self, text: str) -> int:
        """Tokens of the text without control tokens; words, without a tokenizer."""
        if not self.exact:
            return len(text.split())
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def draw(self, rng: np.random.Generator, num_tokens: int) -> str:
        """
        Words that are `num_tokens` tokens; a shorter text of the same stream begins a longer one.

        Raises:
            WorkloadError: the tokenizer gives no text of exactly this length.
        """
        words = self._words(rng, num_tokens)
        for _ in range(MAX_ROUNDS):
            missing = num_tokens - self.count(text := " ".join(words))
            if not missing:
                return text
            words = words + self._words(rng, missing) if missing > 0 else words[:missing]
        raise WorkloadError(
            f"no text of exactly {num_tokens} tokens was found with this tokenizer; "
            "use style ids, or no tokenizer"
        )

    def _words(self, rng: np.random.Generator, count: int) -> list[str]:
        return [
            self.vocabulary[number] for number in rng.integers(len(self.vocabulary), size=count)
        ]


def _load_tokenizer(path: Path) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise WorkloadError(
            "text of an exact length needs the package tokenizers; pip install tokenizers"
        ) from error
    if not path.is_file():
        raise WorkloadError(f"tokenizer {str(path)!r} is no file; give a tokenizer.json")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises the bare class
        raise WorkloadError(f"tokenizer {str(path)!r} cannot be read: {error}") from error


def draw_ids(
    rng: np.random.Generator, num_tokens: int, number: int, low: int, high: int
) -> list[int]:
    """
    `num_tokens` ids from low up to high (not included), the first one chosen by `number`.

    Up to high - low numbers in a row have different first ids, so no two of their prompts share a
    block of a prefix cache.
    """
    ids = rng.integers(low, high, size=num_tokens)
    ids[0] = low + number % (high - low)
    return [int(token) for token in ids]
