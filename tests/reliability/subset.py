"""
What of each class of bad inputs every run of the tests sends, in at most fifteen minutes.

`make reliability` sends all of it. docs/behaviour.md shows this table, and a test holds it to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
HAND_MADE = "ABCDEFGHIJ"
LEAST_HAND_MADE = 2000


@dataclass(frozen=True)
class Part:
    """Every so many-th case; of what is drawn at random, so many, by this seed."""

    every: int = 1
    count: int = 0
    seed: int = 1

    def of(self, cases: Iterable[T]) -> Iterator[T]:
        """The cases that are sent."""
        return islice(cases, 0, None, self.every)

    def __str__(self) -> str:
        if self.count:
            return f"{self.count:,}, seed {self.seed}"
        return "all" if self.every == 1 else f"1 of {self.every}"


# F is sent by tests/api/test_bad_templates_and_tools.py, G by tests/chat/test_media_*.py; of J the
# KServe requests are in tests/api/kserve, all of them.
PARTS: Mapping[str, Part] = {
    "A": Part(),
    "B": Part(),
    "C": Part(every=11),
    "D": Part(),
    "E": Part(every=9),
    "H": Part(),
    "I": Part(),
    "J": Part(every=3),
    "K": Part(count=400),
    "L": Part(count=600),
}
