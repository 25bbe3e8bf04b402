"""
What is kept of an engine that no longer gets on, for who looks for the cause when it is gone.

One directory an incident: incident.json (reason, settings, schedulers, shapes of the requests that
were open, processes), stacks.txt (Python stacks of our process and of vLLM's), metrics.txt. None
of it holds a prompt, an answer or a key.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import platformdirs
import psutil

from gemma_serve import metrics
from gemma_serve.engine.plugin import STACKS_SIGNAL, stacks_file
from gemma_serve.engine.vitals import describe, engine_processes, is_stopped

KEPT = 10
# A process that can write its stacks does so in milliseconds.
STACKS_S = 2.0
POLL_S = 0.05
# Environment variables and settings whose values nobody else should read.
SECRET = re.compile(
    r"TOKEN|SECRET|PASSWORD|CREDENTIAL|KEY|HEADERS|hf_token|password|secret|api_key"
)


def incident_directory(configured: str | None) -> Path:
    """Where incidents are kept: as the profile says, or in the user's state directory."""
    if configured:
        return Path(configured).expanduser()
    return platformdirs.user_state_path("gemma-serve") / "incidents"


def write_incident(directory: Path, events: Path, facts: Mapping[str, Any]) -> Path:
    """
    Keep what is known now.

    Args:
        directory: Where the incidents are; only the newest `KEPT` stay.
        events: The events file, beside which vLLM's processes write their stacks.
        facts: What happened, and what the server knows of itself.

    Raises:
        OSError: it can't be written there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}"
    folder = directory / name
    folder.mkdir(mode=0o700)
    processes = [psutil.Process(), *engine_processes(events)]
    described = [describe(process) for process in processes]
    text = json.dumps({"incident": name, **facts, "processes": described}, indent=2, default=str)
    _write(folder / "incident.json", text)
    _write(folder / "metrics.txt", metrics.exposition()[0].decode())
    _write(folder / "stacks.txt", "\n".join(_stacks(events, processes)))
    _keep_newest(directory)
    return folder


def without_secrets(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Settings as /v1/info has them, with the values that look like secrets left out."""
    return [
        {**setting, "value": "(left out)"} if SECRET.search(str(setting["key"])) else dict(setting)
        for setting in settings
    ]


def _stacks(events: Path, processes: Sequence[psutil.Process]) -> Iterator[str]:
    ours, *others = processes
    yield f"--- gemma-serve, process {ours.pid}\n{_own_stacks()}"
    for process in others:
        title = describe(process).get("title", "gone")
        yield f"--- {title}, process {process.pid}\n{_stacks_of(process, events)}"


def _own_stacks() -> str:
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        return file.read()


def _stacks_of(process: psutil.Process, events: Path) -> str:
    if is_stopped(process):
        return "It is stopped (a signal, or a debugger), and can't say where it is.\n"
    file = stacks_file(events, process.pid)
    try:
        before_bytes = file.stat().st_size
        process.send_signal(STACKS_SIGNAL)
        deadline_s = time.monotonic() + STACKS_S
        while file.stat().st_size == before_bytes and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
        time.sleep(POLL_S)  # the rest of it
        text = file.read_text(encoding="utf-8", errors="replace")
    except (OSError, psutil.Error) as error:
        return f"It could not be asked ({type(error).__name__}).\n"
    return text or f"It has not answered within {STACKS_S:.0f} s.\n"


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)


def _keep_newest(directory: Path) -> None:
    """Names begin with the time, so that they sort by it."""
    found = sorted(directory.glob("????????T??????Z-*"))
    for old in found[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
