"""The files of a run beside run.json: requests.jsonl, summary.csv and vLLM's own format."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.metrics.vllm_bench import vllm_bench
from benchmarks.records import Chunk, Distribution, RequestRecord, Run, Window

__all__ = ["read_requests", "summary_rows", "vllm_bench", "write_requests", "write_summary_csv"]

# Kept only where answers are compared, so absent, not null, elsewhere.
OPTIONAL = ("text", "token_ids")
SCALARS = {
    "output_tps": "tokens/s",
    "total_tps": "tokens/s",
    "rps": "requests/s",
    "mean_concurrency": "requests",
    "duration_s": "s",
    "num_ok": "requests",
    "num_failed": "requests",
    "output_tokens": "tokens",
    "prompt_tokens": "tokens",
    "cached_prompt_tokens": "tokens",
}
GOODPUT = {"goodput_rps": "requests/s", "goodput_tps": "tokens/s", "attainment": "share"}
# A percentile of too few requests is no figure for a table.
LEFT_OUT = {"reason", "p95_sample"}
STATISTICS = [name for name in Distribution.model_fields if name not in {"unit", "n", *LEFT_OUT}]
COLUMNS = ["run_id", "target", "load", "verdict", "window", "metric", "unit", "n", *STATISTICS]


def write_requests(records: Iterable[RequestRecord], path: Path) -> None:
    """requests.jsonl: a line a request; a chunk is [microseconds after sending, tokens, read]."""
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(_to_line(record), separators=(",", ":")) + "\n")


def read_requests(path: Path) -> list[RequestRecord]:
    """The records of a requests.jsonl; times as they were, to the microsecond."""
    with path.open(encoding="utf-8") as file:
        return [_from_line(json.loads(line)) for line in file if line.strip()]


def summary_rows(run: Run) -> list[dict[str, Any]]:
    """A row for each metric of each window; what is one number stands under `mean`."""
    windows = {"full_run": run.metrics.full_run, "steady": run.metrics.steady}
    about = {
        "run_id": run.run_id,
        "target": run.target.label,
        "load": run.load.label(),
        "verdict": run.validity.verdict,
    }
    return [
        about | {"window": name} | row
        for name, window in windows.items()
        if window is not None
        for row in _window_rows(window)
    ]


def write_summary_csv(run: Run, path: Path) -> None:
    """summary.csv: `summary_rows`; an empty cell is a value that was not to be had."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(summary_rows(run))


def _window_rows(window: Window) -> list[dict[str, Any]]:
    rows = [_scalar(name, unit, getattr(window, name)) for name, unit in SCALARS.items()]
    if window.goodput is not None:
        rows += [
            _scalar(name, unit, getattr(window.goodput, name)) for name, unit in GOODPUT.items()
        ]
    for name, distribution in window.distributions.items():
        rows.append({"metric": name, **distribution.model_dump(exclude=LEFT_OUT)})
    return rows


def _scalar(metric: str, unit: str, value: float | None) -> dict[str, Any]:
    return {"metric": metric, "unit": unit, "n": None, "mean": value}


def _to_line(record: RequestRecord) -> dict[str, Any]:
    line: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.name == "chunks":
            value = _chunk_rows(record.chunks)
        elif isinstance(value, float):
            value = round(value, 6)
        if value is not None or field.name not in OPTIONAL:
            line[field.name] = value
    return line


def _chunk_rows(chunks: Sequence[Chunk]) -> list[list[int]]:
    return [[round(chunk.at_s * 1e6), chunk.num_tokens, chunk.read_id] for chunk in chunks]


def _from_line(line: dict[str, Any]) -> RequestRecord:
    chunks = [Chunk(at_us / 1e6, tokens, read_id) for at_us, tokens, read_id in line["chunks"]]
    return RequestRecord(**{**line, "chunks": chunks})
