"""`judge TARGET`: a workload through our client and through others', on one server."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cell import CellResult, Settings, run_cell, write_cell
from benchmarks.judge import Replay, check_load, check_protocol, chosen_tools
from benchmarks.judge import judge as judge_replay
from benchmarks.options import LoadOptions, ServerOptions, WorkloadOptions
from benchmarks.records import Judgement, Load
from benchmarks.serving import check_asked, of_target, serving
from benchmarks.show import bars
from benchmarks.workload import Workload, check_texts


@dataclass(frozen=True)
class Asked:
    """What `judge` was asked for."""

    target: str
    workload: Workload
    load: Load
    settings: Settings
    tools: tuple[str, ...]
    repeats: int
    directory: Path


def asked_of(
    target: str,
    workload: WorkloadOptions,
    load: LoadOptions,
    server: ServerOptions,
    tools: Sequence[str],
    repeats: int,
    directory: Path,
) -> Asked:
    """
    What the options ask for; all that is wrong with it is said before a server is started.

    Raises:
        ServerError, JudgeError, ValueError: what does not fit.
    """
    offered, settings = load.load(), server.settings(workload.seed)
    chosen_tools(tools)
    check_load(offered)
    # No warm-up: the tools have none of ours, and all are to do the same work.
    made = dataclasses.replace(workload, warm_up=0).materialise(load.clients())
    check_texts(made)
    check_asked(target, settings, made, offered)
    if (protocol := of_target(target, settings)[1].protocol) is not None:
        check_protocol(protocol)
    return Asked(target, made, offered, settings, tuple(tools), repeats, directory)


async def judge_target(asked: Asked) -> Judgement:
    """
    Judge one load; our own runs are kept beside judge.json.

    Raises:
        ServerError, JudgeError, ValueError: what does not start, install or answer.
    """
    async with serving(asked.target, asked.settings) as served:
        prepared = await served.prepared(asked.workload)
        replay = Replay(
            url=prepared.endpoint.url,
            model=prepared.sending.model,
            protocol=prepared.sending.protocol,
            workload=asked.workload,
            load=asked.load,
            api_key=served.endpoint.api_key,
            ignore_eos=prepared.sending.ignore_eos,
            salted=prepared.salts,
            token_ids=prepared.sending.token_source == "token_ids",
            client_cpus=asked.settings.client_cpus,
        )
        with bars("Judging") as shown:

            async def measure(number: int) -> CellResult:
                # A salt of its own, as each tool's run has: no run finds another's prompts cached.
                result = await run_cell(
                    prepared,
                    asked.workload,
                    asked.load,
                    asked.settings,
                    run_id=f"{replay.begun}-ours-{number}",
                    on_progress=shown.requests,
                )
                write_cell(result, asked.directory / f"ours-{number}")
                return result

            return await judge_replay(
                replay,
                measure,
                asked.directory,
                tools=asked.tools,
                repeats=asked.repeats,
                on_progress=shown.say,
                on_run=shown.block,
            )
