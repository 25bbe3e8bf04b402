"""What is kept of an engine that hangs: how much, where, and nothing secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemma_serve.incident import KEPT, incident_directory, without_secrets, write_incident


def test_incident_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The profile's, or one in the user's state directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    assert incident_directory("/var/incidents") == Path("/var/incidents")
    assert incident_directory(None) == tmp_path / "gemma-serve" / "incidents"


def test_newest_are_kept(tmp_path: Path) -> None:
    """Only the newest ten incidents stay, and what is none is not touched."""
    for day in range(KEPT + 5):
        (tmp_path / f"202501{day + 1:02d}T120000Z-7").mkdir()
    (tmp_path / "notes").mkdir()

    folder = write_incident(tmp_path, tmp_path / "events.jsonl", {"reason": "it hangs"})

    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert len(names) == KEPT + 1
    assert {folder.name, "notes", "20250115T120000Z-7"} <= set(names)
    told = json.loads((folder / "incident.json").read_text())
    assert told["reason"] == "it hangs"
    assert [process["status"] for process in told["processes"]] == ["running"]
    assert "test_newest_are_kept" in (folder / "stacks.txt").read_text()


@pytest.mark.parametrize(
    ("key", "is_kept"),
    [
        ("HF_TOKEN", False),
        ("OTEL_EXPORTER_OTLP_HEADERS", False),
        ("hf_token", False),
        ("max_num_batched_tokens", True),
        ("tokenizer", True),
        ("VLLM_LOGGING_LEVEL", True),
    ],
)
def test_secrets_are_left_out(key: str, is_kept: bool) -> None:
    """A setting whose name says that it is secret loses its value, and keeps its origin."""
    (setting,) = without_secrets([{"key": key, "value": "x", "origin": "environment"}])

    value = "x" if is_kept else "(left out)"
    assert setting == {"key": key, "value": value, "origin": "environment"}
