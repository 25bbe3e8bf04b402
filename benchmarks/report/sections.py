"""The sections of a report: what each says first, its key figures, its plots and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.metrics.diagnosis import diagnose
from benchmarks.metrics.verdicts import conditions
from benchmarks.records import Judgement, Run, SweepPoint, Validity
from benchmarks.report import words
from benchmarks.report.data import ComparisonData, ReportData, RunData, SweepData
from benchmarks.report.ecdf import Arm, itl_ecdf, stall_ecdf, ttft_ecdf
from benchmarks.report.figures import Figure, LeftOut
from benchmarks.report.forest import forest
from benchmarks.report.goodput_plot import goodput
from benchmarks.report.key_figures import (
    KeyFigure,
    highest,
    ratio_figure,
    run_headline,
    run_key_figures,
    sweep_key_figures,
    ttft_metric,
)
from benchmarks.report.load_curves import tpot_curve, ttft_curve
from benchmarks.report.pairs import pairs
from benchmarks.report.pareto import pareto
from benchmarks.report.request_plots import prompt_lengths, timeline
from benchmarks.report.seconds_plot import seconds
from benchmarks.report.shift import shift
from benchmarks.report.strip import validity
from benchmarks.report.tables import (
    Facts,
    Table,
    comparison_conditions,
    judge_conditions,
    judge_rows,
    run_conditions,
    run_figures,
    sweep_points,
)

Plot = Figure | LeftOut


@dataclass(frozen=True)
class Section:
    """One subject of the report."""

    kind: str
    title: str
    subtitle: str
    verdict: str  # VALID, INVALID, or a comparison's
    reasons: Sequence[str]  # the red checks, in words
    headline: str
    sentences: Sequence[str] = ()
    key_figures: Sequence[KeyFigure] = ()
    plots: Sequence[Plot] = ()
    summary: Sequence[Table] = ()
    figures: Sequence[Table] = ()
    conditions: Sequence[Facts] = ()
    tags: Sequence[str] = field(default_factory=tuple)


def sections(data: ReportData) -> list[Section]:
    """Comparisons first, then what they stand on."""
    found = [comparison_section(one) for one in data.comparisons]
    found += [judge_section(one) for one in data.judgements]
    if len(data.sweeps) > 1:
        found.append(_sweeps_together(data.sweeps))
    for one in data.sweeps:
        found += [sweep_section(one, alone=len(data.sweeps) == 1)]
        if (detail := _detail(one)) is not None:
            found.append(run_section(detail))
    if len(data.runs) > 1:
        found.append(_runs_together(data.runs))
    return found + [run_section(one) for one in data.runs]


def run_section(data: RunData) -> Section:
    """One cell."""
    run = data.run
    arm = [Arm(run.target.label, [data])]
    plots: list[Plot] = [
        ttft_ecdf(arm),
        itl_ecdf(arm),
        stall_ecdf(arm),
        prompt_lengths(data),
        timeline(data),
        seconds(run),
        validity(run.validity),
    ]
    return Section(
        "Run",
        f"{run.target.label}, {run.load.label()}",
        f"{words.load_words(run.load)}; {run.workload.description}",
        run.validity.verdict,
        _red(run.validity),
        run_headline(run),
        diagnose(run),
        run_key_figures(run),
        plots,
        figures=run_figures(run),
        conditions=run_conditions(run),
    )


def sweep_section(data: SweepData, *, alone: bool = True) -> Section:
    """A sweep's points; its curves, unless they stand in one plot with those of others."""
    sweep = data.sweep
    invalid = _invalid_points(data)
    reasons = [f"{point.load.label()}: {reason}" for point, reason in _point_reasons(data)]
    reasons = reasons or [f"invalid points: {', '.join(invalid)}"]
    return Section(
        "Sweep",
        sweep.target.label,
        f"{len(sweep.points)} loads, {sweep.points[0].load.label()} to "
        f"{sweep.points[-1].load.label()}"
        if sweep.points
        else "no point",
        "INVALID" if invalid else "VALID",
        reasons if invalid else [],
        sweep.message[:1].upper() + sweep.message[1:] + ".",
        key_figures=sweep_key_figures(sweep),
        plots=_curves([data]) if alone else (),
        summary=[sweep_points(sweep)],
        conditions=run_conditions(data.runs[0][1].run) if data.runs and not alone else (),
    )


