"""The plugin that turns vLLM's log records into events, held against the installed vLLM."""

from __future__ import annotations

import ast
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from gemma_serve.engine import plugin
from gemma_serve.engine.plugin import (
    ENGINE_READY_PREFIX,
    EVENTS_VARIABLE,
    MARKERS,
    EventHandler,
    event_of,
    listen,
    register,
)

EVERYWHERE = ("die_with_parent", "keep_on_loopback", "write_stacks_when_asked", "listen")
ON_CPU = ("sleep_instead_of_yielding", "sort_only_the_top_k")

# Enough of a marker to find the few files worth parsing; long ones are split across lines there.
HINT_CHARS = 20


@pytest.fixture(scope="module")
def vllm_strings() -> set[str]:
    """Every string in those files of the installed vLLM that a marker could stand in."""
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    hints = [marker[:HINT_CHARS] for marker in (*MARKERS, ENGINE_READY_PREFIX)]
    strings: set[str] = set()
    for file in Path(spec.origin).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if any(hint in text for hint in hints):
            constants = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant))
            strings.update(c.value for c in constants if isinstance(c.value, str))
    return strings


@pytest.fixture
def vllm_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """The logger named vllm with one printing handler, as vLLM sets it up; restored after."""
    logger, printing = logging.getLogger("vllm"), logging.StreamHandler()
    monkeypatch.setattr(logger, "handlers", [printing])
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield logger
    logger.setLevel(before)


def record(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    """A log record of vLLM's."""
    exc_info = (type(error), error, None) if error else None
    return logging.LogRecord("vllm.x", logging.INFO, "x.py", 1, message, args, exc_info)


@pytest.mark.parametrize("marker", MARKERS)
def test_marker_is_a_string_of_vllm(vllm_strings: set[str], marker: str) -> None:
    """Each marker is word for word a format string of the installed vLLM."""
    assert marker in vllm_strings


def test_engine_ready_prefix_is_of_vllm(vllm_strings: set[str]) -> None:
    """Some format string of the installed vLLM begins as the engine's last record does."""
    assert any(string.startswith(ENGINE_READY_PREFIX) for string in vllm_strings)


@pytest.mark.parametrize(
    ("message", "args", "name"),
    [
        ("Starting to load model %s...", ("tiny",), "load_started"),
        ("Loading weights took %.2f seconds", (1.5,), "weights_loaded"),
        (f"{ENGINE_READY_PREFIX} %.2f s (compilation: %.2f s)", (9.0, 4.0), "engine_ready"),
    ],
)
def test_event_of_a_marked_record(message: str, args: tuple[object, ...], name: str) -> None:
    """A marked record becomes an event with its process and its numbers as numbers."""
    event = event_of(record(message, *args))

    assert event is not None
    assert (event["event"], event["pid"], event["args"]) == (name, os.getpid(), list(args))


def test_event_of_a_failure() -> None:
    """A failure carries the type and the text of the error, cut to what one write can hold."""
    event = event_of(record("EngineCore failed to start.", error=ValueError("too small" * 1000)))

    assert event is not None
    assert (event["event"], event["error_type"]) == ("failed", "ValueError")
    assert event["error"] == ("too small" * 1000)[:1500]


def test_other_records_pass() -> None:
    """A record without a marker is no event, even when its arguments hold one."""
    assert event_of(record("%s", "Warming up done.")) is None


def test_listen_writes_marked_records_only(vllm_logger: logging.Logger, tmp_path: Path) -> None:
    """Called once or twice, each marked record is one line; what is printed stays the same."""
    events = tmp_path / "events.jsonl"

    listen(str(events))
    listen(str(events))
    logging.getLogger("vllm.worker").info("Warming up done.")
    logging.getLogger("vllm.worker").info("nothing of note")

    assert [json.loads(line)["event"] for line in events.read_text().splitlines()] == [
        "compile_finished"
    ]
    printing, *ours = vllm_logger.handlers
    assert [type(handler) for handler in ours] == [EventHandler]
    assert printing.level == logging.ERROR


@pytest.mark.usefixtures("vllm_logger")
def test_events_file_that_vanished(tmp_path: Path) -> None:
    """A cleaner of /tmp that takes the file away breaks nothing in vLLM."""
    listen(str(tmp_path / "gone" / "events.jsonl"))
    logging.getLogger("vllm.worker").info("Warming up done.")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variable", [None, "events.jsonl"])
def test_register_elsewhere(
    vllm_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    """Another vLLM in the same environment is left alone, and so is the server's own process."""
    monkeypatch.delenv(EVENTS_VARIABLE, raising=False)
    if variable:
        monkeypatch.setenv(EVENTS_VARIABLE, variable)

    register()

    assert len(vllm_logger.handlers) == 1
    assert vllm_logger.level == logging.ERROR


@pytest.mark.parametrize(
    ("version", "on_cpu"),
    [
        ({"cuda": None, "hip": None}, True),
        ({"cuda": "13.0", "hip": None}, False),
        ({"cuda": None, "hip": "6.4"}, False),
    ],
    ids=["cpu", "cuda", "rocm"],
)
def test_only_builds_for_a_cpu_are_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: dict[str, str | None], *, on_cpu: bool
) -> None:
    """Beside a GPU waiting and sampling stay what vLLM made them."""
    torch = SimpleNamespace(version=SimpleNamespace(**version))
    monkeypatch.setattr(plugin, "import_module", {"torch": torch}.__getitem__)
    monkeypatch.setenv(plugin.EVENTS_VARIABLE, str(tmp_path / "events"))
    monkeypatch.setattr(plugin, "parent_process", object)
    done: list[str] = []
    for name in EVERYWHERE + ON_CPU:
        monkeypatch.setattr(plugin, name, lambda *_, name=name: done.append(name))
    register()
    assert set(done) == {*EVERYWHERE, *(ON_CPU if on_cpu else ())}


def test_plugin_is_an_entry_point_that_costs_nothing() -> None:
    """vLLM finds the plugin by its entry point, and loading it imports neither vLLM nor torch."""
    code = (
        "import sys; from importlib.metadata import entry_points; "
        "[point] = [p for p in entry_points(group='vllm.general_plugins') "
        "if p.name == 'gemma_serve']; point.load()(); "
        "sys.exit(any(name in sys.modules for name in ('vllm', 'torch', 'pydantic')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
