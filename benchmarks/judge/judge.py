"""`judge`: ours and each tool in turns on the same server and requests, compared in pairs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from benchmarks.judge.guidellm import Guidellm
from benchmarks.judge.replay import Figures, JudgeError, Replay, Tool
from benchmarks.judge.rows import TOLERANCE, judge_row, verdict
from benchmarks.judge.vllm_bench import VllmBench
from benchmarks.machine import utc_now, without_paths
from benchmarks.metrics.validity import worst_of
from benchmarks.records import Judgement, JudgePair, JudgeRow, RequestRecord, Run, Validity
from benchmarks.servers.venvs import Progress

TOOLS: dict[str, Callable[[], Tool]] = {"vllm": VllmBench, "guidellm": Guidellm}
REPEATS = 3


class Measured(Protocol):
    """What our own run gives: a cell's result has it."""

    @property
    def run(self) -> Run:
        """Its conditions and its validity."""

    @property
    def records(self) -> Sequence[RequestRecord]:
        """Its requests."""


# One run of ours on the replay's workload and load, by its number, of which 0 warms the server up;
# without a warm-up of its own: the tools have none either.
Measure = Callable[[int], Awaitable[Measured]]
OnRun = Callable[[int, int, str], None]  # the run that begins, from 1, of how many


@dataclass
class _Judging:
    """The runs so far; state of one judging."""

    replay: Replay
    measure: Measure
    directory: Path
    repeats: int
    num_runs: int
    on_run: OnRun | None
    num_begun: int = 0
    ours: list[Run] = field(default_factory=list)  # without the one that warms up

    def begin(self, what: str) -> None:
        """Say which run begins."""
        self.num_begun += 1
        if self.on_run is not None:
            self.on_run(self.num_begun, self.num_runs, what)

    async def warm_up(self) -> None:
        """A run of ours that does not count."""
        self.begin("warming up")
        await self.measure(0)

    async def pair(self, tool: Tool, number: int) -> tuple[Figures, Figures]:
        """Ours and theirs, the one before the other in turns."""
        found: dict[str, Figures] = {}
        for who in ("ours", "theirs") if _ours_first(number) else ("theirs", "ours"):
            self.begin(f"{tool.name}, pair {number + 1} of {self.repeats}: {who}")
            if who == "ours":
                measured = await self.measure(len(self.ours) + 1)
                self.ours.append(measured.run)
                found[who] = tool.ours(measured.records)
            else:
                found[who] = await tool.run(self.replay, self.directory, f"judge-{number + 1}")
        return found["ours"], found["theirs"]

    def validity(self) -> Validity:
        """Of our runs, the worst of each check."""
        named = [(f"ours-{number}", run.validity) for number, run in enumerate(self.ours, start=1)]
        checks = worst_of(named, "runs of ours")
        red = any(check.status == "red" for check in checks)
        return Validity(verdict="INVALID" if red else "VALID", checks=checks)


async def judge(
    replay: Replay,
    measure: Measure,
    directory: Path,
    *,
    tools: Sequence[str] = tuple(TOOLS),
    repeats: int = REPEATS,
    tolerance: float = TOLERANCE,
    on_progress: Progress | None = None,
    on_run: OnRun | None = None,
) -> Judgement:
    """
    Run ours and each tool `repeats` times in pairs of alternating order, and write judge.json.

    A discarded run of ours comes first, so that the server is warm for all. What the tools saved
    and said stays in the directory. `on_progress` is of what is installed, `on_run` of the runs.

    Raises:
        JudgeError: a tool is unknown, cannot be installed, or failed; or one of our requests did.
    """
    chosen = chosen_tools(tools)
    _make(directory)
    started_at = utc_now()
    versions = {tool.name: await tool.prepare(on_progress) for tool in chosen}
    num_runs = 1 + 2 * repeats * len(chosen)
    judging = _Judging(replay, measure, directory, repeats, num_runs, on_run)
    await judging.warm_up()
    rows: list[JudgeRow] = []
    for tool in chosen:
        rows += await _judge_tool(tool, judging, tolerance)
    validity = judging.validity()
    worst, message = verdict(rows, tolerance, validity)
    first = judging.ours[0]
    judgement = Judgement(
        target=first.target,
        workload=first.workload,
        load=replay.load,
        started_at=started_at,
        ended_at=utc_now(),
        argv=first.argv,
        seed=first.seed,
        host=first.host,
        tools=versions,
        tolerance=tolerance,
        rows=rows,
        validity=validity,
        verdict=worst,
        message=message,
    )
    _write(judgement, directory)
    return judgement


def _make(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)


def _write(judgement: Judgement, directory: Path) -> None:
    text = without_paths(judgement.model_dump_json(by_alias=True, indent=1))
    (directory / "judge.json").write_text(text + "\n")


async def _judge_tool(tool: Tool, judging: _Judging, tolerance: float) -> list[JudgeRow]:
    pairs: dict[str, list[JudgePair]] = {metric: [] for metric in tool.definitions}
    for number in range(judging.repeats):
        ours, theirs = await judging.pair(tool, number)
        order: Literal["ours first", "theirs first"] = (
            "ours first" if _ours_first(number) else "theirs first"
        )
        for metric, before in pairs.items():
            before.append(JudgePair(order=order, ours=ours[metric], theirs=theirs[metric]))
    return [
        judge_row(tool.name, metric, meaning, pairs[metric], tolerance)
        for metric, meaning in tool.definitions.items()
    ]


def _ours_first(number: int) -> bool:
    return number % 2 == 0


def chosen_tools(names: Sequence[str]) -> list[Tool]:
    """
    The tools of these names.

    Raises:
        JudgeError: there is none of a name, or no name.
    """
    if unknown := [name for name in names if name not in TOOLS]:
        raise JudgeError(f"there is no judge {unknown[0]!r}; give {' or '.join(TOOLS)}")
    return [TOOLS[name]() for name in dict.fromkeys(names)]
