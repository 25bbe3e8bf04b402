"""What is known before vLLM is imported: the model, the machine, the arguments."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gemma_serve.engine import platform as platforms
from gemma_serve.engine.args import Resolved, resolve
from gemma_serve.engine.fields import InstalledVllm, installed_vllm
from gemma_serve.engine.platform import Platform
from gemma_serve.engine.requirements import check_plugins
from gemma_serve.errors import GemmaServeError, ProfileError, StartupError
from gemma_serve.gemma import embedded
from gemma_serve.gemma.cache import cache_dir
from gemma_serve.gemma.checkpoint import (
    Checkpoint,
    check_servable,
    looks_like_path,
    read_checkpoint,
)
from gemma_serve.profile.load import LoadedProfile
from gemma_serve.sizing.fit import Sizing, Subject, refuse_unfit
from gemma_serve.sizing.tensors import fetch_tensors
from gemma_serve.triton.contracts import CONTRACTS
from gemma_serve.triton.contracts.check import default_tensors

# What `check` resolves for where no vLLM is installed: the version that is pinned.
PINNED_VLLM = InstalledVllm("0.32.0", {"attention_config": {}, "attention_backend": {}})


@dataclass(frozen=True)
class Plan:
    """A profile on a machine, resolved."""

    loaded: LoadedProfile
    checkpoint: Checkpoint
    platform: Platform
    resolved: Resolved
    vllm_version: str
    sizing: Sizing | None = None  # None: not a model whose layers are known, or not counted

    def facts(self) -> dict[str, Any]:
        """The few facts that name this server, for /v1/info and the info series."""
        profile = self.loaded.profile
        return {
            "profile": self.loaded.name,
            "model": profile.model,
            "dtype": profile.dtype,
            "tensor_parallel_size": profile.tensor_parallel_size,
            "vllm_version": self.vllm_version,
        }

    def about(self) -> Mapping[str, Any]:
        """The facts and every setting with its origin and reason, for /v1/info."""
        resolved = self.resolved
        settings = (*resolved.env, *resolved.engine_args, *resolved.frontend_args)
        return self.facts() | {"settings": [setting.as_dict() for setting in settings]}


def plan_check(loaded: LoadedProfile, gpu: str | None, say: Callable[[str], None]) -> Plan:
    """
    Resolve without fetching or preparing anything, for `gemma-serve check`.

    Args:
        gpu: a name that `platform.simulated` knows (h100, l4, ...), or none (CPU), instead of this
            machine.
    """
    subject, version = _without_preparing(loaded, gpu, say)
    return _resolved(subject, version)


def plan_size(
    loaded: LoadedProfile, gpu: str | None, say: Callable[[str], None], *, fetch: bool = False
) -> Subject:
    """
    As `plan_check`, for `gemma-serve plan`: what does not fit is to be counted, and is no error.

    Args:
        fetch: whether the Hub may be asked for config.json and the headers of the weights.

    Raises:
        GemmaServeError: nothing that could be counted.
    """
    model = loaded.profile.model
    is_here = model == embedded.MODEL_ID or looks_like_path(model)
    if fetch and (is_here or Path(model).expanduser().exists()):
        raise ProfileError(
            f"--fetch asks the Hub for a repository, and model {model!r} is on this machine; leave "
            "--fetch out."
        )
    subject, _ = _without_preparing(loaded, gpu, say, fetch=fetch)
    if gpu is None and subject.platform.kind == "cpu" and loaded.profile.meta.gpu_memory_gib:
        say("This machine has no GPU, so the plan is for its CPU; --gpu h100 plans for a GPU.")
    if fetch and subject.checkpoint.path is None:
        profile = loaded.profile
        subject = replace(subject, fetched=fetch_tensors(profile.model, profile.revision))
    return subject


def _without_preparing(
    loaded: LoadedProfile, gpu: str | None, say: Callable[[str], None], *, fetch: bool = False
) -> tuple[Subject, str]:
    platform = platforms.simulated(gpu) if gpu else platforms.detect()
    installed, profile = installed_vllm(cache_dir(), say) or PINNED_VLLM, loaded.profile
    check_plugins(profile)
    checkpoint = read_checkpoint(
        profile.model, profile.revision, tokenizer=profile.tokenizer, download=fetch
    )
    check_servable(checkpoint, profile)
    return _subject(loaded, checkpoint, platform, installed), installed.version


def plan_serve(loaded: LoadedProfile, say: Callable[[str], None]) -> Plan:
    """
    Resolve for this machine, with the embedded model prepared and config.json fetched if need be.

    Raises:
        GemmaServeError: nothing that vLLM could be started with.
    """
    profile, installed = loaded.profile, _installed(say)
    check_plugins(profile)
    model = profile.model
    if model == embedded.MODEL_ID:
        model = str(embedded.prepare(say=say))
    checkpoint = read_checkpoint(
        model, profile.revision, tokenizer=profile.tokenizer, download=True
    )
    check_servable(checkpoint, profile)
    subject = _subject(loaded, checkpoint, platforms.detect_usable(), installed)
    sizing = _counted(subject)
    if sizing is not None:
        refuse_unfit(subject, sizing)
    return replace(_resolved(subject, installed.version), sizing=sizing)


def check_planned(
    loaded: LoadedProfile, checkpoint: Checkpoint, say: Callable[[str], None]
) -> None:
    """
    Refuse a checkpoint that is not there yet and that this machine could not serve.

    Raises:
        GemmaServeError: nothing that vLLM could be started with.
    """
    installed = _installed(say)
    _resolved(_subject(loaded, checkpoint, platforms.detect_usable(), installed), installed.version)


def _installed(say: Callable[[str], None]) -> InstalledVllm:
    installed = installed_vllm(cache_dir(), say)
    if installed is None:
        raise StartupError(
            "vLLM is not installed; run 'make setup', or install gemma-serve[gpu] or "
            "gemma-serve[cpu]."
        )
    return installed


def _counted(subject: Subject) -> Sizing | None:
    """What will fit; None where that is not known here, and vLLM is to say it."""
    try:
        return subject.size()
    except (GemmaServeError, LookupError, TypeError, ValueError):
        return None  # a config unlike Gemma's, or one that nothing can be started with


def _subject(
    loaded: LoadedProfile, checkpoint: Checkpoint, platform: Platform, installed: InstalledVllm
) -> Subject:
    available = None if platform.simulated else platforms.available_memory_bytes()
    return Subject(loaded, checkpoint, platform, installed.fields, os.environ, available)


def _resolved(subject: Subject, vllm_version: str) -> Plan:
    triton = subject.loaded.profile.triton
    default_tensors(CONTRACTS[triton.contract], triton.default_inputs)
    resolved = resolve(
        subject.loaded,
        subject.checkpoint,
        subject.platform,
        subject.engine_fields,
        environ=subject.environ,
        available_memory_bytes=subject.available_memory_bytes,
        vllm_version=vllm_version,
    )
    return Plan(subject.loaded, subject.checkpoint, subject.platform, resolved, vllm_version)
