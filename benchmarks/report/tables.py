"""Tables of the report: conditions, all figures of a run, the points of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.metrics.distributions import FLOORS
from benchmarks.records import (
    Comparison,
    Distribution,
    Judgement,
    JudgeRow,
    MachineUse,
    Run,
    ServerSide,
    Sweep,
    Target,
    Window,
)
from benchmarks.report import words
from benchmarks.report.goodput_plot import slo_words

PERCENTILES = ("p50", "p90", "p95", "p99")
SCALARS: Sequence[tuple[str, str]] = (
    ("output_tps", "tokens/s"),
    ("total_tps", "tokens/s"),
    ("rps", "requests/s"),
    ("mean_concurrency", ""),
    ("num_ok", ""),
    ("num_failed", ""),
    ("output_tokens", ""),
    ("prompt_tokens", ""),
    ("cached_prompt_tokens", ""),
    ("duration_s", "s"),
)


@dataclass(frozen=True)
class Table:
    """Rows of text under heads; the first column names the row."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Facts:
    """Names and values under a heading: one part of the conditions."""

    heading: str
    rows: Sequence[tuple[str, str]]


def run_conditions(run: Run) -> list[Facts]:
    """Everything that the figures of a run depend on."""
    workload = [
        ("What", run.workload.description),
        ("Requests", f"{run.workload.num_requests}, after {run.workload.num_warm_up} to warm up"),
        ("Prefix cache", run.workload.cache),
        ("Load", words.load_words(run.load)),
        ("Ends by itself", "no, ignore_eos" if run.workload.ignore_eos else "yes"),
        ("SLO", slo_words(run.slo) if run.slo else "none given"),
        ("Seed", str(run.seed)),
        ("SHA-256", run.workload.sha256),
    ]
    measured = [
        ("Began", run.started_at),
        ("Ended", run.ended_at),
        ("Tokens counted by", str(run.token_source or "not known")),
        ("Command", " ".join(run.argv)),
        *_flat(run.tool),
        *(_machine_use(run.machine) if run.machine else []),
    ]
    return [
        Facts("Server", _target(run.target)),
        Facts("Workload and load", workload),
        Facts("Machine", _flat(run.host)),
        Facts("Measurement", measured),
    ]


def comparison_conditions(found: Comparison) -> list[Facts]:
    """Everything that the figures of a comparison depend on."""
    asked = [
        ("Equivalence margin", words.percent(found.equivalence)),
        ("Looked at after", ", ".join(map(str, found.looks)) + " pairs"),
        ("Starts of each server", str(found.starts)),
    ]
    return [
        Facts("A", _target(found.a)),
        Facts("B", _target(found.b)),
        Facts("Workload and load", _workload(found, asked)),
        Facts("Machine", _flat(found.host)),
    ]


def judge_conditions(found: Judgement) -> list[Facts]:
    """Everything that the figures of a judging depend on."""
    asked = [("Tolerance", words.percent(found.tolerance))]
    return [
        Facts("Server", _target(found.target)),
        Facts("Judges", list(found.tools.items())),
        Facts("Workload and load", _workload(found, asked)),
        Facts("Machine", _flat(found.host)),
    ]


