"""What is kept of a fault: how many requests, how each ended, how long until it was told so."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.faults.ledger import End, Entry

Figures = dict[str, Any]
FAILURES = (End.REFUSED, End.FAILED)


@dataclass(frozen=True)
class Fault:
    """
    One fault: a function that injects it and holds the server to what is promised.

    Args:
        run: Takes a site and a scale; or, for servers of its own, a profile, a directory and a
            scale. Raises AssertionError where a promise is broken; returns the figures.
    """

    name: str
    title: str
    run: Callable[..., Figures]


def figures(entries: Iterable[Entry], since_s: float | None = None, **more: Any) -> Figures:
    """
    The sums of a ledger, and the seconds until requests were told that they fail.

    Args:
        since_s: When the fault was, on the monotonic clock; without it, since they were sent.
    """
    entries = list(entries)
    failed = [entry for entry in entries if entry.end in FAILURES]
    seconds = [entry.ended_s - max(entry.began_s, since_s or 0.0) for entry in failed]
    return {
        "sent": len(entries),
        "ends": dict(collections.Counter(entry.end.value for entry in entries)),
        "lost": sum(entry.end is End.LOST for entry in entries),
        "failures": dict(collections.Counter(entry.detail for entry in failed)),
        "to_failure_s": percentiles(seconds),
        **more,
    }


def ttfts_s(entries: Iterable[Entry]) -> list[float]:
    """The times to the first token of the streams that were answered."""
    return [entry.ttft_s for entry in entries if entry.ttft_s and entry.end is End.COMPLETED]


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the largest; nothing of nothing."""
    if not seconds:
        return {}
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3)

    return {"p50": at(0.5), "p99": at(0.99), "max": round(ordered[-1], 3)}
