"""Each plot: what it shows of its data, and why it is left out where there is none."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.records import Check, Chunk, Validity
from benchmarks.report.data import ComparisonData, RunData, SweepData
from benchmarks.report.ecdf import Arm, itl_ecdf, ttft_ecdf
from benchmarks.report.figures import Figure, LeftOut
from benchmarks.report.forest import forest
from benchmarks.report.goodput_plot import goodput
from benchmarks.report.load_curves import ttft_curve
from benchmarks.report.pairs import pairs
from benchmarks.report.pareto import pareto
from benchmarks.report.request_plots import prompt_lengths, stall_limit_s, timeline
from benchmarks.report.seconds_plot import seconds
from benchmarks.report.shift import shift
from benchmarks.report.strip import validity
from tests.benchmarks.report import example_data as example


def drawn(plot: Figure | LeftOut) -> str:
    """The SVG of a plot that has to be there."""
    assert isinstance(plot, Figure), plot
    return str(plot.drawing("s1"))


def reason(plot: Figure | LeftOut) -> str:
    """Why a plot is not there."""
    assert isinstance(plot, LeftOut)
    return plot.reason


def test_curve_names_each_load(sweep: SweepData) -> None:
    """Each point of the median's line is labelled with its load where there is room."""
    page = drawn(ttft_curve([sweep]))

    assert re.findall(r">(c=\d+)</text>", page) == [f"c={2**n}" for n in range(7)]
    assert page.count('class="bar"') == 3 * 7  # an interval is a line with two ends


def test_invalid_points_are_hollow(sweep: SweepData) -> None:
    """A point of an invalid run does not look like one that counts."""
    points = [
        point.model_copy(update={"verdict": "INVALID"}) if point.load.concurrency == 8 else point
        for point in sweep.sweep.points
    ]
    record = sweep.sweep.model_copy(update={"points": points})
    plot = ttft_curve([dataclasses.replace(sweep, sweep=record)])

    # its median and its p95
    assert drawn(plot).count('class="dot hollow"') == 2
    assert isinstance(plot, Figure)
    assert "Hollow points are INVALID." in plot.note


def test_pareto_divides_by_the_cores(sweep: SweepData) -> None:
    """The rate is per core of the host, the speed is 1 / median TPOT."""
    first = sweep.sweep.points[0]
    assert first.output_tps is not None
    assert first.tpot_p50_s is not None
    plot = pareto([sweep])

    assert f"c=1: {first.output_tps / 2:.1f} tokens/s per core" in drawn(plot)
    assert f"{1 / first.tpot_p50_s:.1f} per user" in drawn(plot)


def test_pareto_of_gpus(sweep: SweepData) -> None:
    """Where the host names GPUs, it is per GPU."""
    point, cell = sweep.runs[0]
    host = {**cell.run.host, "gpu": ["H100", "H100"]}
    with_gpus = dataclasses.replace(cell, run=cell.run.model_copy(update={"host": host}))
    plot = pareto([dataclasses.replace(sweep, runs=[(point, with_gpus)])])

    assert isinstance(plot, Figure)
    assert plot.title == "Tokens per second per GPU against tokens per second per user"


def test_goodput_rings_the_best(sweep: SweepData) -> None:
    """The ring is at the load that the sweep found, with its value."""
    best = max(sweep.sweep.points, key=lambda point: point.goodput_rps or 0)

    assert drawn(goodput([sweep])).count('class="ring"') == 1
    assert f"/s at {best.load.label()}</text>" in drawn(goodput([sweep]))


def test_goodput_without_slo(sweep: SweepData) -> None:
    """Without an SLO there is no goodput, and that is the reason given."""
    points = [
        point.model_copy(update={"goodput_rps": None, "attainment": None})
        for point in sweep.sweep.points
    ]
    record = sweep.sweep.model_copy(update={"points": points, "slo": None})

    assert reason(goodput([dataclasses.replace(sweep, sweep=record)])) == "no SLO was given"


