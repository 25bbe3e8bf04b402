"""The report as a reader gets it: one file, opened in a browser."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from benchmarks.records import Check, Validity
from benchmarks.report import render_report, write_report
from benchmarks.report.data import ComparisonData, ReportData, RunData, SweepData
from benchmarks.report.key_figures import highest
from benchmarks.report.sections import sweep_section
from tests.benchmarks.report import example_data as example
from tests.benchmarks.report.browser import Opened, open_page
from tests.benchmarks.report.conftest import HOSTILE

ALL_PLOTS = {
    "ttft-curve",
    "tpot-curve",
    "pareto",
    "goodput",
    "ttft-ecdf",
    "itl-ecdf",
    "stall-ecdf",
    "shift",
    "timeline",
    "seconds",
    "prompt-length",
    "forest",
    "pairs",
    "validity",
}


@pytest.fixture(scope="module")
def page(everything: ReportData) -> str:
    """Everything in one report."""
    return render_report(everything)


@pytest.fixture(scope="module")
def opened(page: str, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """It, in a browser as wide as a desk's."""
    return open_page(page, tmp_path_factory.mktemp("wide"))


def test_every_plot_is_drawn(opened: Opened) -> None:
    """All plots are in the DOM, with a size and with text."""
    plots = opened.inspected["plots"]

    assert {plot["plot"] for plot in plots} == ALL_PLOTS
    assert all(min(plot["width"], plot["height"]) > 100 and plot["texts"] for plot in plots)


def test_judging() -> None:
    """A judging has its figures, its conditions and its verdict; an INVALID one says so first."""
    page = render_report(ReportData(judgements=[example.judgement()]))
    invalid = render_report(ReportData(judgements=[example.judgement("invalid")]))

    for said in ("1.015", "tokens over seconds", "guidellm 0.8.1", "4f1c0b7a9e5d2c88", "✓ agrees"):
        assert said in page
    assert "All 2 figures agree within 5%." in page
    assert "✕ INVALID" in invalid
    assert "another program was at work" in invalid
    assert "agree within" not in invalid


def test_search_beyond_the_capacity_is_no_fault(sweep: SweepData) -> None:
    """Cells that a search had to turn INVALID leave the sweep VALID, and are never its best."""
    points = [
        point.model_copy(update={"verdict": "INVALID"}) if number == 6 else point
        for number, point in enumerate(sweep.sweep.points)
    ]
    verdicts = {}
    for verdict in ("VALID", None):
        said = sweep.sweep.model_copy(update={"points": points, "verdict": verdict})
        found = sweep_section(SweepData(said, sweep.runs, "sweep"))
        verdicts[verdict] = (found.verdict, bool(found.reasons))

    assert verdicts == {"VALID": ("VALID", False), None: ("INVALID", True)}
    best = max(sweep.sweep.points, key=lambda point: point.output_tps or 0)
    spoiled = [best.model_copy(update={"verdict": "INVALID"}), *sweep.sweep.points[:2]]
    assert highest(spoiled) == highest(sweep.sweep.points[:2])


def test_no_label_overlaps_or_leaves_its_plot(opened: Opened) -> None:
    """Each text of each plot stands free, inside its card."""
    faults = {plot["id"]: plot["faults"] for plot in opened.inspected["plots"] if plot["faults"]}

    assert faults == {}


def test_narrow_page(page: str, tmp_path: Path) -> None:
    """On a narrow screen the page does not scroll sideways; wide plots do in their cards."""
    opened = open_page(page, tmp_path, width=520)
    overlaps = [
        fault
        for plot in opened.inspected["plots"]
        for fault in plot["faults"]
        if not fault.startswith("outside")
    ]

    assert not opened.inspected["wide"]
    assert overlaps == []


def test_scripts_run_under_the_page_s_own_policy(page: str, tmp_path: Path) -> None:
    """As written, with its policy: nothing is logged, and the script has named its button."""
    opened = open_page(page, tmp_path, inspect=False)

    assert opened.console == []
    assert re.search(r'<button id="theme" type="button">(Dark|Light)</button>', opened.dom)


def test_tips_and_ids(opened: Opened) -> None:
    """Marks carry tips, and no id is there twice."""
    assert opened.inspected["tips"] > 100
    assert opened.inspected["twice"] == []


