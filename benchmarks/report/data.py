"""Run, sweep, compare and judge directories, read from disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from benchmarks.metrics.export import read_requests
from benchmarks.records import Comparison, Judgement, RequestRecord, Run, Sweep, SweepPoint

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True)
class RunData:
    """One cell: run.json and its requests."""

    run: Run
    records: Sequence[RequestRecord]
    name: str  # of its directory

    @property
    def measured(self) -> list[RequestRecord]:
        """Its requests without the warm-up's."""
        return [record for record in self.records if record.phase == "measured"]


@dataclass(frozen=True)
class SweepData:
    """A sweep, and the run of each point of which there is a directory."""

    sweep: Sweep
    runs: Sequence[tuple[SweepPoint, RunData]]
    name: str


@dataclass(frozen=True)
class ComparisonData:
    """A comparison, and the runs of its pairs: a[j] and b[j] are the blocks of one pair."""

    comparison: Comparison
    a: Sequence[RunData]
    b: Sequence[RunData]
    name: str


@dataclass(frozen=True)
class ReportData:
    """All that one report shows."""

    runs: Sequence[RunData] = field(default_factory=list)
    sweeps: Sequence[SweepData] = field(default_factory=list)
    comparisons: Sequence[ComparisonData] = field(default_factory=list)
    judgements: Sequence[Judgement] = field(default_factory=list)


def load(paths: Sequence[Path]) -> ReportData:
    """
    What the directories hold, by the file in each: compare, judge, sweep or run.json.

    Raises:
        ValueError: a directory has none of the four, or one that does not keep its schema.
    """
    runs, sweeps, comparisons, judgements = [], [], [], []
    for path in paths:
        directory = path.parent if path.is_file() else path
        if (directory / "compare.json").is_file():
            comparisons.append(_comparison(directory))
        elif (directory / "judge.json").is_file():
            judgements.append(_parse(Judgement, directory / "judge.json"))
        elif (directory / "sweep.json").is_file():
            sweeps.append(_sweep(directory))
        elif (directory / "run.json").is_file():
            runs.append(_run(directory))
        else:
            raise ValueError(
                f"{str(path)!r} is nothing to report: give directories with a run.json, "
                "sweep.json, compare.json or judge.json, as `python -m benchmarks run`, `sweep`, "
                "`compare` and `judge` write them"
            )
    if not (runs or sweeps or comparisons or judgements):
        raise ValueError("no directory was given; give those of runs, sweeps or comparisons")
    return ReportData(runs, sweeps, comparisons, judgements)


def _run(directory: Path) -> RunData:
    requests = directory / "requests.jsonl"
    records = read_requests(requests) if requests.is_file() else []
    return RunData(_parse(Run, directory / "run.json"), records, directory.resolve().name)


def _sweep(directory: Path) -> SweepData:
    sweep = _parse(Sweep, directory / "sweep.json")
    runs = [(point, found) for point in sweep.points if (found := _beside(directory, point))]
    return SweepData(sweep, runs, directory.resolve().name)


def _beside(directory: Path, point: SweepPoint) -> RunData | None:
    there = directory / point.directory
    return _run(there) if (there / "run.json").is_file() else None


def _comparison(directory: Path) -> ComparisonData:
    comparison = _parse(Comparison, directory / "compare.json")
    a, b = [], []
    for pair in comparison.metrics[0].pairs if comparison.metrics else []:
        if pair.a_directory is None or pair.b_directory is None:
            continue
        there_a, there_b = directory / pair.a_directory, directory / pair.b_directory
        if (there_a / "run.json").is_file() and (there_b / "run.json").is_file():
            a.append(_run(there_a))
            b.append(_run(there_b))
    return ComparisonData(comparison, a, b, directory.resolve().name)


def _parse(model: type[ModelT], path: Path) -> ModelT:
    try:
        return model.model_validate_json(path.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise ValueError(
            f"{str(path)!r} does not keep the schema at {where}: {first['msg']}; "
            "write it again with this version of the harness"
        ) from error
