"""
Virtual environments of other people's tools, made on first use under the user's cache.

Whatever runs takes the lowest priority, writes its output to a log and is ended with the harness.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import filelock
import platformdirs

from benchmarks.servers.errors import ServerError

# Called about once a second: what is being done, and for how long.
Progress = Callable[[str, float], None]
TICK_S = 1.0
LOG_END_CHARS = 2000
MADE = "made.json"
VENV = [sys.executable, "-m", "venv", "--clear"]


def cache_dir() -> Path:
    """Where environments and files of the harness live."""
    path = Path(platformdirs.user_cache_dir("gemma-serve-bench"))
    path.mkdir(parents=True, exist_ok=True)
    return path


async def environment(
    name: str,
    installs: Sequence[Sequence[str]],
    on_progress: Progress | None = None,
    environ: Mapping[str, str] | None = None,
) -> Path:
    """
    The python of a virtual environment in which each of `installs` was given to `pip install`.

    Made once; another list of installs or variables makes it anew.

    Raises:
        ServerError: an installation failed; with the end of its log.
    """
    directory = cache_dir() / name
    recipe = hashlib.sha256(json.dumps([installs, sorted((environ or {}).items())]).encode())
    python = directory / "bin" / "python"
    with filelock.FileLock(f"{directory}.lock"):
        if _is_made(directory, recipe.hexdigest()):
            return python
        log = cache_dir() / f"{name}.log"
        log.unlink(missing_ok=True)
        phase = f"installing {name} (once; log: {log})"
        await run_logged([*VENV, str(directory)], log, phase, on_progress)
        for packages in installs:
            words = [str(python), "-m", "pip", "install", *packages]
            await run_logged(words, log, phase, on_progress, environ)
        (directory / MADE).write_text(json.dumps({"recipe": recipe.hexdigest()}))
    return python


async def packages(name: str, wanted: Sequence[str], on_progress: Progress | None = None) -> Path:
    """
    A directory with packages that this environment lacks, to be put on a child's PYTHONPATH.

    What they need beside them is this environment's own.

    Raises:
        ServerError: the installation failed; with the end of its log.
    """
    directory, log = cache_dir() / f"{name}-{sys.version_info.minor}", cache_dir() / f"{name}.log"
    with filelock.FileLock(f"{directory}.lock"):
        if not _is_made(directory, " ".join(wanted)):
            words = [sys.executable, "-m", "pip", "install", "--no-deps", "--upgrade"]
            phase = f"installing {name} (once; log: {log})"
            await run_logged([*words, "--target", str(directory), *wanted], log, phase, on_progress)
            (directory / MADE).write_text(json.dumps({"recipe": " ".join(wanted)}))
    return directory


def _is_made(directory: Path, recipe: str) -> bool:
    try:
        made: dict[str, str] = json.loads((directory / MADE).read_text())
    except (OSError, ValueError):
        return False
    return made.get("recipe") == recipe


async def run_logged(
    words: Sequence[str],
    log: Path,
    phase: str,
    on_progress: Progress | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """
    Run a command to its end, its output behind what the log has.

    Raises:
        ServerError: it failed; with the end of the log.
    """
    began_s = time.monotonic()
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *("nice", "-n", "19", *words),
            stdout=output,
            stderr=output,
            env=os.environ | dict(environ or {}),
            start_new_session=True,
        )
    try:
        while process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), TICK_S)
            if on_progress is not None:
                on_progress(phase, time.monotonic() - began_s)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        raise ServerError(
            f"{' '.join(words[:4])} ... ended with code {process.returncode}:\n{log_end(log)}"
        )


def log_end(log: Path) -> str:
    """The last lines of a log."""
    return log.read_text(errors="replace")[-LOG_END_CHARS:].strip()
