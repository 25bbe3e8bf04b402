"""The start-up timeline: seconds by phase, worked out from events by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gemma_serve.engine.timeline import Timeline, read_events, record_engine_phases


def event(name: str, time_s: float, pid: int = 1, *args: object) -> dict[str, Any]:
    """An event as the plugin writes it."""
    return {"event": name, "time_s": time_s, "pid": pid} | ({"args": list(args)} if args else {})


ONE_WORKER = [
    event("load_started", 110.0),
    event("weights_loaded", 113.0),
    event("kv_cache", 113.5),
    event("compile_started", 114.0),
    event("compile_finished", 120.0),
    event("engine_ready", 121.5),
]


def phases_of(events: list[dict[str, Any]], spawned_s: float = 100.0) -> dict[str, float]:
    """Phases of the engine that these events make, all read at once."""
    timeline = Timeline()
    record_engine_phases(timeline, events, spawned_s)
    return timeline.as_dict()


def test_phases_of_one_worker() -> None:
    """
    processes 110 - 100, weights 113 - 110, compile 120 - 114, and the KV cache what is left of
    113 to 121.5: 8.5 - 6.
    """
    assert phases_of(ONE_WORKER) == {
        "processes": 10.0,
        "weights": 3.0,
        "compile": 6.0,
        "kv_cache": 2.5,
    }


def test_phases_do_not_depend_on_when_the_events_are_read() -> None:
    """Read after every event or once at the end, two workers give the same phases."""
    events = [
        event("load_started", 110.0, 1),
        event("load_started", 112.0, 2),
        event("weights_loaded", 113.0, 2),
        event("weights_loaded", 118.0, 1),
        event("kv_cache", 118.5),
        event("engine_ready", 120.0),
    ]
    timeline = Timeline()
    for number in range(len(events) + 1):
        record_engine_phases(timeline, events[:number], 100.0)

    # The slowest loads from 110, when loading began, to 118.
    assert timeline.as_dict() == phases_of(events)
    assert timeline.as_dict() == {
        "processes": 10.0,
        "weights": 8.0,
        "compile": 0.0,
        "kv_cache": 2.0,
    }


def test_compile_seconds_as_cuda_reports_them() -> None:
    """Each worker's compile seconds add up, and the slowest worker counts: 4 + 1 over 3."""
    events = [
        event("load_started", 110.0),
        event("weights_loaded", 113.0),
        event("compiled", 118.0, 1, "", 4.0),
        event("compiled", 117.0, 2, "", 3.0),
        event("compiled", 119.0, 1, "[encoder] ", 1.0),
        event("kv_cache", 119.5),
        event("engine_ready", 121.0),
    ]

    assert phases_of(events) == {
        "processes": 10.0,
        "weights": 3.0,
        "compile": 5.0,
        "kv_cache": 3.0,
    }


def test_a_clock_set_back_gives_no_negative_phase() -> None:
    """A phase is never negative, whatever the clock did."""
    assert phases_of([event("load_started", 110.0)], spawned_s=111.0) == {"processes": 0.0}


def test_torn_last_line_waits(tmp_path: Path) -> None:
    """A line that is still being written is not an event yet; the ones before it are."""
    file = tmp_path / "events.jsonl"
    assert read_events(file) == []

    file.write_text('{"event": "load_started"}\n{"event": "weights_lo')
    assert read_events(file) == [{"event": "load_started"}]

    file.write_text('{"event": "load_started"}\n{"event": "weights_loaded"}\n')
    assert [each["event"] for each in read_events(file)] == ["load_started", "weights_loaded"]


def test_phases_are_told_once_and_in_order() -> None:
    """Who watches hears of each phase once; `ready` is the whole time, unknown before the end."""
    told: list[str] = []
    timeline = Timeline(on_phase=lambda name, _seconds: told.append(name), started_s=0.0)

    with timeline.phase("import"):
        pass
    timeline.record("import", 99.0)
    for _ in range(2):
        record_engine_phases(timeline, ONE_WORKER, 100.0)

    assert told == ["import", "processes", "weights", "compile", "kv_cache"]
    assert "ready" not in timeline.as_dict()
    timeline.finish()
    assert [*timeline.as_dict()] == [*told, "ready"]


def test_failed_phase_is_not_recorded() -> None:
    """A phase that ends in an error has no seconds."""
    timeline = Timeline()

    with pytest.raises(ValueError, match="no such model"), timeline.phase("config"):
        raise ValueError("no such model")

    assert timeline.as_dict() == {}
