"""What the terminal shows: progress on stderr while something runs, results on stdout after it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from benchmarks.load.calibrate import Calibration
from benchmarks.metrics.diagnosis import diagnose
from benchmarks.records import Check, Distribution, Run, Sweep, Validity

console = Console(stderr=True)
# A pipe has no width; tables are not cut for one.
out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)
STATUS = {"ok": "checks ok", "red": "red", "not_measured": "not measured"}
# In this order, by the names in run.json; what is not listed is in the files.
SHOWN = ("ttft_s", "ttft_sched_s", "tpot_s", "itl_s", "e2e_s", "max_stall_s")


class Say(Protocol):
    """Says what is being done, and since when."""

    def __call__(self, detail: str, elapsed_s: float = 0.0, /) -> None:
        """Called as often as one likes."""


def _bar() -> Progress:
    # A long name must leave the bars their place on a terminal of 80 columns.
    name = Column(no_wrap=True, overflow="ellipsis", max_width=44)
    columns = (
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _line(text: str) -> None:
    """What a bar would show, where there is no terminal to draw it."""
    if not console.is_terminal:
        console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of requests done."""
    _line(f"Offering {label}...")
    with _bar() as bar:
        task = bar.add_task(f"{label}: warm-up", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, description=label, completed=done, total=total)

        yield show


@contextlib.contextmanager
def doing(what: str) -> Iterator[Say]:
    """A line that says what is waited for; without a terminal, one for each new detail."""
    with console.status(escape(what)) as status:
        said = ""

        def show(detail: str, elapsed_s: float = 0.0, /) -> None:
            nonlocal said
            since = f" ({elapsed_s:.0f} s)" if elapsed_s else ""
            status.update(escape(f"{what}: {detail}{since}"))
            if detail != said:
                _line(f"{what}: {detail}")
            said = detail

        yield show


class Bars:
    """Which block of how many is measured, and how far; without a terminal, a line a block."""

    def __init__(self, what: str, bar: Progress) -> None:
        self._what, self._bar = what, bar
        self._blocks = bar.add_task(what, total=None)
        self._requests = bar.add_task("requests", total=None)
        self._said = ""

    def say(self, detail: str, _elapsed_s: float = 0.0, /) -> None:
        """What is being done between blocks."""
        self._bar.update(self._blocks, description=f"{self._what}: {detail}")
        if detail != self._said:
            _line(f"{self._what}: {detail}")
        self._said = detail

    def block(self, number: int, total: int, what: str) -> None:
        """The block that begins now, from 1."""
        self.say(f"block {number} of {total}: {what}")
        self._bar.update(self._blocks, completed=number - 1, total=total)
        self._bar.reset(self._requests)

    def requests(self, done: int, total: int) -> None:
        """So many of the block's requests are done."""
        self._bar.update(self._requests, completed=done, total=total)


@contextlib.contextmanager
def bars(what: str) -> Iterator[Bars]:
    """The bars of something that is measured in blocks."""
    with _bar() as bar:
        yield Bars(what, bar)


def print_run(
    run: Run,
    directory: Path,
    *,
    as_json: bool = False,
    brief: bool = False,
    to: Console = out,
) -> None:
    """The validity first, then rates, percentiles and what they mean."""
    if as_json:
        to.print_json(run.model_dump_json(by_alias=True))
        return
    print_validity(run.validity, to)
    window, name = run.metrics.steady or run.metrics.full_run, "steady window"
    if run.metrics.steady is None:
        name = f"full run ({run.metrics.steady_reason})"
    # An IPv6 address in its brackets would be markup.
    label = escape(run.target.label)
    to.print(
        f"{label}, {run.load.label()}: [bold]{_number(window.output_tps)} output tokens/s[/bold], "
        f"{_number(window.rps)} requests/s, in the {name}",
        highlight=False,
    )
    if brief:
        return
    to.print(_percentiles(run))
    prefill = run.metrics.full_run.distributions.get("prefill_tps")
    if prefill is not None and prefill.p50 is not None:
        to.print(f"prefill: {prefill.p50:,.0f} prompt tokens/s (median)", highlight=False)
    if goodput := run.metrics.full_run.goodput:
        to.print(
            f"goodput: {goodput.goodput_rps:.2f} requests/s, {goodput.goodput_tps:.1f} tokens/s; "
            f"SLO kept by {goodput.num_good} of {goodput.num_counted} ({goodput.attainment:.0%})"
        )
    for sentence in diagnose(run):
        to.print(f"- {sentence}", highlight=False, markup=False)
    full = run.metrics.full_run
    to.print(
        f"workload: {run.workload.description}; sha256 {run.workload.sha256[:12]}; tokens counted "
        f"by {run.token_source}; {full.num_ok} ok, {full.num_failed} failed\nfiles: {directory}",
        highlight=False,
        markup=False,
    )


