"""Two texts that should be the same: where they part, and whether that counts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gemma_serve.triton_check.golden import GoldenError

BEFORE = 24
AFTER = 40


@dataclass(frozen=True)
class TextRule:
    """How many of a text's first characters have to be the same; None is all of them."""

    num_characters: int | None = None

    def counts(self, recorded: str, now: str) -> bool:
        """Whether these texts differ where they must not."""
        return recorded[: self.num_characters] != now[: self.num_characters]

    @property
    def is_exact(self) -> bool:
        """Whether everything has to be the same."""
        return self.num_characters is None

    def __str__(self) -> str:
        named = {None: "exact", 0: "ignore"}
        return named.get(self.num_characters, f"prefix:{self.num_characters}")


EXACT = TextRule()


def read_rule(word: str) -> TextRule:
    """
    The rule that `--text` names.

    Raises:
        GoldenError: it is none of the three.
    """
    if word in ("exact", "ignore"):
        return TextRule(None if word == "exact" else 0)
    if found := re.fullmatch(r"prefix:([1-9][0-9]{0,8})", word, re.ASCII):
        return TextRule(int(found[1]))
    raise GoldenError(
        f"--text is {word[:40]!r}; use exact, ignore, or prefix:N for the first N characters."
    )


@dataclass(frozen=True)
class Divergence:
    """Where two texts part; positions and lengths are characters."""

    at: int
    recorded_length: int
    length: int
    before: str  # the end of what both begin with
    recorded: str
    now: str

    @property
    def length_ratio(self) -> float | None:
        """Of the answer to the recorded one."""
        return self.length / self.recorded_length if self.recorded_length else None

    @property
    def equal_share(self) -> float:
        """Of the longer text, what comes before the first difference."""
        return self.at / max(self.recorded_length, self.length)


def divergence(recorded: str, now: str) -> Divergence:
    """Where two different texts part."""
    pairs = enumerate(zip(recorded, now, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(recorded), len(now)))
    end = at + AFTER
    return Divergence(
        at,
        len(recorded),
        len(now),
        recorded[max(0, at - BEFORE) : at],
        recorded[at:end],
        now[at:end],
    )
