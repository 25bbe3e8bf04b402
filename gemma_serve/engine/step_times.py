"""How long a decoding step takes, and what each sequence in it costs the others."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

# Steps of one sequence, and of several; with fewer a round says nothing.
MIN_SAMPLES = 4


@dataclass(frozen=True)
class Round:
    """Steps of one sequence and of several, one kind right after the other."""

    alone_s: float
    each: float  # what each further sequence adds to a step, as a part of `alone_s`


class StepTimes:
    """
    A step of n sequences takes `alone_s + (n - 1) x each_s`, as measured at the start.

    In rounds: a machine that something slows down for a while slows both kinds of a round, and
    leaves their ratio, of which the bound is made. Later steps are not looked at. Those of one
    sequence are missing just while there is load, and an estimate that follows the load which it
    lets in swings with it: on a CPU whose speed changed by two, from 1 to 115 within a minute.

    Source: Agrawal et al., Sarathi-Serve (OSDI 2024), whose token budget is of such a profile
    """

    def __init__(self) -> None:
        self._steps: list[tuple[int, float]] | None = None  # of the round that is on
        self._rounds: list[Round] = []

    def add(self, num_sequences: int, seconds: float) -> None:
        """One more step that computed no prompt, and how many sequences got a token of it."""
        if self._steps is not None:
            self._steps.append((num_sequences, seconds))

    @contextlib.contextmanager
    def round(self) -> Iterator[None]:
        """Learn from the steps within: some of one sequence, and some of several."""
        steps: list[tuple[int, float]] = []
        self._steps = steps
        try:
            yield
        finally:
            self._steps = None
        alone = [seconds for n, seconds in steps if n == 1]
        shared = [(n, seconds) for n, seconds in steps if n > 1]
        if min(len(alone), len(shared)) >= MIN_SAMPLES:
            alone_s = median(alone)
            each = median((seconds / alone_s - 1) / (n - 1) for n, seconds in shared)
            self._rounds.append(Round(alone_s, each))

    @property
    def alone_s(self) -> float | None:
        """A step of one sequence; None where nothing was measured."""
        return median(one.alone_s for one in self._rounds) if self._rounds else None

    @property
    def each_s(self) -> float | None:
        """What each further sequence adds to a step."""
        alone_s, each = self.alone_s, self._each
        return None if alone_s is None or each is None else alone_s * each

    def most_within(self, slowdown: float) -> float:
        """
        The most sequences that lengthen the step of another one no more than so many times.

        Returns:
            At least 1; infinity where they cost nothing, or nothing was measured.
        """
        each = self._each
        return max(math.floor((slowdown - 1) / each), 1) if each else math.inf

    @property
    def _each(self) -> float | None:
        return max(median(one.each for one in self._rounds), 0.0) if self._rounds else None
