"""`judge TARGET`: a workload through our client and through others', on one server."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cell import CellResult, prepare, run_cell, write_cell
from benchmarks.judge import Judgement, Replay
from benchmarks.judge import judge as judge_replay
from benchmarks.options import LoadOptions, ServerOptions, WorkloadOptions
from benchmarks.serving import serving
from benchmarks.show import doing


async def judge_target(
    target: str,
    workload: WorkloadOptions,
    load: LoadOptions,
    server: ServerOptions,
    tools: Sequence[str],
    repeats: int,
    directory: Path,
) -> Judgement:
    """
    Judge one load; our own runs are kept beside judge.json.

    Raises:
        ServerError, JudgeError, ValueError: what does not start, install or fit.
    """
    offered = load.load()
    # No warm-up: the tools have none of ours, and all are to do the same work.
    made = dataclasses.replace(workload, warm_up=0).materialise(load.clients())
    settings = server.settings(workload.seed)
    numbers = itertools.count()
    async with serving(target, settings) as served:
        prepared = await prepare(
            served.endpoint, made, served.settings, label=served.label, meter=served.meter
        )

        async def measure() -> CellResult:
            number = next(numbers)
            # A salt of its own, as each tool's run has: no run finds another's prompts cached.
            result = await run_cell(prepared, made, offered, settings, run_id=f"ours-{number}")
            write_cell(result, directory / f"ours-{number}")
            return result

        replay = Replay(
            url=prepared.endpoint.url,
            model=prepared.sending.model,
            protocol=prepared.sending.protocol,
            workload=made,
            load=offered,
            api_key=served.endpoint.api_key,
            ignore_eos=prepared.sending.ignore_eos,
            salted=prepared.salts,
            token_ids=prepared.sending.token_source == "token_ids",
        )
        with doing("Judging") as say:
            return await judge_replay(
                replay,
                measure,
                directory,
                tools=tools,
                repeats=repeats,
                on_progress=lambda what, _elapsed_s: say(what),
            )
