"""Profiles as users write them, resolved for machines that are not this one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gemma_serve.engine.args import Resolved, resolve
from gemma_serve.engine.platform import Platform, simulated
from gemma_serve.gemma.checkpoint import Checkpoint, check_servable, read_checkpoint
from gemma_serve.gemma.family import generation_of
from gemma_serve.profile.load import LoadedProfile, load_profile

# Fields of AsyncEngineArgs in vLLM 0.32 that derivation may use.
FIELDS = frozenset(
    [
        "model",
        "served_model_name",
        "revision",
        "tokenizer",
        "trust_remote_code",
        "dtype",
        "quantization",
        "quantization_config",
        "load_format",
        "structured_outputs_config",
        "config_format",
        "mm_processor_kwargs",
        "override_generation_config",
        "kv_cache_dtype",
        "max_model_len",
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "data_parallel_size",
        "distributed_executor_backend",
        "kv_cache_memory_bytes",
        "language_model_only",
        "limit_mm_per_prompt",
        "speculative_config",
        "enable_lora",
        "max_loras",
        "max_lora_rank",
        "max_num_queued_reqs",
        "max_num_queued_tokens",
        "otlp_traces_endpoint",
        "scheduling_policy",
        "reasoning_parser",
        "attention_config",
        "attention_backend",
    ]
)
GIB = 2**30
TWO_CORES = Platform("cpu", "CPU", None, 1, 24.0, (0, 1))
EIGHT_CORES = Platform("cpu", "CPU", None, 1, 64.0, (0, 1, 2, 3, 8, 9, 10, 11))
TWO_L4 = Platform("cuda", "NVIDIA L4", (8, 9), 2, 22.5, (0, 1))
T4 = Platform("cuda", "NVIDIA T4", (7, 5), 1, 14.6, (0, 1))


def load(directory: Path, **keys: Any) -> LoadedProfile:
    """A profile file with these keys, as the loader reads it."""
    file = directory / "mine.yaml"
    file.write_text(yaml.safe_dump(keys, sort_keys=False), encoding="utf-8")
    return load_profile(str(file))


def derive(
    directory: Path,
    platform: Platform | str,
    *,
    checkpoint: Checkpoint | None = None,
    environ: Mapping[str, str] | None = None,
    fields: frozenset[str] = FIELDS,
    available_memory_bytes: int | None = None,
    vllm_version: str | None = None,
    **keys: Any,
) -> Resolved:
    """Write, load and resolve a profile; a platform's name means a simulated one."""
    loaded = load(directory, **keys)
    checkpoint = checkpoint or read_checkpoint(
        loaded.profile.model, tokenizer=loaded.profile.tokenizer, download=False
    )
    check_servable(checkpoint, loaded.profile)
    return resolve(
        loaded,
        checkpoint,
        simulated(platform) if isinstance(platform, str) else platform,
        fields,
        environ=environ,
        available_memory_bytes=available_memory_bytes,
        vllm_version=vllm_version,
    )


def checkpoint_of(config: Mapping[str, Any], **facts: Any) -> Checkpoint:
    """A checkpoint with this config.json that is not on this machine."""
    known: dict[str, Any] = {
        "model": "someone/model",
        "path": None,
        "config_source": "hub cache",
        "generation": generation_of(config),
        "has_chat_template": True,
        "quant_method": (config.get("quantization_config") or {}).get("quant_method"),
        "weight_bytes": None,
    }
    return Checkpoint(config=config, **(known | facts))
