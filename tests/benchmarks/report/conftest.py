"""The made-up results, made once for all tests of the report."""

from __future__ import annotations

import pytest

from benchmarks.report.data import ComparisonData, ReportData, RunData, SweepData
from tests.benchmarks.report import example_data as example

# What a server may call itself.
HOSTILE = '<script>document.title = "taken"</script>"&\'<b>'


@pytest.fixture(scope="session")
def run() -> RunData:
    """A valid closed-loop run."""
    return example.run()


@pytest.fixture(scope="session")
def broken_run() -> RunData:
    """A run with early-closed streams, of a server with a hostile name."""
    return example.run(example.Server(label=HOSTILE), 16, 100, seed=3, failures=0.06)


@pytest.fixture(scope="session")
def sweep() -> SweepData:
    """Seven loads up to the knee."""
    return example.sweep()


@pytest.fixture(scope="session")
def comparison() -> ComparisonData:
    """Eight pairs, with answers that differ."""
    return example.comparison(same_answers=False)


@pytest.fixture(scope="session")
def everything(
    run: RunData, broken_run: RunData, sweep: SweepData, comparison: ComparisonData
) -> ReportData:
    """One of each, and two sweeps to lay over each other."""
    other = example.sweep(example.Server(label="vLLM's own server", token_s=0.0125, places=20))
    open_loop = example.run(rate_rps=9, num_requests=90, seed=4)
    return ReportData([run, broken_run, open_loop], [sweep, other], [comparison])
