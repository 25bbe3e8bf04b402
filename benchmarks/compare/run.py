"""
The course of a comparison: A against itself, then A and B in drawn pairs until a look decides.

How a block is measured is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

from benchmarks.compare.metrics import RUN_METRICS
from benchmarks.compare.plan import Block, Order, Slot, Stage, draw_orders
from benchmarks.compare.statistics import ALPHA, LOOKS, MARGIN, MIN_PAIRS, alpha_per_look
from benchmarks.compare.validity import (
    DISTURBANCES,
    RunPair,
    is_disturbed,
    merge,
    starts_check,
)
from benchmarks.compare.verdict import (
    MeasuredPair,
    Rule,
    compare_metrics,
    left_out,
    missing_metrics,
    noise_floors,
    overall,
    settled,
)
from benchmarks.records import Comparison, MetricComparison, Run, Validity


async def nothing() -> None:
    """Of a server that the harness did not start, nothing is stopped or woken."""


@dataclass(frozen=True, eq=False)
class Arm:
    """
    One of the two servers.

    `pause` and `wake` stop and continue its processes (SIGSTOP, SIGCONT), so that the idle one
    costs the other nothing; to wake a server that is awake must do no harm.
    """

    label: str
    wake: Callable[[], Awaitable[None]] = nothing
    pause: Callable[[], Awaitable[None]] = nothing


class Progress(NamedTuple):
    """The block that begins now: of pair `pair` of `num_pairs`, which may be the next look's."""

    stage: Stage
    pair: int  # from 1
    num_pairs: int
    label: str
    repeat: int  # 0 the first time
    block: int  # from 1; a repeated one keeps its number
    num_blocks: int  # at most: a look may end it before


