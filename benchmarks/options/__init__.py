"""The options of the commands, each written once, in groups that commands take together."""

from __future__ import annotations

from benchmarks.options.load import LoadOptions
from benchmarks.options.server import OutputOptions, ServerOptions
from benchmarks.options.takes import Option, takes
from benchmarks.options.values import numbers, refuse
from benchmarks.options.workload import ReplayOptions, WorkloadOptions

__all__ = [
    "LoadOptions",
    "Option",
    "OutputOptions",
    "ReplayOptions",
    "ServerOptions",
    "WorkloadOptions",
    "numbers",
    "refuse",
    "takes",
]