def _workload(found: Comparison | Judgement, asked: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [
        ("What", found.workload.description),
        ("Load", words.load_words(found.load)),
        ("Prefix cache", found.workload.cache),
        *asked,
        ("Seed", str(found.seed)),
        ("SHA-256", found.workload.sha256),
        ("Began", found.started_at),
        ("Ended", found.ended_at),
        ("Command", " ".join(found.argv)),
    ]


def _machine_use(use: MachineUse) -> list[tuple[str, str]]:
    """What the processors did meanwhile; only what could be known."""
    parts = {
        "CPU of other processes": use.foreign_cpu,
        "CPU taken by the hypervisor": use.steal,
        "Time in which some process waited for a core": use.psi_cpu,
    }
    rows = [(name, words.percent(part)) for name, part in parts.items() if part is not None]
    return [*rows, ("Load average at its end", str(use.load_average))] if rows else []


def judge_rows(found: Judgement) -> Table:
    """One row a tool and metric."""
    heads = ["Metric", "Judge", "Ours", "Theirs", "Ours / theirs", "95 %", "", "In its words"]
    return Table(heads, [_judge_row(row) for row in found.rows])


def _judge_row(row: JudgeRow) -> list[str]:
    ends = "" if row.ci_low is None else f"{row.ci_low:.3f} to {row.ci_high:.3f}"
    values = [f"{words.number(value)} {row.unit}" for value in (row.ours, row.theirs)]
    return [row.metric, row.tool, *values, f"{row.ratio:.3f}", ends, row.status, row.definition]


def run_figures(run: Run) -> list[Table]:
    """All figures of a run: rates of both windows, distributions, and the server's own."""
    full, steady_window = run.metrics.full_run, run.metrics.steady
    windows = [full] if steady_window is None else [full, steady_window]
    heads = ["", "Whole run", "Steady window"][: len(windows) + 1]
    rates = [
        [words.metric_name(name), *(_scalar(window, name, unit) for window in windows)]
        for name, unit in SCALARS
    ]
    tables = [Table(heads, rates), _distributions(full.distributions)]
    if run.server is not None:
        tables.append(Table(["By the server's own counters", ""], _server_rows(run.server)))
    return tables


def sweep_points(sweep: Sweep) -> Table:
    """One row a load."""
    metrics = ("ttft_p50_s", "ttft_p95_s", "tpot_p50_s", "tpot_p95_s")
    heads = ["Load", "Output tokens/s", "Requests/s"]
    heads += ["TTFT median", "TTFT p95", "TPOT median", "TPOT p95", "Goodput", "Meet the SLO", ""]
    rows = [
        [
            point.load.label(),
            _number(point.output_tps),
            _number(point.rps),
            *(_seconds(getattr(point, name)) for name in metrics),
            _number(point.goodput_rps),
            "" if point.attainment is None else words.percent(point.attainment),
            "" if point.verdict == "VALID" else "INVALID",
        ]
        for point in sweep.points
    ]
    return _without_empty(Table(heads, rows))


def suppressed(name: str, num_samples: int) -> str:
    """What stands where a percentile is not shown."""
    return f"too few requests (need {words.tick(FLOORS[name])}, have {words.tick(num_samples)})"


def _target(target: Target) -> list[tuple[str, str]]:
    named = [
        ("Label", target.label),
        ("Model", target.model),
        ("Protocol", target.protocol),
        ("URL", target.url),
    ]
    return named + _flat(target.server)


def _flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [(words.heading(key), _plain(value)) for key, value in values.items()]
    return [(key, value) for key, value in rows if value]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _distributions(found: Mapping[str, Distribution]) -> Table:
    heads = [
        "Whole run",
        "n",
        "Mean",
        "Median",
        "p90",
        "p95",
        "p99",
        "p99 at most, 99 % sure",
        "Greatest",
    ]
    rows = []
    for name, one in found.items():
        if not one.n:
            continue
        shown = [_quantile(one, percentile) for percentile in PERCENTILES]
        certified = "" if one.p99_certified is None else words.quantity(one.p99_certified, one.unit)
        ends = [_quantity(one.mean, one.unit), *shown, certified, _quantity(one.max, one.unit)]
        rows.append([words.metric_name(name), words.tick(one.n), *ends])
    return Table(heads, rows)


def _quantile(one: Distribution, name: str) -> str:
    value = getattr(one, name)
    return f"needs {words.tick(FLOORS[name])}" if value is None else words.quantity(value, one.unit)


def _server_rows(server: ServerSide) -> list[list[str]]:
    values = server.model_dump(exclude_none=True)
    return [
        [words.metric_name(name.removesuffix("_s")), _server_value(name, v)]
        for name, v in values.items()
    ]


def _server_value(name: str, value: float) -> str:
    if name.endswith("_s"):
        return words.quantity(value, "s")
    return words.quantity(value, "MiB") if name.endswith("_mib") else words.tick(value)


def _scalar(window: Window, name: str, unit: str) -> str:
    value = getattr(window, name)
    if isinstance(value, int):
        return words.tick(value)
    return _quantity(value, unit)


def _quantity(value: float | None, unit: str) -> str:
    return "" if value is None else words.quantity(value, unit)


def _number(value: float | None) -> str:
    return "" if value is None else words.number(value)


def _seconds(value: float | None) -> str:
    return "" if value is None else words.seconds(value)


def _without_empty(table: Table) -> Table:
    """A table without the columns in which no row says anything."""
    keep = [i for i in range(len(table.heads)) if any(row[i] for row in table.rows)]
    return Table([table.heads[i] for i in keep], [[row[i] for i in keep] for row in table.rows])
