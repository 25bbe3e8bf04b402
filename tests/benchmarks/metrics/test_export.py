"""Files of a run: what is written can be read again."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from benchmarks.metrics.export import (
    read_requests,
    summary_rows,
    write_requests,
    write_summary_csv,
)
from benchmarks.records import Chunk, RequestRecord, Slo
from tests.benchmarks.metrics.made import CLOSED, failed, few_examples, request, requests, run


def test_one_line_a_request(tmp_path: Path) -> None:
    """Chunks are microseconds after the sending, tokens and read."""
    path = tmp_path / "requests.jsonl"
    write_requests([request((0.1000004, 0.2), (1, 2), send_s=5.0)], path)
    line = json.loads(path.read_text())
    assert line["chunks"] == [[100000, 1, 0], [200000, 2, 1]]
    assert line["send_s"] == 5.0
    assert "text" not in line


def test_everything_comes_back(tmp_path: Path) -> None:
    """Each field of a record, also those that are rare."""
    path = tmp_path / "requests.jsonl"
    full = RequestRecord(
        index=3,
        phase="measured",
        max_tokens=2,
        send_s=1.25,
        end_s=2.5,
        sched_s=1.0,
        choice_s=0.0625,
        chunks=[Chunk(0.125, 1, 0), Chunk(0.25, 1, 1)],
        num_output_tokens=2,
        input_len_tokens=7,
        prompt_tokens=8,
        cached_tokens=4,
        usage_output_tokens=2,
        token_source="token_ids",
        finish_reason="length",
        status=200,
        error="stall",
        error_message="no byte",
        conversation="c1",
        turn=2,
        queue_s=0.25,
        text="Ünï\u2028x",
        token_ids=[5, 6],
    )
    unset = [f.name for f in dataclasses.fields(full) if getattr(full, f.name) == f.default]
    assert unset == []
    write_requests([full, failed()], path)
    assert read_requests(path) == [full, failed()]


@settings(few_examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests())
def test_round_trip(tmp_path: Path, record: RequestRecord) -> None:
    """Times come back to the microsecond, the rest as it was; a second trip changes nothing."""
    path = tmp_path / "requests.jsonl"
    write_requests([record], path)
    (once,) = read_requests(path)
    assert [chunk.at_s for chunk in once.chunks] == pytest.approx(
        [chunk.at_s for chunk in record.chunks], abs=5.1e-7
    )
    assert dataclasses.replace(once, chunks=[]) == dataclasses.replace(
        record,
        chunks=[],
        send_s=round(record.send_s, 6),
        end_s=round(record.end_s, 6),
        choice_s=round(record.choice_s or 0.0, 6),
    )
    write_requests([once], path)
    assert read_requests(path) == [once]


def test_summary_rows() -> None:
    """A row for each metric of each window: one number stands under mean, percentiles beside it."""
    records = [request(send_s=0.3 * n) for n in range(100)]
    rows = summary_rows(run(records, slo=Slo(ttft_ms=150)))
    found = {(row["window"], row["metric"]): row for row in rows}
    # 3 tokens in each 0.3 s
    assert found["full_run", "output_tps"]["mean"] == pytest.approx(10.0)
    assert found["full_run", "ttft_s"]["p90"] == pytest.approx(0.1)
    assert found["full_run", "ttft_s"]["p99"] is None
    assert found["full_run", "attainment"]["mean"] == 1.0
    assert found["steady", "rps"]["unit"] == "requests/s"
    assert {row["load"] for row in rows} == {"c=1"}


def test_summary_csv(tmp_path: Path) -> None:
    """The CSV holds the rows, with empty cells for what was not to be had."""
    one, path = run([request()], CLOSED), tmp_path / "summary.csv"
    write_summary_csv(one, path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(summary_rows(one))
    (ttft,) = [r for r in rows if (r["window"], r["metric"]) == ("full_run", "ttft_s")]
    assert (ttft["mean"], ttft["p99"], ttft["verdict"]) == ("0.1", "", "VALID")
    # What is no figure to quote is in no table.
    assert one.metrics.full_run.distributions["itl_s"].p95_sample == pytest.approx(0.1)
    assert "p95_sample" not in ttft
