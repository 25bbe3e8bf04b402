"""Values to pixels, and ticks at round numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.report.scales import integers, linear, log, log_ticks, round_step, ticks_between

POSITIVE = st.floats(min_value=1e-6, max_value=1e9)


@pytest.mark.parametrize(
    ("rough", "step"), [(0.9, 1), (1.1, 2), (2.2, 2.5), (3, 5), (70, 100), (0.0012, 0.002)]
)
def test_round_step(rough: float, step: float) -> None:
    """A step is 1, 2, 2.5 or 5 times a power of ten, and not below what was asked for."""
    assert round_step(rough) == pytest.approx(step)


def test_linear_scale() -> None:
    """The ends are round and enclose the values; pixels are in proportion."""
    scale = linear([3.0, 87.0], 100, 300)

    # 87 / 5 = 17.4: a step of 20 from 0 to 100; 50 is half of 100 to 300
    assert (scale.low, scale.high, list(scale.ticks)) == (0, 100, [0, 20, 40, 60, 80, 100])
    assert scale(50) == 200
    assert scale(1000) == 300


def test_linear_scale_of_one_value() -> None:
    """A single value, or only zeros, still has a scale with a length."""
    assert linear([0.0], 0, 10).high > 0
    assert linear([5.0], 0, 10, zero=False).high > 5


def test_log_scale() -> None:
    """Equal ratios are equally far apart; the middle of 1 and 100 is 10."""
    scale = log([1.0, 100.0], 0, 200, pad=1.0)

    assert scale(10) == pytest.approx(100)
    assert list(scale.ticks) == [1, 2, 5, 10, 20, 50, 100]
    assert scale(0) == 0  # has no logarithm: held at the edge


def test_log_ticks_of_a_short_axis() -> None:
    """Within less than a decade ticks are those of a linear axis."""
    assert log_ticks(0.88, 1.21) == [0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2]


def test_integers() -> None:
    """Counted things have whole ticks, and half a step of room at both ends."""
    scale = integers(1, 8, 0, 80)

    assert list(scale.ticks) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (scale.low, scale.high) == (0.5, 8.5)
    assert all(tick.is_integer() for tick in integers(1, 20, 0, 80).ticks)


def test_ticks_have_no_dust() -> None:
    """0.1 times 3 is written 0.3."""
    assert ticks_between(0, 0.5, 0.1) == [0, 0.1, 0.2, 0.3, 0.4, 0.5]


@example([220000001.0, 723831223.0])
@given(st.lists(POSITIVE, min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_every_value_has_its_place(values: list[float]) -> None:
    """On both scales order is kept, all is inside, and there are two to twelve ticks or so."""
    for scale in (linear(values, 0, 500), log(values, 0, 500)):
        places = [scale(value) for value in sorted(values)]
        assert places == sorted(places)
        assert all(0 <= place <= 500 and math.isfinite(place) for place in places)
        assert 2 <= len(scale.ticks) <= 40
        assert all(scale.low - 1e-9 <= t <= scale.high * (1 + 1e-9) for t in scale.ticks)
