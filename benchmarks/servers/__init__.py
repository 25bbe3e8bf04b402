"""Servers that the harness starts: named by a target, waited for, paused, and always ended."""

from __future__ import annotations

from benchmarks.servers.errors import ServerError
from benchmarks.servers.running import Server, started
from benchmarks.servers.targets import TargetSpec, parse_target

__all__ = ["Server", "ServerError", "TargetSpec", "parse_target", "started"]
