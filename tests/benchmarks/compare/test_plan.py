"""The order of the pairs, and what the two of a pair share."""

from __future__ import annotations

import pytest

from benchmarks.compare.plan import Block, Stage, draw_orders


@pytest.mark.parametrize("seed", range(5))
def test_linear_drift_cancels(seed: int) -> None:
    """Of every two pairs one is AB and one BA, so a constant slowing adds up to nothing."""
    orders = draw_orders(16, seed)
    # Block k takes time k. In AB, A is one earlier than B: a - b = -1; in BA +1.
    drift = [-1 if order == "AB" else 1 for order in orders]
    assert [sum(drift[i : i + 2]) for i in range(0, 16, 2)] == [0] * 8


def test_drawn_by_the_seed() -> None:
    """A seed gives one order, and seeds give different ones."""
    assert draw_orders(16, 3) == draw_orders(16, 3)
    assert len({tuple(draw_orders(16, seed)) for seed in range(10)}) > 5


def test_odd_number() -> None:
    """A last odd pair is either; the first of the two in a longer plan."""
    assert draw_orders(7, 1) == draw_orders(8, 1)[:7]
    assert draw_orders(0, 1) == []


def test_a_pair_shares_its_prompts() -> None:
    """Both halves of a pair send the same, and the next pair something else."""
    a, b = Block(1, "a_b", 7, "a"), Block(1, "a_b", 7, "b")
    following = Block(1, "a_b", 8, "a")
    assert a.prompt_seed == b.prompt_seed
    assert a.prompt_seed != following.prompt_seed
    assert a.cache_salt != following.cache_salt
    assert (a.directory, b.directory) == ("a_b-07-a", "a_b-07-b")


@pytest.mark.parametrize("stage", ["a_a", "a_b"])
def test_one_server_as_both_arms_finds_no_cache(stage: Stage) -> None:
    """Where one server gets both halves, the prompts are shared and the salts are not."""
    one, two = Block(1, stage, 0, "a"), Block(1, stage, 0, "b")
    assert one.prompt_seed == two.prompt_seed
    assert one.cache_salt != two.cache_salt


def test_another_seed_sends_other_prompts() -> None:
    """Two comparisons with different seeds share no prompts."""
    seeds = {Block(seed, "a_b", number, "a").prompt_seed for seed in (1, 2) for number in range(9)}
    assert len(seeds) == 18
