"""How long a decoding step takes, and what each sequence in it costs the others."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

# Of the last steps, as many as tell apart a machine that has changed from one that was held up.
NUM_ALONE = 32
NUM_SHARED = 64
# Before there are so many of either kind, nothing is known.
MIN_SAMPLES = 8
# So many of a hundred, the longest for their size, were held up by something else.
HELD_UP = 0.1


class StepTimes:
    """
    A step of n sequences takes `alone_s + (n - 1) x each_s`, as the last ones show.

    Steps that computed prompts are not among them. `each_s` is the slope of the line from the step
    of one sequence to those of late: where the curve bends, it is the mean slope up to the load
    that there is, and a bound that follows from it settles where the two meet.

    Source: Agrawal et al., Sarathi-Serve (OSDI 2024), whose token budget is made of such a profile
    """

    def __init__(self) -> None:
        self._alone_s: deque[float] = deque(maxlen=NUM_ALONE)
        self._shared: deque[tuple[int, float]] = deque(maxlen=NUM_SHARED)

    def add(self, num_sequences: int, seconds: float) -> None:
        """One more step, and how many sequences got a token of it."""
        if num_sequences == 1:
            self._alone_s.append(seconds)
        else:
            self._shared.append((num_sequences, seconds))

    @property
    def alone_s(self) -> float | None:
        """A step of one sequence."""
        return median(self._alone_s) if len(self._alone_s) >= MIN_SAMPLES else None

    @property
    def each_s(self) -> float | None:
        """What each further sequence adds to a step."""
        alone_s = self.alone_s
        if alone_s is None or len(self._shared) < MIN_SAMPLES:
            return None
        costs = sorted(((seconds - alone_s) / (n - 1), n - 1) for n, seconds in self._shared)
        usual = costs[: math.ceil(len(costs) * (1 - HELD_UP))]
        return max(sum(each_s * n for each_s, n in usual) / sum(n for _, n in usual), 0.0)

    def most_within(self, slowdown: float) -> float:
        """
        The most sequences that lengthen the step of another one no more than so many times.

        Returns:
            At least 1; infinity where they cost nothing, or nothing is known yet.
        """
        alone_s, each_s = self.alone_s, self.each_s
        if not alone_s or not each_s:
            return math.inf
        return max(math.floor((slowdown - 1) * alone_s / each_s), 1)
