"""Which block is measured when: pairs in a drawn order, and what each sends; measures nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Order = Literal["AB", "BA"]
Stage = Literal["a_a", "a_b"]
Slot = Literal["a", "b"]


@dataclass(frozen=True)
class Block:
    """
    One half of a pair.

    Both halves send the same prompts; the next pair, and a repeated one, has another number and so
    other prompts, which no prefix cache has seen.
    """

    seed: int  # of the comparison
    stage: Stage
    number: int  # of the pair, counted through the whole comparison
    slot: Slot

    @property
    def prompt_seed(self) -> int:
        """The seed of the pair's workload: the same in both halves."""
        return int(np.random.SeedSequence([self.seed, self.number]).generate_state(1)[0])

    @property
    def cache_salt(self) -> str:
        """
        Prefix of the cache salts: another one in each half, equally long.

        One server may get both halves, in A against A or by two protocols, and would find the
        second in its cache.
        """
        return f"{self.seed}-{self.number}-{self.slot}"

    @property
    def directory(self) -> str:
        """Where its files belong, beside compare.json: 'a_b-07-a'."""
        return f"{self.stage}-{self.number:02d}-{self.slot}"


def draw_orders(num_pairs: int, seed: int) -> list[Order]:
    """
    AB or BA for each pair, at random, but one of each in every two pairs.

    A machine that gets slower at a constant pace adds to one of the two what it takes from the
    other (ABBA). A last odd pair is drawn alone.
    Source: google/benchmark docs/random_interleaving.md for the interleaving.
    """
    random = np.random.default_rng(seed)
    orders: list[Order] = []
    while len(orders) < num_pairs:
        orders += ["AB", "BA"] if random.random() < 0.5 else ["BA", "AB"]
    return orders[:num_pairs]