def test_ecdf_marks_no_percentile_that_is_not_known() -> None:
    """With 40 requests the median is marked, p95 and p99 are not; with 160, p95 is."""
    few, more = example.run(num_requests=40), example.run(num_requests=160)
    marks = [drawn(ttft_ecdf([Arm("x", [data])])).count("<circle") for data in (few, more)]

    assert marks == [1, 2]


def test_ecdf_counts_requests_and_not_gaps() -> None:
    """40 requests with 47 gaps each are no 1880 independent samples: no p99 of ITL."""
    page = drawn(itl_ecdf([Arm("x", [example.run(num_requests=40)])]))

    assert "1880 values" in page
    assert page.count("<circle") == 1


def test_ecdf_without_requests(run: RunData) -> None:
    """Without requests.jsonl there is no distribution to draw."""
    empty = dataclasses.replace(run, records=[])

    assert "requests.jsonl" in reason(ttft_ecdf([Arm("x", [empty])]))


def test_shift_is_the_ratio_of_quantiles() -> None:
    """Of a run against itself the ratio is 1 at each quantile."""
    one = example.run(num_requests=60)
    plot = shift([one], [one])

    assert drawn(plot).count("A / B = 1.000") == 2 * 19  # two latencies, p5 to p95


def test_shift_bands_need_six_pairs(comparison: ComparisonData) -> None:
    """Intervals come from drawing pairs again: with eight there are bands, with five none."""
    with_bands = drawn(shift(comparison.a, comparison.b))
    without = drawn(shift(comparison.a[:5], comparison.b[:5]))

    assert (with_bands.count('class="area"'), without.count('class="area"')) == (2, 0)


def test_shift_has_no_band_where_a_block_has_no_gaps(comparison: ComparisonData) -> None:
    """Where a fifth of one block's tokens come with the one before, no ratio holds in all draws."""
    bundled = [
        dataclasses.replace(record, chunks=_bundled(record.chunks))
        for record in comparison.a[0].records
    ]
    a = [dataclasses.replace(comparison.a[0], records=bundled), *comparison.a[1:]]

    # TTFT keeps its band, ITL has none.
    assert drawn(shift(a, comparison.b)).count('class="area"') == 1


