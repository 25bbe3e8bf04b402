"""
Pictures of the dashboard, drawn from its JSON and a running Prometheus, where no Grafana is.

    python -m tests.deploy.dashboard_images http://127.0.0.1:9090 docs/images --minutes 5

It draws every panel at its place in the grid, with Grafana's variables at their defaults, and lets
headless Chromium take the pictures: one of each pair of rows.
"""

from __future__ import annotations

import argparse
import html
import math
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.report.browser import QUIET, chromium
from tests.deploy.expressions import dashboard, filled

COLUMN_PX, ROW_PX, GAP_PX = 64, 34, 8
WIDTH_PX = 24 * COLUMN_PX
COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#f2495c", "#b877d9", "#37872d", "#8ab8ff")
STYLE = f"""
body {{ margin: 0; padding: {GAP_PX}px; background: #111217; color: #ccccdc; width: {WIDTH_PX}px;
  font: 12px "Liberation Sans", sans-serif; }}
main {{ position: relative; }}
section {{ position: absolute; box-sizing: border-box; background: #181b1f; overflow: hidden;
  border: 1px solid #2c3235; border-radius: 3px; padding: 6px 8px; }}
h2, h3 {{ margin: 0; font-size: 13px; }} h2 {{ position: absolute; padding: 8px 0; }}
.value {{ font-size: 30px; text-align: center; margin-top: 22px; color: #73bf69; }}
.legend span {{ margin-right: 10px; white-space: nowrap; }} i {{ font-style: normal; }}
td, th {{ padding: 3px 12px; text-align: left; }}
svg text {{ fill: #9fa7b3; font-size: 10px; }}
"""


@dataclass(frozen=True)
class Line:
    """One series of a panel."""

    legend: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Source:
    """A Prometheus, and the time that is shown."""

    url: str
    start_s: float
    end_s: float

    def lines(self, target: dict[str, Any]) -> list[Line]:
        """What a target shows over the time."""
        step = max((self.end_s - self.start_s) / 150, 1)
        span = {"start": self.start_s, "end": self.end_s, "step": step}
        result = self._ask("query_range", query=filled(target["expr"]), **span)
        return [
            Line(legend_of(target, one["metric"]), [(float(t), float(v)) for t, v in one["values"]])
            for one in result
        ]

    def now(self, target: dict[str, Any]) -> list[tuple[dict[str, str], float]]:
        """What a target shows at the end: labels and value."""
        result = self._ask("query", query=filled(target["expr"]), time=self.end_s)
        return [(one["metric"], float(one["value"][1])) for one in result]

    def _ask(self, path: str, **params: Any) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=params, timeout=30)
        return answer.raise_for_status().json()["data"]["result"]


def legend_of(target: dict[str, Any], labels: dict[str, str]) -> str:
    """The legend with the labels' values."""
    text: str = target["legendFormat"]
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


def worded(value: float, unit: str) -> str:
    """A value as the panel's unit has it."""
    if value != value:
        return "no data"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    short = f"{value / 1000:.3g}k" if value >= 1000 else f"{value:.3g}"
    return f"{short} req/s" if unit == "reqps" else short