MeasureBlock = Callable[[Arm, Block], Awaitable[Run]]
OnProgress = Callable[[Progress], None]
Restart = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Settings:
    """
    What is fixed before the first block.

    Raises:
        ValueError: with these numbers nothing could be decided.
    """

    seed: int = 0
    looks: tuple[int, ...] = LOOKS
    aa_pairs: int = 6
    alpha: float = ALPHA
    margin: float = MARGIN
    max_repeats: int = 2  # of one pair
    starts: int = 1  # of both servers; the pairs up to the first look are spread over them
    disturbances: frozenset[str] = DISTURBANCES
    argv: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rising = all(before < after for before, after in pairwise(self.looks))
        if not self.looks or self.looks[0] < MIN_PAIRS or not rising:
            raise ValueError(
                f"looks after {list(self.looks)} pairs were asked for; give rising numbers from "
                f"{MIN_PAIRS} on, like {list(LOOKS)}: fewer pairs can decide nothing"
            )
        if self.aa_pairs < 0 or self.aa_pairs == 1:
            raise ValueError(
                f"{self.aa_pairs} pairs of A against itself were asked for; "
                "an interval needs 2 or more, 6 is usual, 0 leaves the noise floor out"
            )
        if not 0 < self.margin < 1:
            raise ValueError(
                f"an equivalence margin of {self.margin} was asked for; "
                "give a part between 0 and 1, like 0.03 for 3 %"
            )
        if not 1 <= self.starts <= self.looks[0]:
            raise ValueError(
                f"{self.starts} starts of both servers were asked for; give 1 to {self.looks[0]}, "
                "as each has a pair before the first look"
            )

    def begins_anew(self, num_pairs: int) -> bool:
        """Whether both servers are started anew after so many pairs of A and B."""
        first_look = self.looks[0]
        return num_pairs in {first_look * start // self.starts for start in range(1, self.starts)}


async def compare(
    arms: tuple[Arm, Arm],
    cell_for: MeasureBlock,
    settings: Settings | None = None,
    on_progress: OnProgress | None = None,
    restart: Restart = nothing,
) -> Comparison:
    """
    Measure A against itself, then A against B, and judge; both are awake when it returns or raises.

    After each look it ends if there is a verdict. After the first, if the comparison is invalid:
    more pairs would not mend it. `restart` ends both servers and starts them anew, awake.
    """
    course = _Course(arms, cell_for, settings or Settings(), on_progress, restart)
    try:
        await course.pause()
        await course.measure()
    finally:
        for arm in arms:
            await arm.wake()
    return course.comparison()


@dataclass
class _Course:
    """The pairs so far; state of one comparison."""

    arms: tuple[Arm, Arm]
    cell_for: MeasureBlock
    settings: Settings
    on_progress: OnProgress | None
    restart: Restart
    a_a: list[RunPair] = field(default_factory=list)
    a_b: list[RunPair] = field(default_factory=list)
    repeated: list[RunPair] = field(default_factory=list)
    number: int = 0
    start: int = 1
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())

    async def pause(self) -> None:
        """Both: an arm is awake for its block alone."""
        for arm in self.arms:
            await arm.pause()

    async def measure(self) -> None:
        """Pair after pair, until a look decides."""
        settings = self.settings
        for order in draw_orders(settings.aa_pairs, settings.seed):
            self.a_a.append(await self._undisturbed("a_a", order, settings.aa_pairs))
        orders = draw_orders(settings.looks[-1], settings.seed + 1)
        for look in settings.looks:
            for order in orders[len(self.a_b) : look]:
                if settings.begins_anew(len(self.a_b)):
                    await self.restart()
                    await self.pause()
                    self.start += 1
                self.a_b.append(await self._undisturbed("a_b", order, look))
            if settled(self._metrics()) or self._validity().verdict == "INVALID":
                return

    async def _undisturbed(self, stage: Stage, order: Order, num_pairs: int) -> RunPair:
        """A pair, again while something else runs; the last one counts, whatever it is."""
        done = len(self.a_a) if stage == "a_a" else len(self.a_b)
        for repeat in range(self.settings.max_repeats + 1):
            pair = await self._pair(order, (stage, done + 1, num_pairs), repeat)
            if not is_disturbed(pair, self.settings.disturbances):
                break
            if repeat < self.settings.max_repeats:
                self.repeated.append(pair)
        return pair

    async def _pair(self, order: Order, place: tuple[Stage, int, int], repeat: int) -> RunPair:
        stage = place[0]
        runs: dict[Slot, tuple[Block, Run]] = {}
        slots: tuple[Slot, Slot] = ("a", "b") if order == "AB" else ("b", "a")
        for half, slot in enumerate(slots):
            arm = self.arms[0 if slot == "a" or stage == "a_a" else 1]
            block = Block(self.settings.seed, stage, self.number, slot)
            if self.on_progress is not None:
                self.on_progress(Progress(*place, arm.label, repeat, *self._block_of(place, half)))
            runs[slot] = (block, await self._block(arm, block))
        self.number += 1
        (a_block, a), (b_block, b) = runs["a"], runs["b"]
        return MeasuredPair(order, a, b, a_block.directory, b_block.directory, self.start)

    def _block_of(self, place: tuple[Stage, int, int], half: int) -> tuple[int, int]:
        stage, pair, _ = place
        before = pair - 1 + (self.settings.aa_pairs if stage == "a_b" else 0)
        num_pairs = self.settings.aa_pairs + self.settings.looks[-1]
        return 2 * before + half + 1, 2 * num_pairs

    async def _block(self, arm: Arm, block: Block) -> Run:
        await arm.wake()
        run = await self.cell_for(arm, block)
        await arm.pause()
        return run

    def _rule(self, looks: Sequence[int], other: str) -> Rule:
        settings = self.settings
        return Rule(alpha_per_look(looks, settings.alpha), settings.margin, settings.seed, other)

    def _a_a_metrics(self) -> list[MetricComparison]:
        return compare_metrics(RUN_METRICS, self.a_a, self._rule([self.settings.aa_pairs], "A"))

    def _metrics(self) -> list[MetricComparison]:
        floors = noise_floors(self._a_a_metrics()) if self.a_a else {}
        return compare_metrics(RUN_METRICS, self.a_b, self._rule(self.settings.looks, "B"), floors)

    def _validity(self) -> Validity:
        return merge(
            self.a_a,
            self.a_b,
            self.repeated,
            missing_metrics(RUN_METRICS, self.a_b),
            left_out=left_out(RUN_METRICS, self.a_b),
        )

    def comparison(self) -> Comparison:
        """compare.json, of the pairs so far."""
        metrics, validity = self._metrics(), self._validity()
        checks = [*validity.checks, starts_check(metrics, self.start)]
        verdict, message = overall(metrics)
        if not self.a_a:
            message += "; no noise floor: A was not measured against itself"
        invalid = validity.verdict == "INVALID"
        first = self.a_b[0]
        return Comparison(
            a=first.a.target,
            b=first.b.target,
            load=first.a.load,
            workload=first.a.workload,
            started_at=self.started_at,
            ended_at=datetime.now(UTC).isoformat(),
            argv=list(self.settings.argv),
            seed=self.settings.seed,
            host=first.a.host,
            equivalence=self.settings.margin,
            looks=list(self.settings.looks),
            starts=self.start,
            metrics=metrics,
            a_a=self._a_a_metrics() if self.a_a else [],
            validity=validity.model_copy(update={"checks": checks}),
            verdict="invalid" if invalid else verdict,
            message=_invalid_message(validity) if invalid else f"{verdict}: {message}",
        )


def _invalid_message(validity: Validity) -> str:
    red = [check for check in validity.checks if check.status == "red"]
    others = f" ({len(red) - 1} more)" if len(red) > 1 else ""
    return f"invalid: {red[0].name}: {red[0].message}{others}"