def _bundled(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Every fifth comes at the time of the one before it."""
    return [
        chunk._replace(at_s=chunks[index - 1].at_s) if index and index % 5 == 0 else chunk
        for index, chunk in enumerate(chunks)
    ]


def test_timeline_shows_stalls_and_failures(broken_run: RunData) -> None:
    """A pause above the limit is drawn as one; each failed request has its cross."""
    shown = sorted(broken_run.records, key=lambda record: record.send_s)[:96]
    limit_s = stall_limit_s(broken_run.records)
    stalls = sum(
        gap > limit_s
        for record in shown
        for gap in np.diff([chunk.at_s for chunk in record.chunks])
    )
    page = drawn(timeline(broken_run))

    assert stalls > 0
    assert page.count('class="stall"') == stalls
    assert page.count("cross failed") == sum(record.error is not None for record in shown) > 0


def test_timeline_shows_what_was_held_back() -> None:
    """A request sent 50 ms after it was due has a bar for these."""
    data = example.run(rate_rps=9, num_requests=30)
    late = [
        dataclasses.replace(record, sched_s=record.send_s - (0.05 if record.index == 3 else 0))
        for record in data.records
        if record.phase == "measured"
    ]
    plot = timeline(dataclasses.replace(data, records=late))

    assert drawn(plot).count('class="held"') == 1
    assert isinstance(plot, Figure)
    assert plot.legend[0].words == "due, held back in the client"


def test_seconds_shades_the_phases(run: RunData) -> None:
    """Warm-up and drain are shaded and named, and each second says its figures."""
    page = drawn(seconds(run.run))

    assert page.count('class="phase"') == 2
    assert {"warm-up", "measured", "drain"} <= set(re.findall(r">([\w-]+)</text>", page))
    assert page.count('class="column"') == len(run.run.timeseries)


def test_seconds_of_a_short_run(run: RunData) -> None:
    """Two seconds are no course in time."""
    short = run.run.model_copy(update={"timeseries": run.run.timeseries[:2]})

    assert reason(seconds(short)) == "run.json has 2 seconds"


def test_prompt_lengths_of_one_length(run: RunData) -> None:
    """Where all prompts are equally long there is nothing to plot against."""
    alike = [dataclasses.replace(record, prompt_tokens=1280) for record in run.records]

    assert reason(prompt_lengths(dataclasses.replace(run, records=alike))) == (
        "prompts have one length only: 1\u2009280"
    )


def test_prompt_lengths(run: RunData) -> None:
    """Each completed request is a point."""
    assert drawn(prompt_lengths(run)).count("<circle") == 160


def test_forest(comparison: ComparisonData) -> None:
    """One row a metric, primary first, with interval, floor, and the verdict in words and sign."""
    found = comparison.comparison
    page = drawn(forest(found))
    first = found.metrics[0]

    assert page.count('class="noise"') == len(found.metrics)
    assert page.count('class="margin"') == 2
    assert f"{first.ratio_mean:.3f}  ({first.ci_low:.3f} to {first.ci_high:.3f})" in page
    assert page.count("▲ faster") == sum(m.verdict == "faster" for m in found.metrics) > 0


def test_forest_is_as_wide_as_the_primary_metrics(comparison: ComparisonData) -> None:
    """A descriptive metric far off ends in an arrow, and does not press the others together."""
    found = comparison.comparison
    wild = {"ratio_mean": 6.0, "ci_low": 0.97, "ci_high": 40.0}
    metrics = [*found.metrics[:-1], found.metrics[-1].model_copy(update=wild)]
    page = drawn(forest(found.model_copy(update={"metrics": metrics})))
    diamonds_and_arrow = re.findall(r'class="dot"', page)

    # one diamond is outside, and one arrow stands for it
    assert len(diamonds_and_arrow) == len(metrics)
    assert ">1.1</text>" in page
    assert ">10</text>" not in page


def test_pairs_tell_the_order_by_shape(comparison: ComparisonData) -> None:
    """A first is a circle, B first a square: eight pairs in each panel."""
    found = comparison.comparison
    primary = [metric for metric in found.metrics if metric.primary]
    first = sum(pair.order == "AB" for metric in primary for pair in metric.pairs)

    assert drawn(pairs(found)).count("<circle") == first
    assert drawn(pairs(found)).count("A / B") == 8 * len(primary)


@pytest.mark.parametrize(
    ("check", "said", "bar"),
    [
        (Check(name="client_cpu", status="ok", value=0.35, limit=0.7, unit="cores", message="m"),
         "0.350\u00a0cores, limit 0.7\u00a0cores", True),
        (Check(name="offered_rate", status="red", value=0.9, limit=0.98, unit="ratio", message="m"),
         "0.900, at least 0.98", True),
        (Check(name="failed_requests", status="red", value=0.02, limit=0.0, unit="share",
               message="m"), "2\u00a0%, limit 0\u00a0%", False),
        (Check(name="usage", status="not_measured", message="no usage"), "not measured", False),
    ],
)  # fmt: skip
def test_check(check: Check, said: str, bar: bool) -> None:
    """A check's cell says its value and limit, and how near they are where that can be drawn."""
    page = drawn(validity(Validity(verdict="VALID", checks=[check])))

    assert f">{said}</text>" in page
    assert ('class="level"' in page) is bar
    assert f"s-{check.status}" in page


def test_red_checks_come_first() -> None:
    """What makes a run invalid is the first cell."""
    checks = [
        Check(name="first", status="ok", value=1, limit=2, message="m"),
        Check(name="second", status="red", value=3, limit=2, message="m"),
    ]
    page = drawn(validity(Validity(verdict="INVALID", checks=checks)))

    assert page.index(">Second</text>") < page.index(">First</text>")


@pytest.mark.parametrize("plot", [ttft_curve, pareto, goodput])
def test_without_sweep(plot: object) -> None:
    """Plots of sweeps say what they need."""
    assert callable(plot)
    assert reason(plot([])) == "it needs a sweep directory"


@pytest.mark.parametrize("plot", [forest, pairs])
def test_without_comparison(plot: object) -> None:
    """Plots of comparisons say what they need."""
    assert callable(plot)
    assert reason(plot(None)) == "it needs a compare directory"
