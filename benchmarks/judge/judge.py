"""`judge`: ours and each tool in turns on the same server and requests, compared in pairs."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.judge.guidellm import Guidellm
from benchmarks.judge.replay import Figures, JudgeError, Replay, Tool
from benchmarks.judge.rows import (
    TOLERANCE,
    Judgement,
    JudgePair,
    JudgeRow,
    Order,
    judge_row,
    verdict,
)
from benchmarks.judge.vllm_bench import VllmBench
from benchmarks.records import RequestRecord
from benchmarks.servers.venvs import Progress

TOOLS: dict[str, Callable[[], Tool]] = {"vllm": VllmBench, "guidellm": Guidellm}
REPEATS = 3


class Measured(Protocol):
    """What our own run gives: a cell's result has it."""

    @property
    def records(self) -> Sequence[RequestRecord]:
        """Its requests."""


# One run of ours on the replay's workload and load, without a warm-up: the tools have none either.
Measure = Callable[[], Awaitable[Measured]]


async def judge(
    replay: Replay,
    measure: Measure,
    directory: Path,
    *,
    tools: Sequence[str] = tuple(TOOLS),
    repeats: int = REPEATS,
    tolerance: float = TOLERANCE,
    on_progress: Progress | None = None,
) -> Judgement:
    """
    Run ours and each tool `repeats` times in pairs of alternating order, and write judge.json.

    A discarded run of ours comes first, so that the server is warm for all. What the tools saved
    and said stays in the directory.

    Raises:
        JudgeError: a tool is unknown, cannot be installed, or failed; or one of our requests did.
    """
    chosen = [_tool(name) for name in tools]
    _make(directory)
    started_at = _now()
    versions = {tool.name: await tool.prepare(on_progress) for tool in chosen}
    _tell(on_progress, "warming up")
    await measure()
    rows: list[JudgeRow] = []
    for tool in chosen:
        rows += await _judge_tool(tool, replay, measure, directory, repeats, tolerance, on_progress)
    worst, message = verdict(rows, tolerance)
    judgement = Judgement(
        url=replay.url,
        model=replay.model,
        workload_sha256=replay.workload.sha256,
        num_requests=replay.num_requests,
        load=replay.load,
        started_at=started_at,
        ended_at=_now(),
        tools=versions,
        tolerance=tolerance,
        rows=rows,
        verdict=worst,
        message=message,
    )
    _write(judgement, directory)
    return judgement


def _make(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)


def _write(judgement: Judgement, directory: Path) -> None:
    text = judgement.model_dump_json(by_alias=True, indent=1)
    (directory / "judge.json").write_text(text + "\n")


async def _judge_tool(
    tool: Tool,
    replay: Replay,
    measure: Measure,
    directory: Path,
    repeats: int,
    tolerance: float,
    on_progress: Progress | None,
) -> list[JudgeRow]:
    pairs: dict[str, list[JudgePair]] = {metric: [] for metric in tool.definitions}
    for number in range(repeats):
        ours_first = number % 2 == 0
        found: dict[str, Figures] = {}
        for who in ("ours", "theirs") if ours_first else ("theirs", "ours"):
            _tell(on_progress, f"{tool.name}, pair {number + 1} of {repeats}: {who}")
            if who == "ours":
                found[who] = tool.ours((await measure()).records)
            else:
                found[who] = await tool.run(replay, directory, f"judge-{number + 1}")
        for metric, before in pairs.items():
            ours, theirs = found["ours"][metric], found["theirs"][metric]
            order: Order = "ours first" if ours_first else "theirs first"
            before.append(JudgePair(order=order, ours=ours, theirs=theirs))
    return [
        judge_row(tool.name, metric, meaning, pairs[metric], tolerance)
        for metric, meaning in tool.definitions.items()
    ]


def _tool(name: str) -> Tool:
    if name not in TOOLS:
        raise JudgeError(f"there is no judge {name!r}; give {' or '.join(TOOLS)}")
    return TOOLS[name]()


def _tell(on_progress: Progress | None, phase: str) -> None:
    if on_progress is not None:
        on_progress(phase, 0.0)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
