"""
What a soak is judged by: the trend of memory and counts, and late latencies against early ones.

Arithmetic alone; `soak` makes the samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, linear_regression, quantiles

TEN_MINUTES_S = 600.0
# The most that each may be.
RSS_SLOPE_MIB = 2.0  # in ten minutes
RSS_RATIO = 1.10  # at the end over after the warm-up
COUNT_DRIFT = 5.0  # file descriptors, threads
TTFT_RATIO = 1.2  # p99 of the last third over that of the first
LOG_BYTES = 1024.0  # a request
# A process that was not there for so much of the time comes and goes by its nature.
STEADY_SHARE = 0.9


@dataclass(frozen=True)
class Usage:
    """What a process had at one moment."""

    at_s: float
    rss_mib: float
    num_fds: int
    num_threads: int


@dataclass(frozen=True)
class Check:
    """A figure and the most that it may be."""

    name: str
    value: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether it is not more; what can't be told does not hold."""
        return self.value <= self.limit

    def __str__(self) -> str:
        return f"{self.name}: {self.value:.3f}, at most {self.limit:g}"


def slope(times_s: Sequence[float], values: Sequence[float], per_s: float = TEN_MINUTES_S) -> float:
    """How much the least-squares line through the values rises in `per_s` seconds."""
    return linear_regression(times_s, values).slope * per_s


def drift(values: Sequence[float]) -> float:
    """The mean of the last third less that of the first, without its sign."""
    third = max(len(values) // 3, 1)
    return abs(fmean(values[-third:]) - fmean(values[:third]))


def p99(values: Sequence[float]) -> float:
    """The 99th percentile, between the two values around it; of one value, that value."""
    return quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]


def ttft_ratio(times_s: Sequence[float], ttfts_s: Sequence[float]) -> float:
    """p99 of those sent in the last third of the time over p99 of the first third."""
    began_s, third_s = min(times_s), (max(times_s) - min(times_s)) / 3
    pairs = list(zip(times_s, ttfts_s, strict=True))
    first = [ttft_s for at_s, ttft_s in pairs if at_s <= began_s + third_s]
    last = [ttft_s for at_s, ttft_s in pairs if at_s >= began_s + 2 * third_s]
    return p99(last) / p99(first)


def steady(samples: dict[str, list[Usage]], num_samples: int) -> dict[str, list[Usage]]:
    """The processes that were there nearly all the time."""
    return {name: of for name, of in samples.items() if len(of) >= STEADY_SHARE * num_samples}


def process_checks(name: str, samples: Sequence[Usage]) -> Iterator[Check]:
    """One process after the warm-up: memory neither rises nor has risen, counts are flat."""
    times_s, rss_mib = [s.at_s for s in samples], [s.rss_mib for s in samples]
    yield Check(f"{name}: RSS, MiB in 10 min", slope(times_s, rss_mib), RSS_SLOPE_MIB)
    yield Check(f"{name}: RSS, last over first", rss_mib[-1] / rss_mib[0], RSS_RATIO)
    yield Check(f"{name}: descriptors, drift", drift([s.num_fds for s in samples]), COUNT_DRIFT)
    yield Check(f"{name}: threads, drift", drift([s.num_threads for s in samples]), COUNT_DRIFT)
