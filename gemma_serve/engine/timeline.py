"""
The start-up timeline: which phase took how many seconds, shown as it happens and kept.

Our own process times its phases itself; the phases of vLLM's processes come from the events that
`engine/plugin.py` writes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# In the order in which they happen.
PHASES = ("import", "config", "processes", "weights", "compile", "kv_cache", "warm_up", "quality")


@dataclass
class Timeline:
    """Seconds by phase, from the start of the program until the server is ready."""

    on_phase: Callable[[str, float], None] = lambda _name, _seconds: None
    started_s: float = field(default_factory=time.time)
    seconds: dict[str, float] = field(default_factory=dict)
    ended_s: dict[str, float] = field(default_factory=dict)
    ready_s: float | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside as the phase `name`."""
        began = time.time()
        yield
        self.record(name, time.time() - began)

    def record(self, name: str, seconds: float) -> None:
        """Keep the seconds of a phase and tell who watches."""
        if name in self.seconds:
            return
        self.seconds[name] = max(seconds, 0.0)
        self.ended_s[name] = time.time()
        self.on_phase(name, self.seconds[name])

    def finish(self) -> None:
        """The server is ready: the total is known."""
        self.ready_s = time.time() - self.started_s

    def as_dict(self) -> dict[str, float]:
        """Rounded seconds by phase, `ready` being the total, for /v1/info."""
        phases = {name: round(self.seconds[name], 2) for name in PHASES if name in self.seconds}
        return phases | ({"ready": round(self.ready_s, 2)} if self.ready_s is not None else {})


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events written so far; a line that is still being written is left for next time."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def record_engine_phases(
    timeline: Timeline, events: list[dict[str, Any]], spawned_s: float
) -> None:
    """
    Turn the engine's events so far into phases.

    With several workers, loading lasts from the first that begins to the last that ends, as the
    engine waits for all of them; the slowest counts for compiling. On CUDA vLLM reports
    its compile seconds; on CPU compiling is part of the warm-up run, which is timed instead.
    """
    last = {event["event"]: event for event in events}
    load_started = next((event for event in events if event["event"] == "load_started"), None)
    if load_started is None:
        return
    timeline.record("processes", load_started["time_s"] - spawned_s)
    if "weights_loaded" in last and "kv_cache" in last:
        loaded_s = last["weights_loaded"]["time_s"]
        timeline.record("weights", loaded_s - load_started["time_s"])
        if "engine_ready" in last:
            compile_s = _compile_seconds(events, last)
            timeline.record("compile", compile_s)
            timeline.record("kv_cache", last["engine_ready"]["time_s"] - loaded_s - compile_s)


def _compile_seconds(events: list[dict[str, Any]], last: dict[str, dict[str, Any]]) -> float:
    if "compile_finished" in last and "compile_started" in last:
        return float(last["compile_finished"]["time_s"] - last["compile_started"]["time_s"])
    by_process: dict[int, float] = {}
    for event in events:
        if event["event"] == "compiled":
            by_process[event["pid"]] = by_process.get(event["pid"], 0.0) + float(event["args"][-1])
    return max(by_process.values(), default=0.0)
