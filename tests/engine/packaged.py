"""The packaged profiles on machines that are not this one, as `gemma-serve check --gpu` does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemma_serve.engine.args import Resolved, resolve
from gemma_serve.engine.platform import Platform, simulated
from gemma_serve.errors import GemmaServeError
from gemma_serve.gemma.checkpoint import check_servable, read_checkpoint
from gemma_serve.profile.load import load_profile
from tests.engine.derive import EIGHT_CORES, FIELDS, GIB

GOLDEN = Path(__file__).parent / "golden" / "profiles"
GPUS = ("h100", "h200", "a100-40", "a100-80", "l4", "b200")
MACHINES: Mapping[str, Platform] = {gpu: simulated(gpu) for gpu in GPUS} | {"cpu": EIGHT_CORES}
FREE_BYTES_ON_CPU = 60 * GIB


def resolve_packaged(name: str, machine: str) -> Resolved:
    """
    A packaged profile on one of the machines.

    Raises:
        GemmaServeError: It can't run there.
    """
    loaded = load_profile(name)
    checkpoint = read_checkpoint(loaded.profile.model, download=False)
    check_servable(checkpoint, loaded.profile)
    return resolve(
        loaded,
        checkpoint,
        MACHINES[machine],
        FIELDS,
        available_memory_bytes=FREE_BYTES_ON_CPU if machine == "cpu" else None,
        vllm_version="0.32.0",
    )


def golden_of(name: str) -> dict[str, Any]:
    """
    What a profile becomes on every machine: what is the same on all, then what is not.

    A machine where it is refused has the sentence. Origins and reasons are left out; the reports
    beside this folder have them.
    """
    found = {machine: _outcome(name, machine) for machine in MACHINES}
    maps = [outcome for outcome in found.values() if isinstance(outcome, dict)]
    shared = {
        key: value for key, value in maps[0].items() if all(m.get(key) == value for m in maps)
    }
    return {
        "profile": name,
        "everywhere": shared,
        **{machine: _without(outcome, shared) for machine, outcome in found.items()},
    }


def write_golden(name: str) -> None:
    """Record what a profile becomes now."""
    text = json.dumps(golden_of(name), indent=1, ensure_ascii=False) + "\n"
    (GOLDEN / f"{name}.json").write_text(text, encoding="utf-8")


def _outcome(name: str, machine: str) -> dict[str, Any] | str:
    try:
        resolved = resolve_packaged(name, machine)
    except GemmaServeError as error:
        return error.message
    env = {f"env.{key}": value for key, value in resolved.env_dict().items()}
    serving = {f"serving.{key}": value for key, value in resolved.frontend_kwargs().items()}
    return env | resolved.engine_kwargs() | serving | {"notes": list(resolved.notes)}


def _without(outcome: dict[str, Any] | str, shared: Mapping[str, Any]) -> dict[str, Any] | str:
    if isinstance(outcome, str):
        return outcome
    return {key: value for key, value in outcome.items() if key not in shared}
