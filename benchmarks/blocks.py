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
                server,
                workload,
                ONE_BY_ONE,
                settings,
                run_id=f"quality-{seed}",
                on_progress=self.on_progress,
            )
            write_cell(result, self.directory / f"quality-{'ab'[len(answers)]}")
            answers.append(result.records)
            await arm.pause()
        for arm in arms:
            await arm.wake()
        return compare_answers(*answers)

    async def ping_pong(
        self,
        arms: tuple[Arm, Arm],
        seed: int,
        *,
        alpha: float,
        margin: float,
        aa_pairs: int | None = None,
        begin: Callable[[str], None] = lambda _: None,
    ) -> tuple[PingPong | None, PingPong]:
        """
        Latency at one request at a time, each prompt through both; A against itself first.

        Args:
            aa_pairs: Of A against itself, with other prompts: a server that takes no salt has the
                first ones in its cache then. None is one for each request, 0 leaves it out.
            begin: Called with what begins.
        """
        number = 0

        async def send(arm: Arm, item: Item) -> RequestRecord:
            nonlocal number
            number += 1
            server = self.servers[arm]
            salt = f"ping-pong-{self.begun}-{seed}-{number}" if server.salts else None
            salted = dataclasses.replace(server.sending, salt=salt)
            return (await offer(salted, ONE_BY_ONE, [item])).records[0]

        async def play(
            both: tuple[Arm, Arm], items: list[Item], floor: PingPong | None = None
        ) -> PingPong:
            return await ping_pong(
                send,
                both,
                items,
                seed=seed,
                noise_floors=noise_floors(floor.metrics) if floor else None,
                alpha=alpha,
                margin=margin,
                on_progress=self.on_progress,
            )

        begin("warming up")
        workload = self.materialise(seed)
        for item in workload.warm_up:
            for arm in arms:
                await send(arm, item)
        floor = None
        if aa_pairs != 0:
            begin("A against itself")
            others = self.materialise(seed + 1).items[:aa_pairs]
            floor = await play((arms[0], arms[0]), others)
        begin("A against B")
        return floor, await play(arms, workload.items, floor)
