"""The opening sentence and the large figures of a section."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.records import MetricComparison, Run, Sweep, SweepPoint
from benchmarks.report import words
from benchmarks.report.forest import SIGNS
from benchmarks.report.tables import suppressed


@dataclass(frozen=True)
class KeyFigure:
    """One of the large figures at the top of a section."""

    name: str
    value: str
    detail: str = ""
    tone: str = ""  # bad, or quiet where there is no value


def run_headline(run: Run) -> str:
    """A run in one sentence: its rate, its first token, its pace."""
    window, found = run.metrics.steady or run.metrics.full_run, run.metrics.full_run.distributions
    said = [f"{words.number(window.output_tps or 0.0)} output tokens per second"]
    ttft, tpot = found.get(ttft_metric(run)), found.get("tpot_s")
    if ttft is not None and ttft.p50 is not None:
        said.append(f"the first token after {words.seconds(ttft.p50)}")
    if tpot is not None and tpot.p50 is not None:
        said.append(f"then one every {words.seconds(tpot.p50)} (medians)")
    return ", ".join(said) + "."


def run_key_figures(run: Run) -> list[KeyFigure]:
    """Rates under full load, latencies of the whole run, what failed."""
    full, steady = run.metrics.full_run, run.metrics.steady
    whole = words.number(full.output_tps or 0.0)
    rate = KeyFigure("Output tokens per second", whole, run.metrics.steady_reason or "whole run")
    if steady is not None:
        value = words.number(steady.output_tps or 0.0)
        rate = KeyFigure("Output tokens per second", value, f"under full load; whole run {whole}")
    failed = full.num_failed
    return [
        rate,
        _percentile(run, ttft_metric(run), "p50"),
        _percentile(run, ttft_metric(run), "p95"),
        _percentile(run, "tpot_s", "p50"),
        KeyFigure("Requests", words.tick(full.num_ok + failed), words.seconds(full.duration_s)),
        KeyFigure("Failed", str(failed), _kinds(full.errors), "bad" if failed else ""),
    ]


def _kinds(errors: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in errors.items())


def _percentile(run: Run, metric: str, name: str) -> KeyFigure:
    short = {"ttft_s": "TTFT", "ttft_sched_s": "TTFT from schedule", "tpot_s": "TPOT"}[metric]
    label = f"{short}, {words.PERCENTILES[name]}"
    found = run.metrics.full_run.distributions.get(metric)
    value = getattr(found, name, None)
    if found is None or not found.n:
        return KeyFigure(label, "none", "no request has one", "quiet")
    if value is None:
        return KeyFigure(label, "not shown", suppressed(name, found.n), "quiet")
    return KeyFigure(label, words.seconds(value))


def sweep_key_figures(sweep: Sweep) -> list[KeyFigure]:
    """The loads worth knowing: most tokens, the knee, the highest goodput."""
    most = highest(sweep.points)
    figures = []
    if most is not None and most.output_tps is not None:
        at = f"at {most.load.label()}"
        figures.append(KeyFigure("Most tokens per second", words.number(most.output_tps), at))
    if sweep.knee is not None:
        detail = "more load adds waiting, not tokens"
        figures.append(KeyFigure("Knee", sweep.knee.label(), detail))
    best = next((point for point in sweep.points if point.load == sweep.best_under_slo), None)
    if best is not None and best.goodput_rps is not None:
        at = f"good requests per second, at {best.load.label()}"
        figures.append(KeyFigure("Highest goodput", words.number(best.goodput_rps), at))
        share = words.percent(best.attainment or 0.0)
        figures.append(KeyFigure("Meet the SLO there", share))
    return figures


def ratio_figure(metric: MetricComparison) -> KeyFigure:
    """A over B as a difference, never without its interval and verdict."""
    interval = f"{words.signed_percent(metric.ci_low)} to {words.signed_percent(metric.ci_high)}"
    return KeyFigure(
        words.metric_name(metric.metric),
        words.signed_percent(metric.ratio_mean),
        f"A over B, {interval}: {SIGNS[metric.verdict]} {metric.verdict}",
        "bad" if metric.verdict == "slower" else "",
    )


def ttft_metric(run: Run) -> str:
    """In an open loop the wait counts from the schedule (MLPerf LoadGen)."""
    return "ttft_s" if run.load.mode == "closed" else "ttft_sched_s"


def highest(points: Sequence[SweepPoint]) -> SweepPoint | None:
    """The VALID point with the most tokens per second; of all, where none is VALID."""
    valid = [point for point in points if point.verdict == "VALID"]
    return max(valid or points, key=lambda point: point.output_tps or 0.0, default=None)
