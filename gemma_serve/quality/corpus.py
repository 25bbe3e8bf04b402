"""The texts that ship with gemma-serve (`texts/SOURCES.md`), cut into windows of token ids."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import numpy as np
import numpy.typing as npt

# The first windows are a mixture too: a short check takes them in this order.
TEXTS = (
    *("en", "code", "zh", "de", "ar", "maths", "ru"),
    *("hi", "ja", "es", "fr", "ko", "it", "pt"),
)
# Long enough that what is far back matters, short enough that the logits of one (tokens times
# vocabulary in float32: 0.5 GiB for Gemma 3) fit beside any model.
WINDOW_TOKENS = 512


@dataclass(frozen=True)
class Windows:
    """Token ids of equal length, each window beginning with BOS, and the text each is from."""

    token_ids: npt.NDArray[np.int32]  # (num_windows, WINDOW_TOKENS)
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)


def read_text(name: str) -> str:
    """One of the texts."""
    file = resources.files("gemma_serve.quality") / "texts" / f"{name}.txt"
    return file.read_bytes().decode("utf-8")


def corpus_sha256() -> str:
    """Of all texts, in order."""
    digest = hashlib.sha256()
    for name in TEXTS:
        digest.update(f"{name}\0{read_text(name)}\0".encode())
    return digest.hexdigest()


def cut_windows(encode: Callable[[str], list[int]], bos_token_id: int) -> Windows:
    """
    All whole windows: the first of every text, then the second of every text, and so on.

    Args:
        encode: The model's tokenizer, without special tokens.
    """
    rows = WINDOW_TOKENS - 1
    ids = {name: encode(read_text(name)) for name in TEXTS}
    most = max(len(of_text) for of_text in ids.values()) // rows
    places = [
        (name, at * rows)
        for at in range(most)
        for name in TEXTS
        if len(ids[name]) >= (at + 1) * rows
    ]
    cut = [[bos_token_id, *ids[name][start : start + rows]] for name, start in places]
    token_ids = np.array(cut, dtype=np.int32).reshape(-1, WINDOW_TOKENS)
    return Windows(token_ids, tuple(name for name, _ in places))


def ids_sha256(token_ids: npt.NDArray[np.int32]) -> str:
    """Of the ids themselves: equal for equal windows, whatever machine cut them."""
    shape = ",".join(map(str, token_ids.shape))
    return hashlib.sha256(shape.encode() + token_ids.astype("<i4").tobytes()).hexdigest()
