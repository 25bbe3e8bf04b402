"""A report for people, and for machines."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gemma_serve.triton_check.differences import SEVERITIES, Difference
from gemma_serve.triton_check.replay import Report, Result, Verdict
from gemma_serve.triton_check.texts import Divergence

STYLES = {"breaks": "bold red", "text": "yellow", "error": "bold red", "not sent": "dim"}
MEANINGS: dict[Verdict, str] = {
    "same": "the same",
    "harmless": "harmless",
    "text": "another text",
    "breaks": "would break a client",
    "error": "not answered",
    "not sent": "not sent",
}


@contextlib.contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[], None]]:
    """Call what is yielded once an answer; shown where stderr is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    shown = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


# --- for people


def print_report(report: Report) -> None:
    """A line a pair, then what differs, then all of it in one line."""
    # A pipe has no width; a line is not cut for one.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(_table(report))
    for result in report.results:
        _print_details(console, result)
    _print_notes(console, report)
    console.print(Text(summary(report)), soft_wrap=True)


def summary(report: Report) -> str:
    """All pairs in one line."""
    counts = _counts(report)
    parts = [f"{count} {MEANINGS[verdict]}" for verdict, count in counts.items() if count]
    uncounted = sum(result.uncounted is not None for result in report.results)
    if uncounted:
        parts.append(f"text not compared in {uncounted}")
    stopped = "Stopped. " if report.interrupted else ""
    return f"{stopped}{_plural(sum(counts.values()), 'pair')} (--text {report.rule}): " + (
        ", ".join(parts) + "."
    )


def _table(report: Report) -> Table:
    table = Table("pair", "request", "recorded", "now", "verdict", "what")
    for result in report.results:
        request = result.request
        table.add_row(
            _plain(result.place.label),
            _plain(f"{request.method} {request.path}"),
            str(result.recorded_status),
            "-" if result.status is None else str(result.status),
            Text(result.verdict, STYLES.get(result.verdict, "")),
            _what(result),
        )
    for place in report.not_sent:
        table.add_row(_plain(place.label), "", "", "", Text("not sent", STYLES["not sent"]), "")
    return table


def _what(result: Result) -> Text:
    if result.failure is not None:
        return _plain(str(result.failure))
    counts = Counter(difference.severity for difference in result.differences)
    parts = [f"{counts[severity]} {severity}" for severity in SEVERITIES if counts[severity]]
    if result.uncounted:
        parts.append("text not compared")
    return _plain(", ".join(parts))


def _print_details(console: Console, result: Result) -> None:
    grave = [found for found in result.differences if found.severity != "harmless"]
    if not grave:
        return
    place = result.place
    heading = f"{place.label} ({place.file}:{place.line})"
    console.print(_plain(heading), style="bold", soft_wrap=True)
    for difference in grave:
        line = Text("  ").append(difference.severity, STYLES[difference.severity])
        console.print(line.append_text(_plain(_sentence(difference), before="  ")), soft_wrap=True)
        if difference.divergence is not None:
            _print_divergence(console, difference.divergence)


def _print_divergence(console: Console, found: Divergence) -> None:
    for label, rest in (("recorded", found.recorded), ("now", found.now)):
        begin = "..." if found.at > len(found.before) else ""
        line = Text(f"    {label:<9} {begin}").append_text(_plain(found.before))
        console.print(line.append(escaped(rest) or "(ends)", "reverse"), soft_wrap=True)


def _print_notes(console: Console, report: Report) -> None:
    """Once a kind: every stream is cut in another way."""
    found: dict[str, list[tuple[Result, str]]] = {}
    for result in report.results:
        for difference in result.differences:
            if difference.severity == "harmless":
                kind = f"harmless  {difference.where}"
                found.setdefault(kind, []).append((result, difference.message))
        if result.uncounted is not None:
            found.setdefault("not compared  text", []).append((result, result.uncounted))
    for kind, cases in found.items():
        result, message = cases[0]
        pairs = _plural(len(cases), "pair")
        line = f"{kind} in {pairs}, first in {result.place.label}: {message}"
        console.print(_plain(line), style="dim", soft_wrap=True)


def _sentence(difference: Difference) -> str:
    found = difference.divergence
    if found is None:
        return f"{difference.where}: {difference.message}"
    ratio = "" if found.length_ratio is None else f", length ratio {found.length_ratio:.2f}"
    return (
        f"{difference.where}: differs from character {found.at + 1} on; "
        f"{found.length} characters instead of {found.recorded_length}{ratio}, "
        f"{found.equal_share:.0%} equal from the start"
    )


def escaped(text: str) -> str:
    """The text on one line, without what would steer a terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _plain(text: str, before: str = "") -> Text:
    return Text(before + escaped(text))


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _counts(report: Report) -> dict[Verdict, int]:
    counts = Counter(result.verdict for result in report.results)
    counts["not sent"] = len(report.not_sent)
    return {verdict: counts[verdict] for verdict in MEANINGS}


# --- for machines


def report_json(report: Report) -> dict[str, Any]:
    """Everything, as `--json` prints it."""
    return {
        "url": report.url,
        "text_rule": str(report.rule),
        "pairs": [_result_json(result) for result in report.results],
        "not_sent": [{"name": place.name, "line": place.line} for place in report.not_sent],
        "counts": _counts(report),
        "interrupted": report.interrupted,
        "exit_code": report.exit_code,
    }


def _result_json(result: Result) -> dict[str, Any]:
    return {
        "name": result.place.name,
        "line": result.place.line,
        "method": result.request.method,
        "path": result.request.path,
        "recorded_status": result.recorded_status,
        "status": result.status,
        "verdict": result.verdict,
        "text_not_compared": result.uncounted,
        "failure": None if result.failure is None else str(result.failure),
        "differences": [_difference_json(difference) for difference in result.differences],
    }


def _difference_json(difference: Difference) -> dict[str, Any]:
    found = difference.divergence
    texts = None
    if found is not None:
        ratios = {"length_ratio": found.length_ratio, "equal_share": found.equal_share}
        texts = asdict(found) | ratios
    return {
        "severity": difference.severity,
        "where": difference.where,
        "message": difference.message,
        "divergence": texts,
    }
