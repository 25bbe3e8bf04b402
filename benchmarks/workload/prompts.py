"""Prompts put together from parts, as chat text, plain text or token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.workload.spec import Style
from benchmarks.workload.streams import Purpose, Streams
from benchmarks.workload.text import Text, draw_ids


@dataclass(frozen=True)
class Part:
    """A stretch of a prompt: equal parts of equal streams are equal tokens."""

    rng: np.random.Generator
    num_tokens: int
    number: int  # chooses the first token of ids


Write = Callable[[Sequence[Part]], dict[str, Any]]


def writer(style: Style, text: Text, ids: tuple[int, int], seed: int) -> Write:
    """What turns parts into the fields of an Item."""
    low, high = ids
    # Another seed's prompts begin elsewhere, so that a run does not find the last one's blocks.
    offset = int(Streams(seed, "measured").get(Purpose.ORDER).integers(high - low))

    def write_ids(parts: Sequence[Part]) -> dict[str, Any]:
        drawn = [draw_ids(p.rng, p.num_tokens, offset + p.number, low, high) for p in parts]
        return {"prompt_token_ids": [token for part in drawn for token in part]}

    def write_text(parts: Sequence[Part]) -> dict[str, Any]:
        joined = " ".join(text.draw(part.rng, part.num_tokens) for part in parts)
        return {"prompt": joined} if style == "text-completion" else user(joined)

    return write_ids if style == "ids" else write_text


def user(content: str | list[dict[str, Any]]) -> dict[str, Any]:
    """An Item's field: a chat of one user message."""
    return {"messages": [{"role": "user", "content": content}]}
