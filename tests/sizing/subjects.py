"""Profiles to be sized, for machines that are not this one."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemma_serve.engine.platform import Platform, simulated
from gemma_serve.gemma.architecture import Checkpoint
from gemma_serve.gemma.checkpoint import read_checkpoint
from gemma_serve.profile.load import load_profile
from gemma_serve.sizing.fit import Subject
from tests.engine.derive import FIELDS, GIB, load

FREE_BYTES = 20 * GIB


def subject(
    platform: Platform | str, *, checkpoint: Checkpoint | None = None, **keys: Any
) -> Subject:
    """A profile of these keys; a platform's name means a simulated one."""
    with tempfile.TemporaryDirectory() as directory:
        loaded = load(Path(directory), **keys)
    found = checkpoint or read_checkpoint(loaded.profile.model, download=False)
    machine = simulated(platform) if isinstance(platform, str) else platform
    free = FREE_BYTES if machine.kind == "cpu" else None
    return Subject(loaded, found, machine, FIELDS, {}, free)


def packaged(name: str, gpu: str, overrides: Mapping[str, Any] | None = None) -> Subject:
    """A packaged profile on a simulated GPU."""
    loaded = load_profile(name, [f"{key}={value}" for key, value in (overrides or {}).items()])
    checkpoint = read_checkpoint(loaded.profile.model, download=False)
    return Subject(loaded, checkpoint, simulated(gpu), FIELDS)
