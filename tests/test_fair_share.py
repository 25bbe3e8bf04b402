"""What `scripts.fair_share` makes of its measurements: a ratio, an interval, whether it holds."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from scripts.fair_share import Block, summary, verdict


def blocks(factor: float, *, late_s: float = 0.0, tail: float = 1.0) -> list[Block]:
    """Four blocks of a hundred requests that took 50 to 60 ms, times a factor."""
    rng = random.Random(7)
    made = []
    for _ in range(4):
        ttfts_s = [factor * (0.05 + 0.01 * rng.random()) for _ in range(100)]
        ttfts_s[:4] = [ttft_s * tail for ttft_s in ttfts_s[:4]]
        made.append(Block(ttfts_s, [late_s] * 100))
    return made


@pytest.mark.parametrize(
    ("factor", "tail", "held"),
    [(1.0, 1.0, True), (1.4, 1.0, True), (1.6, 1.0, False), (1, 9, False)],
)
def test_ratio(factor: float, tail: float, *, held: bool) -> None:
    """The p99 of all requests, beside noise and alone; slow ones in a hundred count."""
    said = verdict(blocks(1.0), blocks(factor, tail=tail), 1.5)
    low, high = said["interval_95"]
    assert said["p99_ratio"] == pytest.approx(factor * tail, rel=0.1)
    assert low <= said["p99_ratio"] <= high
    assert (said["held"], said["sure"], said["client_was_in_time"]) == (held, True, True)


def test_who_is_refused_does_not_wait() -> None:
    """A server that refuses the quiet key keeps no promise, however fast it is with the rest."""
    beside = blocks(1.0)
    beside[1].refused = Counter({503: 1})
    said = verdict(blocks(1.0), beside, 1.5)
    assert (said["held"], said["refused"]) == (False, {"503": 1})


def test_late_client() -> None:
    """Requests that were sent late say little of the server."""
    assert not verdict(blocks(1.0, late_s=0.03), blocks(1.0), 1.5)["client_was_in_time"]


def test_summary() -> None:
    """Figures are in milliseconds, of all blocks and of each."""
    figures = summary(blocks(1.0))
    assert figures["requests"] == 400
    assert 50 <= figures["ttft_p50_ms"] <= figures["ttft_p99_ms"] <= figures["ttft_max_ms"] <= 60
    assert len(figures["blocks_p99_ms"]) == 4