def print_validity(validity: Validity, to: Console = out) -> None:
    """The verdict, and every check that is red or could not be made."""
    colour = "green" if validity.verdict == "VALID" else "bold red"
    to.print(f"[{colour}]{validity.verdict}[/{colour}]: {_sum(validity.checks)}", highlight=False)
    for check in validity.checks:
        if check.status == "red":
            to.print(f"  red: {check.name}: {check.message}", highlight=False, markup=False)
    missing = [check.name for check in validity.checks if check.status == "not_measured"]
    if missing:
        to.print(f"  not measured: {', '.join(missing)}", highlight=False)


def _sum(checks: Sequence[Check]) -> str:
    counts = {status: sum(check.status == status for check in checks) for status in STATUS}
    return ", ".join(
        f"{counts[status]} {said}" for status, said in STATUS.items() if counts[status]
    )


def _percentiles(run: Run) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("", "n", "mean", "p50", "p90", "p95", "p99"):
        table.add_column(column, justify="left" if not column else "right")
    for name in SHOWN:
        found = run.metrics.full_run.distributions.get(name)
        if found is not None and found.n:
            table.add_row(name.removesuffix("_s") + ", ms", str(found.n), *_row(found))
    return table


def _row(found: Distribution) -> list[str]:
    values = (found.mean, found.p50, found.p90, found.p95, found.p99)
    # A percentile that too few samples were drawn for is not shown, rather than shown wrong.
    return ["too few" if value is None else f"{value * 1e3:.2f}" for value in values]


def print_sweep(sweep: Sweep, directory: Path, *, as_json: bool = False) -> None:
    """A line a load, and what they say together."""
    if as_json:
        out.print_json(sweep.model_dump_json(by_alias=True))
        return
    table = Table(box=None, pad_edge=False)
    names = ("load", "", "tokens/s", "requests/s", "ttft p50 ms", "tpot p50 ms", "SLO kept")
    for column in names:
        table.add_column(column, justify="left" if column in ("load", "") else "right")
    for point in sweep.points:
        table.add_row(
            point.load.label(),
            point.verdict,
            _number(point.output_tps),
            _number(point.rps),
            _number(point.ttft_p50_s, 1e3),
            _number(point.tpot_p50_s, 1e3),
            "" if point.attainment is None else f"{point.attainment:.0%}",
        )
    out.print(table)
    out.print(f"{sweep.message}\nfiles: {directory}", highlight=False, markup=False)


def print_calibration(found: Sequence[Calibration]) -> None:
    """What the client can do, by concurrency."""
    table = Table(box=None, pad_edge=False)
    names = ["clients", "ceiling tokens/s", "paced / ideal tokens/s", "client CPU"]
    for column in (*names, "ttft error ms (p99)", "tpot error us", "loop lag p99 ms"):
        table.add_column(column, justify="right")
    for one in found:
        table.add_row(
            str(one.concurrency),
            f"{one.ceiling_tps:,.0f}",
            f"{one.paced_tps:,.0f} / {one.ideal_tps:,.0f}",
            f"{one.client_cpu:.0%}",
            f"{one.ttft_error_ms:.2f} ({one.ttft_error_p99_ms:.2f})",
            f"{one.tpot_error_us:.1f}",
            f"{one.loop_lag_p99_ms:.2f}",
        )
    out.print(table)


def _number(value: float | None, scale: float = 1.0) -> str:
    return "-" if value is None else f"{value * scale:,.2f}"