def drawn(panel: dict[str, Any], source: Source, width: int, height: int) -> str:
    """The inside of a panel."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    if panel["type"] == "timeseries":
        lines = [line for target in panel["targets"] for line in source.lines(target)]
        return chart(lines, unit, width, height)
    found = [pair for target in panel["targets"] for pair in source.now(target)]
    if panel["type"] == "stat":
        return f'<p class="value">{worded(found[0][1], unit) if found else "no data"}</p>'
    if panel["type"] == "table":
        return table([labels for labels, _ in found])
    return bars([(labels.get("phase", ""), value) for labels, value in found], unit)


def round_up(value: float) -> float:
    """The next number of one digit and a half: 1.5, 20, 350."""
    if value <= 0:
        return 1.0
    digit = 10.0 ** math.floor(math.log10(value))
    return math.ceil(value / digit * 2) / 2 * digit


def chart(lines: Sequence[Line], unit: str, width: int, height: int) -> str:
    """Lines over time, from 0 up, and their legend."""
    lines = [Line(line.legend, [p for p in line.points if p[1] == p[1]]) for line in lines]
    points = [point for line in lines for point in line.points]
    if not points:
        return '<p class="value">no data</p>'
    left, bottom, tall = 62, 14, height - 66
    first, last = min(t for t, _ in points), max(t for t, _ in points)
    top = round_up(max(v for _, v in points))

    def at(point: tuple[float, float]) -> str:
        x = left + (point[0] - first) / ((last - first) or 1) * (width - left - 6)
        return f"{x:.1f},{tall - point[1] / top * (tall - 8):.1f}"

    parts = []
    for step in range(3):
        y = tall - step / 2 * (tall - 8)
        words = worded(top * step / 2, unit)
        parts.append(f'<line x1="{left}" x2="{width}" y1="{y}" y2="{y}" stroke="#2c3235"/>')
        parts.append(f'<text x="{left - 4}" y="{y + 3}" text-anchor="end">{words}</text>')
    for line, colour in zip(lines, COLOURS * 9, strict=False):
        path = " ".join(map(at, line.points))
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
    svg = f'<svg width="{width}" height="{tall + bottom}">{"".join(parts)}</svg>'
    names = "".join(
        f'<span><i style="color: {colour}">&#9632;</i> {html.escape(line.legend)}</span>'
        for line, colour in zip(lines, COLOURS * 9, strict=False)
    )
    return f'{svg}<div class="legend">{names}</div>'


def bars(values: Sequence[tuple[str, float]], unit: str) -> str:
    """Horizontal bars."""
    most = max((value for _, value in values), default=1) or 1
    rows = (
        f"<tr><th>{html.escape(name)}</th><td><div style='background: {COLOURS[0]}; height: 12px; "
        f"width: {260 * value / most:.0f}px'></div></td><td>{worded(value, unit)}</td></tr>"
        for name, value in values
    )
    return f"<table>{''.join(rows)}</table>"


def table(rows: Sequence[dict[str, str]]) -> str:
    """Labels as columns."""
    names = [name for name in (rows[0] if rows else {}) if name not in ("__name__", "job")]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    cells = [
        "".join(f"<td>{html.escape(row.get(name, ''))}</td>" for name in names) for row in rows
    ]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<table><tr>{head}</tr>{body}</table>"


def sections() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each open row of the dashboard, with its panels."""
    row: tuple[str, list[dict[str, Any]]] | None = None
    for panel in dashboard()["panels"]:
        if panel["type"] == "row":
            if row:
                yield row
            row = (panel["title"], [])
        elif row:
            row[1].append(panel)


def page(rows: Sequence[tuple[str, list[dict[str, Any]]]], source: Source) -> tuple[str, int]:
    """The rows as HTML, and how high it is."""
    parts, origin, bottom = [], None, 0
    for title, row_panels in rows:
        first = min(panel["gridPos"]["y"] for panel in row_panels)
        origin = first - 1 if origin is None else origin
        parts.append(
            f'<h2 style="top: {(first - 1 - origin) * ROW_PX}px">{html.escape(title)}</h2>'
        )
        for panel in row_panels:
            place = panel["gridPos"]
            width, height = place["w"] * COLUMN_PX - GAP_PX, place["h"] * ROW_PX - GAP_PX
            x, y = place["x"] * COLUMN_PX, (place["y"] - origin) * ROW_PX
            bottom = max(bottom, y + height)
            inside = drawn(panel, source, width - 18, height)
            parts.append(
                f'<section style="left: {x}px; top: {y}px; width: {width}px; height: {height}px">'
                f"<h3>{html.escape(panel['title'])}</h3>{inside}</section>"
            )
    body = f"<main>{''.join(parts)}</main>"
    text = f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><body>{body}"
    return text, bottom + 3 * GAP_PX


def take(text: str, height: int, picture: Path) -> None:
    """A page as a PNG."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "page.html")
        file.write_text(text, encoding="utf-8")
        command = [
            chromium(),
            *QUIET,
            f"--user-data-dir={directory}/profile",
            f"--window-size={WIDTH_PX + 2 * GAP_PX},{height}",
            f"--screenshot={picture}",
            file.as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=90)


def pictures() -> dict[str, list[tuple[str, list[dict[str, Any]]]]]:
    """The rows of each picture, by its name: all open ones, two to a picture."""
    rows = list(sections())
    starts = range(0, len(rows), 2)
    return {
        f"dashboard-{number}.png": rows[start : start + 2] for number, start in enumerate(starts, 1)
    }


def write_images(source: Source, directory: Path) -> list[Path]:
    """Draw all pictures; the files that were written."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in pictures().items():
        take(*page(rows, source), directory / name)
    return [directory / name for name in pictures()]


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("prometheus")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    asked = parser.parse_args()
    end_s = time.time()
    source = Source(asked.prometheus, end_s - asked.minutes * 60, end_s)
    for picture in write_images(source, asked.directory):
        print(picture)


if __name__ == "__main__":
    main()
