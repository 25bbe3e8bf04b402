"""What is kept of a fault: how many requests, how each ended, how long until it was told so."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.faults.ledger import End, Entry
from tests.reliability.trends import Check, p99

Figures = dict[str, Any]
FAILURES = (End.REFUSED, End.FAILED)


@dataclass(frozen=True)
class Fault:
    """
    One fault: a function that injects it and holds the server to what is promised.

    Args:
        run: Takes a site and a scale; or, for servers of its own, a profile, a directory and a
            scale. Raises AssertionError where a promise is broken; returns the figures.
        overrides: Of its site in the report.
        bound_s: The longest that it may take there.
    """

    name: str
    title: str
    run: Callable[..., Figures]
    overrides: tuple[str, ...] = ()
    bound_s: float = 900.0

    def __str__(self) -> str:
        return f"{self.name} {self.title}"

    @property
    def number(self) -> int:
        """The first of its numbers."""
        return int(self.name.split()[0].removeprefix("F"))


def figures(
    entries: Iterable[Entry],
    since_s: float | None = None,
    checks: Iterable[Check] = (),
    *,
    may_break: bool = False,
    **more: Any,
) -> Figures:
    """
    The sums of a ledger, and the seconds until requests were told that they fail.

    Args:
        since_s: When the fault was, on the monotonic clock; without it, since they were sent.
        checks: Times and ratios with the most that they may be.
        may_break: The server was killed: a connection that breaks is all that it could say.
    """
    lost = (End.LOST,) if may_break else (End.LOST, End.BROKEN)
    entries = list(entries)
    failed = [entry for entry in entries if entry.end in FAILURES]
    seconds = [entry.ended_s - max(entry.began_s, since_s or 0.0) for entry in failed]
    return {
        "sent": len(entries),
        "ends": dict(collections.Counter(entry.end.value for entry in entries)),
        "lost": sum(entry.end in lost for entry in entries),
        "held_to_their_prompt": sum(entry.is_traced for entry in entries),
        "failures": dict(collections.Counter(entry.detail for entry in failed)),
        "to_failure_s": percentiles(seconds),
        "checks": [asdict(check) for check in checks],
        **more,
    }


def broken(found: Figures) -> list[str]:
    """What of the figures is not as it was promised."""
    checks = [Check(**check) for check in found.get("checks", ())]
    lost = [f"{found['lost']} requests are lost"] if found.get("lost") else []
    return [*lost, *(str(check) for check in checks if not check.holds)]


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


def ratio(seconds: Sequence[float], without: Sequence[float]) -> float:
    """How many times longer the p99 is than without the fault."""
    return round(p99(seconds) / p99(without), 3)
