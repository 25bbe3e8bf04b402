"""The comparison on a terminal: validity first, one sentence, then a row for each metric."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.compare.verdict import p_text
from benchmarks.metrics.verdicts import conditions
from benchmarks.records import Comparison, MetricComparison

STYLES = {
    "faster": "green",
    "slower": "red",
    "equivalent": "cyan",
    "inconclusive": "yellow",
    "invalid": "bold red",
}


def opening(comparison: Comparison) -> str:
    """Validity, who is who, and the verdict with its interval."""
    return (
        f"{comparison.validity.verdict}. A is {comparison.a.label}, B is {comparison.b.label}. "
        f"{comparison.message}."
    )


def comparison_table(comparison: Comparison) -> Table:
    """A row for each metric; those that only describe are dim."""
    num_pairs = max((len(found.pairs) for found in comparison.metrics), default=0)
    table = Table(title=f"A / B, {comparison.load.label()}, {num_pairs} pairs")
    table.add_column("metric")
    for name in ("A", "B", "A / B", "95 %", "p", "noise floor"):
        table.add_column(name, justify="right")
    table.add_column("A is")
    for found in comparison.metrics:
        table.add_row(*_cells(found), style="" if found.primary else "dim")
    return table


def render(comparison: Comparison) -> RenderableType:
    """Everything that the command prints at its end."""
    checks = comparison.validity.checks
    red = [check for check in checks if check.status == "red"]
    parts: list[RenderableType] = [
        Text(opening(comparison), style=STYLES[comparison.verdict]),
        *(Text(f"red: {check.name}: {check.message}", style="red") for check in red),
        *map(Text, conditions(checks)),
    ]
    if comparison.quality is not None:
        parts.append(Text(comparison.quality.message))
    return Group(*parts, comparison_table(comparison))


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print it."""
    (console or Console()).print(render(comparison))


def _cells(found: MetricComparison) -> list[RenderableType]:
    p = found.p_sign_flip if found.p_holm is None else found.p_holm
    floor = "-" if found.noise_floor is None else f"{100 * found.noise_floor:.1f} %"
    unit = f" ({found.unit})"
    return [
        found.metric + unit,
        f"{found.a_median:.4g}",
        f"{found.b_median:.4g}",
        f"{found.ratio_mean:.3f}",
        f"{found.ci_low:.3f} to {found.ci_high:.3f}",
        p_text(p).removeprefix("p "),
        floor,
        Text(found.verdict, style=STYLES[found.verdict])
        if found.primary
        else Text(f"({found.verdict})"),
    ]
