"""What each sequence costs the others in a step, from what the start has measured."""

from __future__ import annotations

import math

import pytest

from gemma_serve.engine.step_times import MIN_SAMPLES, StepTimes


def measure(
    times: StepTimes,
    alone_s: float,
    each_s: float,
    *batches: int,
    steps: int = MIN_SAMPLES,
    held_up_s: float = 0.0,
) -> None:
    """A round on a machine with these costs; its last step but one of each kind is held up."""
    with times.round():
        for num_sequences in (1, *batches):
            for at in range(steps):
                pause_s = held_up_s if at == steps - 2 else 0.0
                times.add(num_sequences, alone_s + (num_sequences - 1) * each_s + pause_s)


def times_of(alone_s: float, each_s: float, *batches: int, steps: int = MIN_SAMPLES) -> StepTimes:
    """What one round has taught."""
    times = StepTimes()
    measure(times, alone_s, each_s, *batches, steps=steps)
    return times


@pytest.mark.parametrize(
    ("each_s", "slowdown", "most"),
    [
        (0.001, 1.25, 12),  # a quarter of 50 ms is 12.5 times 1 ms
        (0.001, 1.51, 25),
        (0.025, 1.25, 1),  # never none
        (0.0, 1.25, math.inf),
        (-0.001, 1.25, math.inf),
    ],
)
def test_most_within(each_s: float, slowdown: float, most: float) -> None:
    """As many as lengthen a step of 50 ms by no more than so much."""
    assert times_of(0.05, each_s, 8).most_within(slowdown) == most


def test_nothing_is_bounded_by_what_is_not_known() -> None:
    """Steps of one sequence, and of several, have to be known."""
    unknown = times_of(0.05, 0.001, 2, steps=MIN_SAMPLES - 1)
    for times in (StepTimes(), times_of(0.05, 0.001), unknown):
        assert (times.most_within(1.25), times.alone_s, times.each_s) == (math.inf, None, None)
    assert times_of(0.05, 0.001, 2).most_within(1.25) == 12


def test_a_machine_that_is_slow_for_a_while() -> None:
    """Twice as slow in one round of three, and held up now and then: the bound stays."""
    times = StepTimes()
    for slower in (1, 2, 1):
        measure(times, 0.05 * slower, 0.001 * slower, 8, held_up_s=2.0, steps=10)
    assert (times.most_within(1.25), times.alone_s) == (12, 0.05)
    assert times.each_s == pytest.approx(0.001)


def test_a_round_that_was_disturbed_is_outvoted() -> None:
    """Something else took half of the machine while several ran."""
    times = StepTimes()
    for each_s in (0.001, 0.008, 0.001):
        measure(times, 0.05, each_s, 8)
    assert times.most_within(1.25) == 12


def test_the_bound_does_not_follow_the_load() -> None:
    """Steps after the start change nothing: the bound would decide what it is made of."""
    times = times_of(0.05, 0.001, 8)
    for _ in range(1000):
        times.add(8, 0.5)
        times.add(1, 0.01)
    assert times.most_within(1.25) == 12
