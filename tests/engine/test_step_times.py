"""What each sequence costs the others in a step, from the steps that there were."""

from __future__ import annotations

import math

import pytest

from gemma_serve.engine.step_times import MIN_SAMPLES, NUM_SHARED, StepTimes


def times_of(alone_s: float, each_s: float, *batches: int, steps: int = MIN_SAMPLES) -> StepTimes:
    """So many steps of each batch on a machine with these costs."""
    times = StepTimes()
    for num_sequences in (1, *batches):
        for _ in range(steps):
            times.add(num_sequences, alone_s + (num_sequences - 1) * each_s)
    return times


@pytest.mark.parametrize(
    ("each_s", "slowdown", "most"),
    [
        (0.001, 1.25, 12),  # a quarter of 50 ms is 12.5 times 1 ms
        (0.001, 1.51, 25),
        (0.025, 1.25, 1),  # never none
        (0.0, 1.25, math.inf),
    ],
)
def test_most_within(each_s: float, slowdown: float, most: float) -> None:
    """As many as lengthen a step of 50 ms by no more than so much."""
    assert times_of(0.05, each_s, 2, 8, 32).most_within(slowdown) == most


def test_nothing_is_bounded_by_what_is_not_known() -> None:
    """Steps of one sequence, and of several, have to be known first."""
    assert StepTimes().most_within(1.25) == math.inf
    assert times_of(0.05, 0.001).most_within(1.25) == math.inf
    assert times_of(0.05, 0.001, 2, steps=MIN_SAMPLES - 1).most_within(1.25) == math.inf
    assert times_of(0.05, 0.001, 2).most_within(1.25) == 12


def test_steps_that_were_held_up_do_not_count() -> None:
    """Now and then a pause of the machine changes nothing."""
    times = StepTimes()
    for at in range(60):
        pause_s = 2.0 if at % 20 == 0 else 0.0
        times.add(1, 0.05 + pause_s)
        times.add(11, 0.06 + pause_s)
    assert times.most_within(1.25) == 12


def test_a_machine_that_changes() -> None:
    """The last steps count: where others take its time away, fewer sequences are too many."""
    times = times_of(0.05, 0.001, 8)
    for _ in range(NUM_SHARED):
        times.add(8, 0.05 + 7 * 0.005)
    assert times.most_within(1.25) == 2


def test_a_curve_that_bends() -> None:
    """The slope is that up to the load that there is, and so the bound is where both meet."""
    times = times_of(0.05, 0.0)
    most = math.inf
    for _ in range(1000):  # flat up to 16, then 2 ms each, so that 22 take a quarter longer
        num_sequences = int(min(most, 64)) + 1
        times.add(num_sequences, 0.05 + max(num_sequences - 16, 0) * 0.002)
        most = times.most_within(1.25)
    assert 18 <= most <= 26
