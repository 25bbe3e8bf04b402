"""The validity strip: each check as a cell with its value, its limit and how far it is from it."""

from __future__ import annotations

import math

from markupsafe import Markup

from benchmarks.records import Check, Validity
from benchmarks.report import svg, words
from benchmarks.report.axes import WIDE
from benchmarks.report.figures import Figure, LeftOut

TITLE = "Checks of the measurement"
COLUMNS, GAP, CELL_HEIGHT = 4, 16.0, 76.0
CELL_WIDTH = (WIDE - GAP * (COLUMNS - 1)) / COLUMNS
SIGNS = {"ok": "✓", "red": "✕", "not_measured": "–"}  # noqa: RUF001
# Checks whose value has to reach its limit.
REACHED = ("offered_rate",)
# A bar is full at the limit and can go beyond it by a half.
BEYOND = 1.5


def validity(found: Validity) -> Figure | LeftOut:
    """All checks, the red ones first."""
    if not found.checks:
        return LeftOut("validity", TITLE, "no check was made")
    order = {"red": 0, "ok": 1, "not_measured": 2}
    checks = sorted(found.checks, key=lambda check: order[check.status])
    body = [_cell(check, index) for index, check in enumerate(checks)]
    rows = math.ceil(len(checks) / COLUMNS)
    height = rows * (CELL_HEIGHT + GAP) - GAP
    said = "; ".join(
        f"{words.heading(check.name)}: {check.status}, {check.message}" for check in checks
    )
    counts = {status: sum(c.status == status for c in checks) for status in order}
    note = f"{counts['ok']} passed, {counts['red']} red, {counts['not_measured']} not measured. "
    note += "The tick on each bar is the limit."
    return Figure("validity", TITLE, note, said, body, width=WIDE, height=height)


def _cell(check: Check, index: int) -> Markup:
    x = (index % COLUMNS) * (CELL_WIDTH + GAP)
    y = (index // COLUMNS) * (CELL_HEIGHT + GAP)
    name = svg.shorten(words.heading(check.name), CELL_WIDTH - 56, 13)
    drawn = [
        svg.element("title", check.message),
        svg.rectangle(x + 0.5, y + 0.5, CELL_WIDTH - 1, CELL_HEIGHT - 1, "cell", rx=8),
        svg.text(x + 16, y + 26, SIGNS[check.status], "sign"),
        svg.text(x + 38, y + 26, name, "strong"),
        svg.text(x + 16, y + 47, svg.shorten(_values(check), CELL_WIDTH - 32), "label"),
        *_bar(check, x + 16, y + 58),
    ]
    return svg.element("g", *drawn, class_=f"check s-{check.status}")


def _values(check: Check) -> str:
    if check.value is None:
        return "not measured" if check.status == "not_measured" else check.message
    value = words.quantity(check.value, check.unit)
    if check.limit is None:
        return value
    kind = "at least" if _is_floor(check) else "limit"
    return f"{value}, {kind} {words.limit(check.limit, check.unit)}"


def _is_floor(check: Check) -> bool:
    """Whether the value has to reach the limit instead of staying under it."""
    below = (check.value or 0.0) < (check.limit or 0.0)
    return check.name in REACHED or (check.status == "red" and below)


def _bar(check: Check, x: float, y: float) -> list[Markup]:
    if check.value is None or not check.limit or check.limit <= 0:
        return []
    width = CELL_WIDTH - 32
    part = min(BEYOND, max(0.0, check.value / check.limit)) / BEYOND
    tick = x + width / BEYOND
    return [
        svg.rectangle(x, y, width, 5, "track", rx=2.5),
        svg.rectangle(x, y, max(5.0, width * part), 5, "level", rx=2.5),
        svg.line(tick, y - 3, tick, y + 8, "limit"),
    ]
