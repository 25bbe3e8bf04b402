"""Lengths: how they are written, what is drawn, and the sentence when they are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.workload import WorkloadError, parse_lengths
from benchmarks.workload.lengths import Fixed, Lognormal, Normal, Uniform


def rng() -> np.random.Generator:
    """The same stream for every test."""
    return np.random.Generator(np.random.PCG64(1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("128", Fixed(tokens=128)),
        (" 64 - 256 ", Uniform(low=64, high=256)),
        ("normal:200,50", Normal(mean=200, std=50)),
        ("normal:200,50,10,400", Normal(mean=200, std=50, min=10, max=400)),
        ("lognormal:200,0.5", Lognormal(median=200, sigma=0.5)),
        ("lognormal:mean=200,std=50,max=400", Lognormal(mean=200, std=50, max=400)),
        # floor(101 x 0.5) = floor(50.5) = 50, ceil(101 x 1.5) = ceil(151.5) = 152
        ("101±0.5", Uniform(low=50, high=152)),
        ("101+-0.5", Uniform(low=50, high=152)),
    ],
)
def test_written_lengths(text: str, expected: object) -> None:
    """Each form of text is the distribution it names."""
    assert parse_lengths(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is no number"),
        ("many", "'many' is no number"),
        ("0", "tokens=0: input should be greater than or equal to 1"),
        ("-5", "tokens=-5.0: input should be greater than or equal to 1"),
        ("nan", "tokens=nan: input should be a finite number"),
        ("2000000", "tokens=2000000: input should be less than or equal to 1000000"),
        ("5-2", "low=5 is above high=2"),
        ("64-", "'' is no number"),
        ("128±2", "a range ratio of 2 is not from 0 up to 1"),
        ("normal:200", "no std"),
        ("normal:inf,1", "mean=inf: input should be a finite number"),
        ("normal:200,50,400,10", "min=400 is above max=10"),
        ("normal:1,2,3,4,5", "5 numbers are more than mean, std, min, max"),
        ("normal:mean=1,mean=2", "mean is given twice"),
        ("lognormal:mean=200", "a lognormal takes either median and sigma, or mean and std"),
        ("gauss:1", "there is no distribution 'gauss'"),
    ],
)
def test_wrong_lengths(text: str, reason: str) -> None:
    """A mistake is one sentence: what was given, why it is wrong, what can be written."""
    with pytest.raises(WorkloadError) as caught:
        parse_lengths(text)

    assert str(caught.value) == (
        f"lengths {text!r}: {reason}; write one of 128, 64-256 (uniform), 128±0.5 (uniform, within "
        "half of 128), normal:MEAN,STD[,MIN,MAX], lognormal:MEDIAN,SIGMA[,MIN,MAX] or "
        "lognormal:mean=MEAN,std=STD"
    )


def test_fixed() -> None:
    """A fixed length is the same every time."""
    assert parse_lengths("7").sample(rng(), 3).tolist() == [7, 7, 7]


def test_uniform_reaches_both_ends() -> None:
    """Uniform lengths reach low and high, and nothing beyond."""
    assert set(parse_lengths("3-5").sample(rng(), 200).tolist()) == {3, 4, 5}


def test_normal_mean_and_std() -> None:
    """Normal lengths have the mean and the standard deviation that were asked for."""
    drawn = parse_lengths("normal:200,50").sample(rng(), 20_000)

    # The standard error of the mean is 50 / sqrt(20000) = 0.35; that of the std 50 / sqrt(40000).
    assert drawn.mean() == pytest.approx(200, abs=1.5)
    assert drawn.std() == pytest.approx(50, abs=1.0)


def test_lognormal_median_and_sigma() -> None:
    """Median and sigma are those of a lognormal: ln(length) is normal around ln(median)."""
    drawn = parse_lengths("lognormal:200,0.5").sample(rng(), 20_000)

    # Standard errors: of the median 1.25 x 0.5 / sqrt(20000) = 0.44 %, of sigma 0.5 / sqrt(40000).
    assert np.median(drawn) == pytest.approx(200, rel=0.02)
    assert np.log(drawn).std() == pytest.approx(0.5, abs=0.01)


def test_lognormal_by_mean_and_std() -> None:
    """Mean and std of the length itself become mu and sigma of its logarithm."""
    mu, sigma = Lognormal(mean=200, std=150).log_parameters()

    # 1 + (150 / 200)^2 = 1.5625; sigma^2 = ln 1.5625; median = 200 / sqrt(1.5625) = 200 / 1.25
    assert math.exp(mu) == pytest.approx(160)
    assert sigma**2 == pytest.approx(math.log(1.5625))


@given(
    st.floats(0.1, 1000),
    st.floats(0, 2000),
    st.integers(1, 50),
    st.integers(50, 400),
    st.booleans(),
)
def test_within_limits(mean: float, std: float, low: int, high: int, logarithmic: bool) -> None:
    """No draw leaves min and max, however wide the distribution is."""
    kind = Lognormal if logarithmic else Normal
    lengths = kind(mean=mean, std=std, min=low, max=high)
    drawn = lengths.sample(rng(), 50)

    assert low <= drawn.min()
    assert drawn.max() <= high == lengths.longest()


def test_at_least_one_token() -> None:
    """A draw below 1 is 1: half of a normal around 0.001 is negative."""
    assert parse_lengths("normal:0.001,10").sample(rng(), 100).min() == 1


@given(st.sampled_from(["5-900", "normal:200,50", "lognormal:200,0.5"]), st.integers(1, 60))
def test_fewer_draws_begin_more(text: str, count: int) -> None:
    """The first draws do not depend on how many there are."""
    lengths = parse_lengths(text)
    assert lengths.sample(rng(), 60)[:count].tolist() == lengths.sample(rng(), count).tolist()