def comparison_section(data: ComparisonData) -> Section:
    """A against B."""
    found = data.comparison
    arms = [Arm(f"A: {found.a.label}", data.a), Arm(f"B: {found.b.label}", data.b)]
    quality = found.quality
    plots: list[Plot] = [forest(found), pairs(found)]
    plots += [ttft_ecdf(arms), itl_ecdf(arms), stall_ecdf(arms), shift(data.a, data.b)]
    plots.append(validity(found.validity))
    return Section(
        "Comparison",
        f"A: {found.a.label} against B: {found.b.label}",
        f"{words.load_words(found.load)}; {found.workload.description}",
        found.verdict.upper() if found.verdict == "invalid" else found.verdict,
        _red(found.validity),
        "" if found.verdict == "invalid" else found.message[:1].upper() + found.message[1:],
        [
            quality.message if quality else "Whether both answer the same was not measured.",
            *map(_sentence, conditions(found.validity.checks)),
        ],
        [ratio_figure(metric) for metric in found.metrics if metric.primary],
        plots,
        conditions=comparison_conditions(found),
        tags=["output differs"] if quality and not quality.same else [],
    )


def _sentence(said: str) -> str:
    """A message as a sentence; one that begins with a metric's name keeps it as it is written."""
    is_name = "_" in said.partition(" ")[0]
    return f"{said if is_name else said[:1].upper() + said[1:]}."


def judge_section(found: Judgement) -> Section:
    """Our figures over those of other tools."""
    verdict = "INVALID" if found.verdict == "invalid" else found.verdict
    return Section(
        "Judging",
        f"{found.target.label}, {found.load.label()}, by {' and '.join(found.tools)}",
        f"{words.load_words(found.load)}; {found.workload.description}",
        verdict,
        _red(found.validity),
        "" if verdict == "INVALID" else found.message[:1].upper() + found.message[1:] + ".",
        plots=[validity(found.validity)],
        summary=[judge_rows(found)],
        conditions=judge_conditions(found),
    )


def curves_without_sweep() -> list[Plot]:
    """Why a report of runs alone has none of the plots of sweeps and comparisons."""
    return [*_curves([]), forest(None), pairs(None), shift([], [])]


def _curves(sweeps: Sequence[SweepData]) -> list[Plot]:
    return [ttft_curve(sweeps), tpot_curve(sweeps), pareto(sweeps), goodput(sweeps)]


def _sweeps_together(sweeps: Sequence[SweepData]) -> Section:
    invalid = [one for one in sweeps if _invalid_points(one)]
    best = [(one.sweep.target.label, highest(one.sweep.points)) for one in sweeps]
    said = [
        f"{label} gives at most {words.number(point.output_tps or 0)} tokens/s, at "
        f"{point.load.label()}"
        for label, point in best
        if point is not None
    ]
    return Section(
        "Side by side",
        "Sweeps in one picture",
        "measured one after the other, not in pairs: no verdict",
        "INVALID" if invalid else "VALID",
        [f"{one.sweep.target.label} has invalid points" for one in invalid],
        "; ".join(said) + "." if said else "",
        plots=_curves(sweeps),
    )


def _runs_together(runs: Sequence[RunData]) -> Section:
    arms = [Arm(f"{one.run.target.label}, {one.run.load.label()}", [one]) for one in runs[:6]]
    heads = ["", "Load", "Output tokens/s", "TTFT median", "TPOT median", "Failed", ""]
    invalid = [one.run.target.label for one in runs if one.run.validity.verdict == "INVALID"]
    return Section(
        "Side by side",
        "Runs in one picture",
        "measured one after the other, not in pairs: no verdict",
        "INVALID" if invalid else "VALID",
        [f"{label} is invalid" for label in invalid],
        "",
        plots=[ttft_ecdf(arms), itl_ecdf(arms)],
        summary=[Table(heads, [_run_row(one.run) for one in runs])],
    )


def _run_row(run: Run) -> list[str]:
    found = run.metrics.full_run.distributions
    medians = [found[name].p50 if name in found else None for name in (ttft_metric(run), "tpot_s")]
    return [
        run.target.label,
        run.load.label(),
        words.number((run.metrics.steady or run.metrics.full_run).output_tps or 0.0),
        *("" if value is None else words.seconds(value) for value in medians),
        str(run.metrics.full_run.num_failed),
        "" if run.validity.verdict == "VALID" else "INVALID",
    ]


def _detail(data: SweepData) -> RunData | None:
    """The run that a reader of a sweep wants to see: its best, its knee, or its fastest."""
    wanted = data.sweep.best_under_slo or data.sweep.knee
    runs = [run for point, run in data.runs if point.load == wanted]
    if runs:
        return runs[0]
    most = highest([point for point, _ in data.runs])
    return next((run for point, run in data.runs if point is most), None)


def _red(found: Validity) -> list[str]:
    return [
        f"{words.heading(check.name)}: {check.message}"
        for check in found.checks
        if check.status == "red"
    ]


def _invalid_points(data: SweepData) -> list[str]:
    """Of a search those beyond what the server can take are no fault of it."""
    if data.sweep.verdict == "VALID":
        return []
    return [point.load.label() for point in data.sweep.points if point.verdict == "INVALID"]


def _point_reasons(data: SweepData) -> list[tuple[SweepPoint, str]]:
    return [(point, reason) for point, run in data.runs for reason in _red(run.run.validity)]
