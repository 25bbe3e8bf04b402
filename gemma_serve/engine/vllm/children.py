"""
Ties what vLLM starts from our process to the life of it, as soon as it runs.

The plugin is too late for an engine core, which first waits five minutes for a front end that may
be dead, and the data-parallel coordinator loads no plugin. Workers are an engine core's children,
and load it at once.
"""

from __future__ import annotations

from functools import partial
from pkgutil import resolve_name

from vllm import envs

from gemma_serve.engine.processes import run_with_parent

STARTED = (
    "vllm.v1.engine.core:EngineCoreProc.run_engine_core",
    "vllm.v1.engine.coordinator:DPCoordinatorProc.run_coordinator",
)


def tie_children() -> None:
    """Have vLLM's children ask the kernel to end them with us, before they do anything else."""
    if envs.VLLM_WORKER_MULTIPROC_METHOD != "spawn":
        return  # a forked child would find what we put there under the name, not vLLM's own
    for name in STARTED:
        owner, _, function = name.rpartition(".")
        setattr(resolve_name(owner), function, partial(run_with_parent, name))
