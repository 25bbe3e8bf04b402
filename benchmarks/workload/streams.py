"""
Independent random streams out of one seed, one for each purpose and request.

A request's own draws depend on its number alone, so the first n requests of a longer workload are
those of a shorter one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from benchmarks.records import Phase
from benchmarks.workload.errors import WorkloadError


class Purpose(IntEnum):
    """What a stream is for; the numbers are part of what a seed means."""

    INPUT = 0
    OUTPUT = 1
    PROMPT = 2
    PREFIX = 3
    BLOCK = 4
    IMAGE = 5
    ORDER = 6
    FIRST_INPUT = 7


@dataclass(frozen=True)
class Streams:
    """The streams of one phase; warm-up has its own, so that its prompts are others."""

    seed: int
    phase: Phase

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise WorkloadError(f"seed={self.seed} is below 0; give 0 or more")

    def get(self, purpose: Purpose, *numbers: int) -> np.random.Generator:
        """A generator that starts anew with every call."""
        key = (int(self.phase == "warm_up"), int(purpose), *numbers)
        # PCG64 by name: numpy may give default_rng another one some day.
        return np.random.Generator(
            np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=key))
        )

    def number(self, index: int) -> int:
        """A number that no request of the other phase has: warm-up counts down from -1."""
        return index if self.phase == "measured" else -1 - index
