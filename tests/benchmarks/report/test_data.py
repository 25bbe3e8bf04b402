"""Which directories are read as what, and what is said of those that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.records import Comparison, Judgement
from benchmarks.report.data import ComparisonData, RunData, SweepData, load
from tests.benchmarks.report import example_data as example


def test_a_run(run: RunData, tmp_path: Path) -> None:
    """run.json may be named itself, or its directory."""
    directory = example.write_run(run, tmp_path / "one")
    loaded = load([directory, directory / "run.json"])

    assert [one.run for one in loaded.runs] == [run.run, run.run]
    assert len(loaded.runs[0].measured) == 160
    assert loaded.runs[0].name == "one"


def test_a_run_without_requests(run: RunData, tmp_path: Path) -> None:
    """Without requests.jsonl there are still the figures of run.json."""
    directory = example.write_run(run, tmp_path / "one")
    (directory / "requests.jsonl").unlink()

    assert load([directory]).runs[0].records == []


def test_a_sweep(sweep: SweepData, tmp_path: Path) -> None:
    """Each point comes with its run; one whose directory is gone stays a point."""
    directory = example.write_sweep(sweep, tmp_path / "sweep")
    (directory / "c=4" / "run.json").unlink()
    loaded = load([directory]).sweeps[0]

    assert len(loaded.sweep.points) == 7
    assert [point.load.concurrency for point, _ in loaded.runs] == [1, 2, 8, 16, 32, 64]


def test_a_comparison(comparison: ComparisonData, tmp_path: Path) -> None:
    """The runs of both arms stand pair by pair; a pair without one of its runs is left out."""
    directory = example.write_comparison(comparison, tmp_path / "compare")
    (directory / "2-b" / "run.json").unlink()
    loaded = load([directory]).comparisons[0]

    labels = {one.run.target.label for one in loaded.a}
    assert (len(loaded.a), len(loaded.b)) == (7, 7)
    assert labels == {"profile:fast"}


def test_a_judging(tmp_path: Path) -> None:
    """judge.json is read where there is one."""
    found = example.judgement()
    (tmp_path / "judge.json").write_text(found.model_dump_json(by_alias=True))

    assert load([tmp_path]).judgements == [found]


RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
RECORDED = [
    path
    for path in sorted(RESULTS.glob("*/*.json"))
    if '"gemma-bench-judge/1"' not in path.read_text()
]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_recorded_results_are_still_read(path: Path) -> None:
    """What was measured with an older harness keeps the schema of this one."""
    said = json.loads(path.read_text())
    model = {"gemma-bench-compare/1": Comparison, "gemma-bench-judge/2": Judgement}[said["schema"]]

    assert model.model_validate(said).verdict == said["verdict"]


def test_nothing_to_report(tmp_path: Path) -> None:
    """A directory of something else is named, with what was expected."""
    with pytest.raises(ValueError, match=r"is nothing to report: give directories with a run"):
        load([tmp_path])


def test_no_path() -> None:
    """No directory is a mistake too."""
    with pytest.raises(ValueError, match="no directory was given"):
        load([])


def test_a_broken_file(run: RunData, tmp_path: Path) -> None:
    """A file that does not keep its schema is named, with the field."""
    directory = example.write_run(run, tmp_path / "one")
    text = (directory / "run.json").read_text().replace('"seed":0', '"seed":"none"')
    (directory / "run.json").write_text(text)

    with pytest.raises(ValueError, match="does not keep the schema at seed"):
        load([directory])
