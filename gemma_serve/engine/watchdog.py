"""
Does the engine get on? Idle, running and saturated are told apart from stalled and wedged.

A sign of life is a finished step, or an answer to a ping, which an engine core gives between two
steps. So an idle engine gives signs, and one with a thousand requests in its queue does too: load
alone never looks like a hang. Only a step that lasts can; what is waited for is the longest of

- the bound that the profile sets (`limits.stall_s`, `limits.wedge_s`), and
- `PATIENCE` times the slowest step seen, as pings measure it, where nothing but the step kept them
  waiting: neither a stall nor a signal that stopped the engine for a while;

and on a CPU, as long as every worker computes (its CPU time grows), nothing is called a hang: the
first prefill of a large chunk may take minutes there.

Silence is counted in looks, not by the clock: after a pause of the whole machine, or of this
process alone, it goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# A step may be this much longer than any before: another length, a busy neighbour.
PATIENCE = 4.0
# More than this between two looks was a pause of ours, and says nothing of the engine.
MAX_LOOK_S = 1.0


class Progress(StrEnum):
    """What the engine is doing, from the outside."""

    IDLE = "idle"
    RUNNING = "running"
    SATURATED = "saturated"  # requests wait for their turn
    STALLED = "stalled"
    WEDGED = "wedged"


@dataclass(frozen=True)
class Sight:
    """What is seen of the engine at one moment."""

    now_s: float
    last_sign_s: float  # of the engine core that has been silent the longest
    requests: int = 0  # in its hands
    waiting: int = 0  # of those, by the scheduler
    computing: bool = False  # whether the kernel sees every worker compute
    stopped: bool = False  # whether it sees one that a signal keeps from running


class Watchdog:
    """A verdict for each look at the engine."""

    def __init__(self, stall_s: float, wedge_s: float) -> None:
        self.stall_s, self.wedge_s = stall_s, wedge_s
        self.silent_s = 0.0
        self.slowest_step_s = 0.0
        self._last_sign_s = self._last_look_s = float("-inf")
        self._is_measured = True  # whether the ping that is under way tells of a step

    @property
    def is_long(self) -> bool:
        """Whether it matters what keeps the engine: such a silence may raise a bound."""
        return self.silent_s > self.stall_s / PATIENCE

    def asked(self) -> None:
        """A ping is sent."""
        self._is_measured = True

    def answered(self, step_s: float) -> None:
        """A ping was answered after so long: the rest of the step that it came into."""
        # Else each stop would have the next one seen later.
        if self._is_measured:
            self.slowest_step_s = max(self.slowest_step_s, step_s)

    def look(self, sight: Sight) -> Progress:
        """What this sight means, after those before it."""
        self._count_silence(sight)
        if sight.stopped or self.silent_s >= self.stall_s:
            self._is_measured = False
        if not sight.computing:
            patience_s = PATIENCE * self.slowest_step_s
            if self.silent_s >= max(self.wedge_s, patience_s):
                return Progress.WEDGED
            if self.silent_s >= max(self.stall_s, patience_s):
                return Progress.STALLED
        if not sight.requests:
            return Progress.IDLE
        return Progress.SATURATED if sight.waiting else Progress.RUNNING

    def _count_silence(self, sight: Sight) -> None:
        since_look_s = min(sight.now_s - self._last_look_s, MAX_LOOK_S)
        self._last_look_s = sight.now_s
        if sight.last_sign_s > self._last_sign_s:
            self._last_sign_s, self.silent_s = sight.last_sign_s, 0.0
        else:
            self.silent_s += since_look_s
