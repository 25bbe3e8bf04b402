"""Arrival times: computed beforehand, by the seed, with the mean and spread that were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.load.schedule import arrival_times_s, units
from benchmarks.records import Item, Load


def gaps(load: Load, count: int = 20_000, seed: int = 1) -> np.ndarray:
    """The gaps between arrivals."""
    return np.diff(arrival_times_s(load, count, seed))


def test_constant_is_evenly_spaced() -> None:
    """At 4 requests a second one is due every 0.25 s, the first at once."""
    load = Load(mode="open", rate_rps=4, arrivals="constant")

    assert arrival_times_s(load, 4, seed=0) == [0.0, 0.25, 0.5, 0.75]


def test_poisson_has_the_mean_and_spread_of_an_exponential() -> None:
    """Exponential gaps: mean 1/rate, and a standard deviation equal to the mean."""
    drawn = gaps(Load(mode="open", rate_rps=50, arrivals="poisson"))

    assert drawn.mean() == pytest.approx(0.02, rel=0.03)
    assert drawn.std() == pytest.approx(0.02, rel=0.03)


@pytest.mark.parametrize("burstiness", [0.25, 4.0])
def test_gamma_has_the_burstiness_that_was_asked_for(burstiness: float) -> None:
    """Gamma gaps of shape k have a coefficient of variation of 1/sqrt(k), whatever the rate."""
    load = Load(mode="open", rate_rps=50, arrivals="gamma", burstiness=burstiness)
    drawn = gaps(load)

    assert drawn.mean() == pytest.approx(0.02, rel=0.05)
    assert drawn.std() / drawn.mean() == pytest.approx(burstiness**-0.5, rel=0.05)


def test_seed_decides() -> None:
    """The same seed gives the same times, another seed others."""
    load = Load(mode="open", rate_rps=5, arrivals="poisson")

    assert arrival_times_s(load, 9, seed=3) == arrival_times_s(load, 9, seed=3)
    assert arrival_times_s(load, 9, seed=3) != arrival_times_s(load, 9, seed=4)


@pytest.mark.parametrize("count", [0, 1])
def test_few_requests(count: int) -> None:
    """No request and one request are schedules too."""
    load = Load(mode="open", rate_rps=5, arrivals="poisson")

    assert arrival_times_s(load, count, seed=0) == [0.0] * count


def test_ramp() -> None:
    """Over a ramp of 4 s to 2 requests a second, as many are due as the rising rate adds up to."""
    load = Load(mode="open", rate_rps=2, arrivals="constant", ramp_s=4)
    times_s = arrival_times_s(load, 9, seed=0)

    # Rate 2 t / 4, so t^2 / 4 are due up to t: the n-th at 2 sqrt(n) until the fourth at 4 s; then
    # one every half second.
    assert times_s == pytest.approx([0, 2, 2 * 2**0.5, 2 * 3**0.5, 4, 4.5, 5, 5.5, 6])


def test_ramp_of_poisson_arrivals() -> None:
    """As many arrivals come in the ramp as its mean rate, half of the full one, gives."""
    load = Load(mode="open", rate_rps=50, arrivals="poisson", ramp_s=100)
    times_s = np.array(arrival_times_s(load, 20_000, seed=2))

    # 25 a second for 100 s: 2500, with a standard deviation of 50; a quarter of them in the first
    # half, 625 with 25; then 50 a second.
    assert np.count_nonzero(times_s < 100) == pytest.approx(2500, abs=4 * 50)
    assert np.count_nonzero(times_s < 50) == pytest.approx(625, abs=4 * 25)
    assert np.diff(times_s[times_s > 100]).mean() == pytest.approx(0.02, rel=0.03)


def test_turns_of_a_conversation_are_one_unit() -> None:
    """What has to be sent in order stands together, in order; the rest by itself."""
    items = [
        Item(0, 1, prompt="a"),
        Item(1, 1, prompt="b", conversation="x", turn=1),
        Item(2, 1, prompt="c", conversation="x", turn=0),
    ]

    assert [[item.index for item in unit] for unit in units(items)] == [[0], [2, 1]]
