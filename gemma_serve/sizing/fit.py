"""What fits on a device, and what would: the longest context, the concurrency, other settings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma_serve.engine.args import resolve
from gemma_serve.engine.capacity import _GPU_MEMORY_UTILIZATION
from gemma_serve.engine.platform import known_gpus, simulated
from gemma_serve.errors import GemmaServeError, StartupError
from gemma_serve.sizing.activations import Activations, activations_of
from gemma_serve.sizing.deployment import Deployment, deployment_of
from gemma_serve.sizing.tensors import Stored, tensors_of
from gemma_serve.sizing.weights import Weights, weights_of

if TYPE_CHECKING:
    from gemma_serve.engine.platform import Platform
    from gemma_serve.gemma.architecture import Checkpoint
    from gemma_serve.profile.load import LoadedProfile

GIB, _MIB = 2**30, 2**20
# What the packaged facts round the size of a checkpoint to, twice.
_ROUNDED_BYTES = GIB // 10
# A context shorter than this is no remedy, and fewer requests at a time make no server.
_SHORTEST_CONTEXT_TOKENS = 256
FEW_REQUESTS = 8
_PARALLEL_SIZES = (1, 2, 4, 8)
_FEW_BATCHED_TOKENS = 2048


@dataclass(frozen=True)
class Subject:
    """A profile for a machine, which can be sized as it is and with other settings."""

    loaded: LoadedProfile
    checkpoint: Checkpoint
    platform: Platform
    engine_fields: Collection[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    available_memory_bytes: int | None = None
    fetched: Stored | None = None  # the tensors as they are on the Hub

    def size(self) -> Sizing:
        """
        Count weights, KV cache and the rest.

        Raises:
            GemmaServeError: A profile that can't be resolved, or a model that can't be counted.
        """
        # As if weights weighed nothing: what does not fit is to be counted here, not refused there.
        weightless = replace(self.checkpoint, weight_bytes=None)
        resolved = resolve(
            self.loaded,
            weightless,
            self.platform,
            self.engine_fields,
            environ=self.environ,
            available_memory_bytes=self.available_memory_bytes,
        )
        environ = dict(self.environ) | resolved.env_dict()
        args = resolved.engine_kwargs()
        deployment = deployment_of(args, self.checkpoint, self.platform, environ)
        files = files_of(self.checkpoint, self.loaded.profile.revision)
        stored = self.fetched or tensors_of(self.checkpoint, files)
        return Sizing(
            self.checkpoint,
            self.platform,
            deployment,
            weights_of(self.checkpoint, deployment, stored),
            activations_of(self.checkpoint, deployment),
            self.available_memory_bytes,
        )

    def changed(self, settings: Mapping[str, Any]) -> Subject:
        """The same with other values; a key that `engine:` sets is changed there."""
        profile = self.loaded.profile
        engine = dict(profile.engine)
        keys = {}
        for key, value in settings.items():
            if key.startswith("engine.") or key in engine:
                engine[key.removeprefix("engine.")] = value
            else:
                keys[key] = value
        changed = profile.model_copy(update=keys | {"engine": engine})
        return replace(self, loaded=replace(self.loaded, profile=changed))


def files_of(checkpoint: Checkpoint, revision: str | None) -> Path | None:
    """The directory with the checkpoint's files on this machine; None where there is none."""
    if checkpoint.path is not None:
        return checkpoint.path if checkpoint.path.is_dir() else None
    if checkpoint.config_source not in ("hub cache", "hub"):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(checkpoint.model, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


@dataclass(frozen=True)
class Sizing:
    """One deployment, counted: all bytes are of one device, the fullest."""

    checkpoint: Checkpoint
    platform: Platform
    deployment: Deployment
    weights: Weights
    activations: Activations
    available_memory_bytes: int | None = None  # of this machine now, where it is a CPU

    @property
    def memory_bytes(self) -> int:
        """Memory of the device; a CPU's workers share that of the machine."""
        if not self.deployment.on_cpu:
            return round(self.platform.memory_gib * GIB)
        free = self.available_memory_bytes or round(self.platform.memory_gib * GIB)
        return free // (self.deployment.num_workers * self.deployment.data_parallel_size)

    @property
    def usable_bytes(self) -> int:
        """What vLLM may take of it."""
        if self.deployment.on_cpu or self.deployment.kv_cache_memory_bytes:
            return self.memory_bytes
        return round(self.memory_bytes * self.deployment.gpu_memory_utilization)

    @property
    def kv_cache_bytes(self) -> int:
        """Memory of the KV cache: as the profile says, else what weights and activations leave."""
        return self.deployment.kv_cache_memory_bytes or self.left_bytes

    @property
    def kv_cache_is_exact(self) -> bool:
        """Whether that memory is the profile's word, and nothing modelled goes into it."""
        blocks = self.deployment.num_gpu_blocks_override
        return bool(self.deployment.kv_cache_memory_bytes or blocks)

    @cached_property
    def num_blocks(self) -> int:
        """Blocks of the KV cache's pool."""
        override = self.deployment.num_gpu_blocks_override
        return override or self.deployment.kv_cache.num_blocks(self.kv_cache_bytes)

    @property
    def kv_cache_tokens(self) -> int:
        """vLLM's `KV cache size` in tokens."""
        longest = self.deployment.max_model_len
        return self.deployment.kv_cache.size_tokens(self.num_blocks, longest)

    @property
    def max_concurrency(self) -> float:
        """vLLM's `Maximum concurrency` for requests of max_model_len tokens."""
        longest = self.deployment.max_model_len
        return self.deployment.kv_cache.max_concurrency(self.num_blocks, longest)

    @property
    def needed_kv_cache_bytes(self) -> int:
        """What one request of max_model_len tokens takes; vLLM does not start with less."""
        return self.deployment.kv_cache.request_bytes(self.deployment.max_model_len)

    @property
    def pool_bytes(self) -> int:
        """Memory of all its blocks."""
        return self.num_blocks * self.deployment.kv_cache.bytes_per_block

    @cached_property
    def longest_context(self) -> int:
        """The longest max_model_len, up to the model's own, that vLLM would start with."""
        longest = self.checkpoint.max_position_embeddings or self.deployment.max_model_len
        return self.deployment.kv_cache.longest_context(self.pool_bytes, longest)

    @property
    def left_bytes(self) -> int:
        """What weights and activations leave of what vLLM may take; below zero, nothing."""
        return self.usable_bytes - self.weights.device_bytes - self.activations.total_bytes

    @property
    def is_overfull(self) -> bool:
        """Whether the memory that the KV cache is given is more than what the rest leaves."""
        deployment = self.deployment
        if deployment.num_gpu_blocks_override or not deployment.kv_cache_memory_bytes:
            return False
        return self.kv_cache_bytes > self.left_bytes

    @property
    def short_bytes(self) -> int:
        """Bytes that are missing on the device; 0 where it fits."""
        if self.deployment.num_gpu_blocks_override:
            return max(self.needed_kv_cache_bytes - self.pool_bytes, 0)
        if not self.deployment.kv_cache_memory_bytes:
            return max(self.needed_kv_cache_bytes - self.kv_cache_bytes, 0)
        too_much = max(self.kv_cache_bytes - self.left_bytes, 0)
        return max(self.needed_kv_cache_bytes - self.kv_cache_bytes, 0) or too_much

    @property
    def fits(self) -> bool:
        """Whether vLLM would start with it, as far as is known without the device."""
        return self.short_bytes == 0

    @property
    def certainly_unfit(self) -> bool:
        """Whether it can't fit, however little is needed beside weights and KV cache."""
        if self.deployment.offloads_weights:
            return False
        least = -_ROUNDED_BYTES if self.weights.towers_are_a_total else 0
        return not replace(self, activations=Activations(least, 0, 0)).fits

    def concurrency(self, tokens: int) -> int:
        """Requests of this length that decode at a time: by the KV cache, and max_num_seqs."""
        if tokens > self.deployment.max_model_len or not self.fits:
            return 0
        by_memory = self.deployment.kv_cache.concurrency(self.num_blocks, tokens)
        return min(by_memory, self.deployment.max_num_seqs)


@dataclass(frozen=True)
class Change:
    """Settings with which a profile fits."""

    settings: Mapping[str, Any]
    sizing: Sizing

    def __str__(self) -> str:
        return " and ".join(f"{key}: {_yaml(value)}" for key, value in self.settings.items())


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def parallel_sizes(subject: Subject) -> list[Sizing]:
    """The same profile with each tensor_parallel_size that the model's heads allow."""
    heads = subject.checkpoint.num_attention_heads or 1
    sizes = [size for size in _PARALLEL_SIZES if heads % size == 0]
    return [
        change.sizing
        for size in sizes
        if (change := _change(subject, {"tensor_parallel_size": size}))
    ]


def recommended_size(sizings: list[Sizing], tokens: int) -> int | None:
    """
    The smallest tensor_parallel_size that holds the context and some requests of `tokens` tokens.

    Where none holds eight of them, the smallest that holds the context; None where none does.
    """
    fitting = [sizing for sizing in sizings if sizing.fits]
    enough = [
        sizing
        for sizing in fitting
        if sizing.concurrency(tokens) >= min(FEW_REQUESTS, sizing.deployment.max_num_seqs)
    ]
    chosen = next(iter(enough or fitting), None)
    return chosen.deployment.tensor_parallel_size if chosen else None


def changes(subject: Subject, sizing: Sizing) -> list[Change]:
    """Settings each of which alone makes the profile fit; pairs of two where none does."""
    singles = [
        change for settings in _singles(subject, sizing) if (change := _fit(subject, settings))
    ]
    if singles or sizing.deployment.on_cpu:
        return singles
    pairs = [
        {"dtype": "fp8", "tensor_parallel_size": size} for size in _larger_sizes(subject, sizing)
    ]
    found = [change for settings in pairs if (change := _fit(subject, settings))]
    return found[:1]


def fitting_gpus(subject: Subject) -> list[str]:
    """GPUs on which the profile fits as it is, by the names that `--gpu` takes."""
    found = []
    for gpu in known_gpus():
        other = replace(subject, platform=simulated(gpu), available_memory_bytes=None)
        change = _change(other, {})
        if change and change.sizing.fits:
            found.append(gpu)
    return found


def refuse_unfit(subject: Subject, sizing: Sizing) -> None:
    """
    Refuse what can't fit before anything is loaded, with the settings that would.

    Raises:
        StartupError: Weights and the KV cache of one request are more than the memory.
    """
    if sizing.certainly_unfit:
        raise StartupError(unfit(subject, sizing))


def unfit(subject: Subject, sizing: Sizing) -> str:
    """One sentence: what is needed, what there is, and what to change."""
    deployment = sizing.deployment
    steps = [str(change) for change in changes(subject, sizing)]
    if not deployment.on_cpu and (gpus := fitting_gpus(subject)):
        steps.append(f"a GPU with more memory ({', '.join(gpus)})")
    return f"{_shortage(sizing)}; use {_or(steps) if steps else 'a smaller or quantised model'}."


def _shortage(sizing: Sizing) -> str:
    deployment = sizing.deployment
    one = f"the KV cache of one request of {deployment.max_model_len:,} tokens"
    is_small = 0 < sizing.pool_bytes < sizing.needed_kv_cache_bytes
    if is_small and sizing.kv_cache_is_exact and not sizing.is_overfull:
        given_mib, needed_mib = sizing.pool_bytes / _MIB, sizing.needed_kv_cache_bytes / _MIB
        return (
            f"max_model_len {deployment.max_model_len} needs {needed_mib:,.1f} MiB for {one}, and "
            f"the profile gives it {given_mib:,.1f} MiB"
        )
    worker = "CPU worker" if deployment.on_cpu else "GPU"
    cache = f"{sizing.needed_kv_cache_bytes / GIB:.1f} GiB for {one}"
    if sizing.is_overfull:
        cache = f"{sizing.kv_cache_bytes / GIB:.1f} GiB for the KV cache that it is given"
    return (
        f"{sizing.checkpoint.model} needs {sizing.weights.device_bytes / GIB:.1f} GiB for its "
        f"weights, {cache} and about {sizing.activations.total_bytes / GIB:.1f} GiB (modelled) "
        f"beside them on each {worker}, and of the {sizing.memory_bytes / GIB:.1f} GiB of "
        f"{sizing.platform.name} vLLM may take {sizing.usable_bytes / GIB:.1f}"
    )


def _or(words: list[str]) -> str:
    *most, last = words
    return f"{', '.join(most)}, or {last}" if most else last


def _singles(subject: Subject, sizing: Sizing) -> Iterator[dict[str, Any]]:
    """What could be changed, the least harmful first."""
    profile, deployment = subject.loaded.profile, sizing.deployment
    yield from _given_memory(subject, sizing)
    if profile.kv_cache_dtype == "auto":
        yield {"kv_cache_dtype": "fp8"}
    if sizing.longest_context >= min(_SHORTEST_CONTEXT_TOKENS, deployment.max_model_len):
        yield {"max_model_len": sizing.longest_context}
    if deployment.max_num_batched_tokens > _FEW_BATCHED_TOKENS and not deployment.on_cpu:
        yield {"engine.max_num_batched_tokens": _FEW_BATCHED_TOKENS}
    if sizing.checkpoint.is_multimodal and not deployment.text_only:
        yield {"text_only": True}
    if not deployment.on_cpu:
        if profile.dtype == "bf16" and sizing.checkpoint.quant_method is None:
            yield {"dtype": "fp8"}
        for size in _larger_sizes(subject, sizing):
            if _fit(subject, {"tensor_parallel_size": size}):
                yield {"tensor_parallel_size": size}
                break


def _given_memory(subject: Subject, sizing: Sizing) -> Iterator[dict[str, Any]]:
    """What the profile itself says of memory, where it is that which is too small or too large."""
    deployment, needed = sizing.deployment, sizing.needed_kv_cache_bytes
    if not deployment.kv_cache_memory_bytes:
        if not deployment.on_cpu and deployment.gpu_memory_utilization < _GPU_MEMORY_UTILIZATION:
            yield {"engine.gpu_memory_utilization": _GPU_MEMORY_UTILIZATION}
        return
    # As much as it needs, or as much as there is, in hundredths of a GiB.
    hundredths = -(-needed * 100 // GIB)
    if sizing.is_overfull:
        hundredths = sizing.left_bytes * 100 // GIB
    if hundredths * GIB < needed * 100:
        return
    if "kv_cache_memory_bytes" in subject.loaded.profile.engine:
        yield {"engine.kv_cache_memory_bytes": hundredths * GIB // 100}
    else:
        yield {"kv_cache_memory_gib": hundredths / 100}


def _larger_sizes(subject: Subject, sizing: Sizing) -> list[int]:
    heads = subject.checkpoint.num_attention_heads or 1
    now, platform = sizing.deployment.tensor_parallel_size, subject.platform
    most = _PARALLEL_SIZES[-1] if platform.simulated else platform.device_count
    return [size for size in _PARALLEL_SIZES if now < size <= most and heads % size == 0]


def _fit(subject: Subject, settings: Mapping[str, Any]) -> Change | None:
    change = _change(subject, settings)
    return change if change and change.sizing.fits else None


def _change(subject: Subject, settings: Mapping[str, Any]) -> Change | None:
    """The profile with these settings; None where they can't be joined with the rest."""
    try:
        return Change(settings, subject.changed(settings).size())
    except GemmaServeError:
        return None
