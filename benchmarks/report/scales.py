"""From values to pixels: linear and logarithmic scales, and ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ROUND_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Linear:
    """Equal steps are equally long."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]

    def __call__(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, part)) * (self.end - self.start)


@dataclass(frozen=True)
class Log:
    """Equal ratios are equally long."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]

    def __call__(self, value: float) -> float:
        held = min(self.high, max(self.low, value))
        part = math.log(held / self.low) / math.log(self.high / self.low)
        return self.start + part * (self.end - self.start)


Scale = Linear | Log


def linear(
    values: Sequence[float], start: float, end: float, *, zero: bool = True, count: int = 5
) -> Linear:
    """A linear scale whose ends are round numbers that enclose the values, and 0 if asked."""
    low, high = min(values), max(values)
    low = min(0.0, low) if zero else low
    if high <= low:
        high = low + (abs(low) or 1.0)
    step = round_step((high - low) / count)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return Linear(low, high, start, end, ticks_between(low, high, step))


def integers(low: float, high: float, start: float, end: float, count: int = 8) -> Linear:
    """A scale of whole numbers that ends where the values do, with room of half a step."""
    step = max(1.0, round_step((high - low) / count))
    step = 3.0 if step == 2.5 else step
    first = math.ceil(low / step) * step
    return Linear(low - 0.5, high + 0.5, start, end, ticks_between(first, high, step))


def log(
    values: Sequence[float], start: float, end: float, pad: float = 1.1, least: float = 1.5
) -> Log:
    """A logarithmic scale around positive values, padded, and at least this ratio long."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive) / pad, max(positive) * pad
    if high / low < least:
        low, high = low / least**0.5, high * least**0.5
    return Log(low, high, start, end, log_ticks(low, high))


def round_step(rough: float) -> float:
    """The next round number not below `rough`: 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in ROUND_STEPS if step * power >= rough * (1 - 1e-9))


def ticks_between(low: float, high: float, step: float) -> list[float]:
    """The multiples of a step from low to high, free of rounding dust."""
    first = round(low / step)
    number = math.floor((high - first * step) / step + 1e-9)
    return [float(f"{(first + i) * step:.12g}") for i in range(number + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis: powers of ten, with 2 and 5, or finer in a short one."""
    decades = math.log10(high / low)
    if decades < 0.7:  # from just above 2 to just below 10 is one tick of 1, 2, 5
        return [tick for tick in _linear_ticks(low, high) if low <= tick <= high]
    factors = (1.0,) if decades > 4.5 else (1.0, 3.0) if decades > 2.6 else (1.0, 2.0, 5.0)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{f * 10.0**e:.12g}") for e in exponents for f in factors]
    return [tick for tick in ticks if low <= tick <= high]


def _linear_ticks(low: float, high: float) -> list[float]:
    step = round_step((high - low) / 7)
    return ticks_between(math.ceil(low / step) * step, high, step)
