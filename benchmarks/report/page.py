"""The page: all sections in one HTML file that loads nothing and lets no foreign script run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from benchmarks.report.data import ReportData, load
from benchmarks.report.definitions import definitions
from benchmarks.report.figures import Figure, LeftOut
from benchmarks.report.forest import SIGNS
from benchmarks.report.sections import Plot, Section, curves_without_sweep, sections

TEMPLATES = Path(__file__).parent / "templates"
VERDICT_SIGNS = {"VALID": "✓", "INVALID": "✕", **SIGNS}
VERDICT_SIGNS |= {"agrees": "✓", "off": "✕", "unclear": "?"}


def write_report(paths: Sequence[Path], out: Path) -> None:
    """
    Write one self-contained HTML file from run, sweep, compare and judge directories.

    Raises:
        ValueError: a path holds no run.json, sweep.json, compare.json or judge.json, or a broken
            one.
    """
    page = render_report(load(paths))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")


def render_report(data: ReportData) -> str:
    """The page as text."""
    found = sections(data)
    script = _asset("report.js")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            sections=found,
            verdict=_verdict(found),
            signs=VERDICT_SIGNS,
            left_out=left_out(found),
            definitions=definitions(),
            style=_asset("report.css"),
            script=script,
            # Only this very script may run, whatever a label smuggles in, and nothing is fetched.
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def left_out(found: Sequence[Section]) -> dict[str, list[str]]:
    """The plots that no section has, by the reason."""
    plots: list[Plot] = [plot for section in found for plot in section.plots]
    drawn = {plot.plot for plot in plots if isinstance(plot, Figure)}
    missing: dict[str, LeftOut] = {}
    for plot in [*plots, *curves_without_sweep()]:
        if isinstance(plot, LeftOut) and plot.plot not in drawn:
            missing.setdefault(plot.plot, plot)
    by_reason: dict[str, list[str]] = {}
    for one in missing.values():
        by_reason.setdefault(one.reason, []).append(one.title)
    return by_reason


def _verdict(found: Sequence[Section]) -> str:
    invalid = any(section.verdict == "INVALID" for section in found)
    return "INVALID" if invalid else "VALID"


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.tests["figure"] = lambda plot: isinstance(plot, Figure)
    return environment


def _asset(name: str) -> Markup:
    """A file of ours, which needs no escaping."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