def test_dark_and_light(page: str, tmp_path: Path) -> None:
    """The theme can be chosen in the address."""
    (tmp_path / "dark").mkdir()
    dark = open_page(page, tmp_path / "dark", fragment="#dark").inspected["theme"]
    light = open_page(page, tmp_path, fragment="#light").inspected["theme"]

    assert (dark, light) == ("rgb(16, 20, 27)", "rgb(246, 247, 249)")


def test_nothing_is_loaded(page: str) -> None:
    """No element and no style names another file, and the policy forbids what is not inline."""
    named = re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']?([^"'\s>]*)""", page)

    assert all(target.startswith("#section-") for target in named)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|<link|<img|<iframe", page)
    assert "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-" in page


def test_a_hostile_label_is_text(page: str, opened: Opened) -> None:
    """A server that calls itself a script is shown as it is called."""
    assert HOSTILE not in page
    assert page.count("<script") == 1
    assert "<title>taken</title>" not in opened.dom


def test_an_invalid_run_says_so_first(broken_run: RunData) -> None:
    """A red banner stands before every figure, and says which check is red."""
    page = render_report(ReportData([broken_run]))
    body = page[page.index("<body>") :]

    assert body.index("✕ INVALID") < body.index("key-figures")
    assert body.index("requests failed (early_close") < body.index("key-figures")
    assert "✓ VALID" not in body


def test_an_invalid_result_among_others_is_named(run: RunData) -> None:
    """The banner of several results says which of them is not to be believed."""
    invalid = example.run(example.Server(label="flaky"), 4, 40, seed=9, failures=0.2)
    page = render_report(ReportData([run, invalid]))

    assert "Not to be believed: Runs in one picture; flaky, c=4." in page


def test_a_suppressed_percentile(run: RunData) -> None:
    """Below 130 requests there is no p95, and the report says what it would take."""
    # 40 requests, but a p95 needs 130 and a p99 662
    few = example.run(num_requests=40)
    page = render_report(ReportData([few]))

    assert "too few requests (need 130, have 40)" in page
    assert "needs 662" in page
    assert "too few requests" not in render_report(ReportData([run]))


def test_what_is_not_drawn(run: RunData, comparison: ComparisonData, sweep: SweepData) -> None:
    """One line names each plot that is missing, with the reason; none that is there."""
    line = re.search(r'class="left-out">(.*?)</p>', render_report(ReportData([run])))

    assert line
    assert "pair by pair (it needs a compare directory)" in line.group(1)
    assert "Goodput and SLO attainment against load (it needs a sweep directory)" in line.group(1)
    assert "timeline" not in line.group(1)
    full = ReportData([run], [sweep], [comparison])
    assert 'class="left-out"' not in render_report(full)


def test_a_comparison_whose_answers_differ_is_tagged(comparison: ComparisonData) -> None:
    """The speed claim carries its tag, and the sentence of the quality gate."""
    page = render_report(ReportData(comparisons=[comparison]))

    assert "! output differs" in page
    assert "9 of 32 greedy answers differ." in page


def test_what_the_verdict_of_a_comparison_does_not_cover(comparison: ComparisonData) -> None:
    """One start, and metrics that could not be compared, are said in sentences."""
    checks = [
        Check(name="starts", status="not_measured", message="each server was started once: luck"),
        Check(name="metric itl_p95_s", status="not_measured", message="itl_p95_s is not compared"),
    ]
    validity = Validity(verdict="VALID", checks=checks)
    found = comparison.comparison.model_copy(update={"validity": validity})
    page = render_report(
        ReportData(comparisons=[dataclasses.replace(comparison, comparison=found)])
    )

    assert "<li>Each server was started once: luck.</li>" in page
    assert "<li>itl_p95_s is not compared.</li>" in page


def test_definitions_have_formula_and_source(page: str) -> None:
    """Each metric is defined by its function's own docstring."""
    assert "Time per output token: (e2e - ttft) / (n - 1), seconds" in page
    assert "Source: vLLM 0.32 benchmarks/serve.py; MLPerf LoadGen logging.cc" in page


def test_write_report(
    run: RunData, sweep: SweepData, comparison: ComparisonData, tmp_path: Path
) -> None:
    """From the three kinds of directories on disk comes the page of their data."""
    paths = [
        example.write_run(run, tmp_path / "run"),
        example.write_sweep(sweep, tmp_path / "sweep"),
        example.write_comparison(comparison, tmp_path / "compare"),
    ]
    out = tmp_path / "deep" / "report.html"
    write_report(paths, out)
    page = out.read_text(encoding="utf-8")

    assert set(re.findall(r'data-plot="([\w-]+)"', page)) == ALL_PLOTS
