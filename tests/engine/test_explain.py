"""The report of `gemma-serve check`."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gemma_serve.engine.args import resolve
from gemma_serve.engine.explain import print_report, report_json
from gemma_serve.engine.platform import Platform, simulated
from gemma_serve.engine.settings import Setting
from gemma_serve.gemma.checkpoint import read_checkpoint
from tests.engine.derive import FIELDS, GIB, TWO_CORES, load

GOLDEN = Path(__file__).parent / "golden"
CASES: dict[str, tuple[Platform, dict[str, Any]]] = {
    "gemma-3-27b-h100-fp8": (
        simulated("h100"),
        {"model": "google/gemma-3-27b-it", "dtype": "fp8", "tensor_parallel_size": 2},
    ),
    "gemma-2-9b-a100": (simulated("a100"), {"model": "google/gemma-2-9b-it"}),
    "gemma-4-31b-b200-text": (
        simulated("b200"),
        {"model": "google/gemma-4-31B-it", "dtype": "fp8", "text_only": True},
    ),
    "embedded-cpu": (
        TWO_CORES,
        {"model": "embedded/gemma-3-270m", "engine": {"enforce_eager": True}},
    ),
}


def report(platform: Platform, keys: dict[str, Any], console: Console | None = None) -> Any:
    Path("mine.yaml").unlink(missing_ok=True)
    loaded = load(Path(), **keys)
    checkpoint = read_checkpoint(loaded.profile.model, download=False)
    resolved = resolve(loaded, checkpoint, platform, FIELDS, available_memory_bytes=8 * GIB)
    if console is not None:
        print_report(resolved, loaded, checkpoint, platform, console)
    return report_json(resolved, loaded, checkpoint, platform)


@pytest.mark.parametrize("name", CASES)
def test_report_is_as_recorded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value, origin and reason of a few profiles, so that review sees any change."""
    monkeypatch.chdir(tmp_path)
    recorded = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert report(*CASES[name]) == recorded


def test_table_shows_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """People see what machines see: all keys, origins and notes, and that it ran on no GPU."""
    monkeypatch.chdir(tmp_path)
    text = StringIO()
    as_json = report(*CASES["gemma-3-27b-h100-fp8"], Console(file=text, width=400))
    printed = text.getvalue()
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert lines[:5] == [
        "profile mine",
        "model google/gemma-3-27b-it",
        "generation Gemma 3",
        "config from packaged facts",
        "platform simulated NVIDIA H100: not run on a GPU",
    ]
    for section in ("env", "engine_args", "frontend_args"):
        for row in as_json[section]:
            assert f"{row['key']} {row['value']} {row['origin']} {row['reason']}" in lines
    assert all(f"note: {note}" in lines for note in as_json["notes"])


def test_secrets_are_not_shown() -> None:
    """The value of a variable that names a secret is in no report."""
    shown = Setting("HF_TOKEN", "hf_abc", "environment", "set").as_dict()
    assert shown["value"] == "(hidden)"
    assert Setting("max_num_batched_tokens", 5, "default", "set").as_dict()["value"] == 5
