"""
The blocks of a comparison, measured as cells: the same prompts through both servers.

`compare/` draws the order and judges; here is what a block sends, and where its files go.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cell import CellResult, Prepared, Settings, run_cell, write_cell
from benchmarks.compare.pingpong import PingPong, ping_pong
from benchmarks.compare.plan import Block
from benchmarks.compare.quality import compare_answers
from benchmarks.compare.run import Arm
from benchmarks.compare.verdict import noise_floors
from benchmarks.load.runner import Progress, offer
from benchmarks.machine import utc_now
from benchmarks.records import Item, Load, Quality, RequestRecord, Run
from benchmarks.workload import Workload

Materialise = Callable[[int], Workload]  # from a seed
ONE_BY_ONE = Load(mode="closed", concurrency=1)


def _now() -> str:
    return utc_now().partition("+")[0].replace(":", "")


@dataclass(frozen=True)
class Blocks:
    """Everything that the blocks of one comparison share."""

    servers: Mapping[Arm, Prepared]
    materialise: Materialise
    load: Load
    settings: Settings
    directory: Path
    on_progress: Progress | None = None
    # Part of all salts: a running server still has the blocks of the comparison before, which may
    # have had the same seed.
    begun: str = field(default_factory=_now)

    async def measure(self, arm: Arm, block: Block) -> Run:
        """One block: the pair's own prompts, warm-up first, files in its own directory."""
        workload = self.materialise(block.prompt_seed)
        settings = dataclasses.replace(self.settings, seed=block.prompt_seed)
        result = await run_cell(
            self.servers[arm],
            workload,
            self.load,
            settings,
            run_id=f"{self.begun}-{block.cache_salt}",
            on_progress=self.on_progress,
        )
        write_cell(result, self.directory / block.directory)
        return result.run

    async def quality(self, arms: tuple[Arm, Arm], seed: int) -> Quality:
        """Greedy answers of both to the same prompts, to their natural end, one at a time."""
        answers: list[list[RequestRecord]] = []
        workload = dataclasses.replace(self.materialise(seed), warm_up=[])
        for arm in arms:
            await arm.wake()
            server = self.servers[arm]
            sending = dataclasses.replace(server.sending, ignore_eos=False, keep_text=True)
            server = dataclasses.replace(server, sending=sending)
            # A salt of its own in a prompt would make it another prompt; nothing is timed here.
            settings = dataclasses.replace(self.settings, seed=seed, keep_text=True, cold=False)
            result: CellResult = await run_cell(
                server, workload, ONE_BY_ONE, settings, run_id=f"quality-{seed}"
            )
            write_cell(result, self.directory / f"quality-{'ab'[len(answers)]}")
            answers.append(result.records)
            await arm.pause()
        for arm in arms:
            await arm.wake()
        return compare_answers(*answers)

    async def ping_pong(self, arms: tuple[Arm, Arm], seed: int) -> PingPong:
        """Latency at one request at a time, each prompt through both; A against itself first."""
        number = 0

        async def send(arm: Arm, item: Item) -> RequestRecord:
            nonlocal number
            number += 1
            sending = self.servers[arm].sending
            salt = f"ping-pong-{self.begun}-{seed}-{number}"
            salted = dataclasses.replace(sending, salt=salt)
            return (await offer(salted, ONE_BY_ONE, [item])).records[0]

        items = self.materialise(seed).items
        floor = await ping_pong(send, (arms[0], arms[0]), items, seed=seed)
        return await ping_pong(
            send, arms, items, seed=seed, noise_floors=noise_floors(floor.metrics)
        )
