"""The arithmetic by which a soak is judged, on figures that were worked out by hand."""

from __future__ import annotations

import math

import pytest

from tests.reliability.trends import (
    Check,
    Usage,
    drift,
    p99,
    process_checks,
    slope,
    steady,
    ttft_ratio,
)


def test_slope() -> None:
    """
    The least-squares rise in ten minutes.

    Of (0, 100), (60, 101), (120, 105): mean time 60, mean value 102; the products of what differs
    from them sum to (-60)(-2) + 0 + 60 x 3 = 300, the squares to 7200: 1/24 a second, 25 in 600 s.
    """
    assert slope([0, 60, 120], [100, 101, 105]) == pytest.approx(25)
    assert slope([0, 10, 20, 30], [7, 7, 7, 7]) == 0
    assert slope([0, 300], [50, 49]) == pytest.approx(-2)


def test_drift() -> None:
    """Means of the outer thirds: (12 + 14) / 2 - (10 + 10) / 2 = 3, also downwards."""
    assert drift([10, 10, 99, 0, 12, 14]) == 3
    assert drift([14, 12, 0, 99, 10, 10]) == 3
    assert drift([5]) == 0


def test_p99() -> None:
    """Of 1 to 101 the value at 0.99 x 100 steps is 100; of 0 and 1 it is 0.99."""
    assert p99([float(n) for n in range(1, 102)]) == pytest.approx(100)
    assert p99([0.0, 1.0]) == pytest.approx(0.99)
    assert p99([3.0]) == 3.0


def test_ttft_ratio() -> None:
    """Thirds of the time, not of the requests: 0 to 10 s against 20 to 30 s."""
    times_s = [0, 5, 10, 11, 19, 20, 30]
    ttfts_s = [0.1, 0.1, 0.1, 9, 9, 0.15, 0.15]
    assert ttft_ratio(times_s, ttfts_s) == pytest.approx(1.5)


def test_steady() -> None:
    """A process of 8 samples of 10 comes and goes; one of 9 is judged."""
    usage = Usage(0, 1, 1, 1)
    samples = {"engine": [usage] * 9, "compiler": [usage] * 8}
    assert list(steady(samples, 10)) == ["engine"]


def test_process_checks() -> None:
    """A process that grows by 1 MiB a minute, from 100 to 110 MiB, breaks one of four promises."""
    samples = [Usage(60.0 * n, 100.0 + n, 20, 8) for n in range(11)]
    found = {check.name: check for check in process_checks("API", samples)}

    assert found["API: RSS, MiB in 10 min"].value == pytest.approx(10)
    assert found["API: RSS, last over first"].value == pytest.approx(1.1)
    assert found["API: descriptors, drift"].value == found["API: threads, drift"].value == 0
    assert [name for name, check in found.items() if not check.holds] == ["API: RSS, MiB in 10 min"]


def test_what_cannot_be_told_does_not_hold() -> None:
    """No figure is no success."""
    assert Check("a", 1.2, 1.2).holds
    assert not Check("a", 1.21, 1.2).holds
    assert not Check("a", math.nan, 1.2).holds
