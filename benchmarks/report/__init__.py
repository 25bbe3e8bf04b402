"""One self-contained HTML page from the files of runs, sweeps and comparisons."""

from benchmarks.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
