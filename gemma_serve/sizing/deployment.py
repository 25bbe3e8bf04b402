"""What of the engine's arguments decides memory and speed, with vLLM's defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gemma_serve.engine.capacity import _GPU_MEMORY_UTILIZATION
from gemma_serve.errors import ModelError, StartupError
from gemma_serve.gemma.family import Generation
from gemma_serve.sizing.kv_cache import KvCache, LayerCache, kv_cache_of

if TYPE_CHECKING:
    from gemma_serve.engine.platform import Platform
    from gemma_serve.gemma.architecture import Checkpoint

_GIB = 2**30
_BLOCK_TOKENS, _BLOCK_TOKENS_ON_CPU = 16, 128
_KV_BYTES = {"fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "bfloat16": 2, "float16": 2}
_SLIDING = "sliding_window"  # in kv_cache_dtype_skip_layers
# Tokens of Gemma 4's longest video, which vLLM wants to fit in one batch where image tokens see
# each other. Source: vLLM 0.32 model_executor/models/gemma4_mm.py: 32 frames of 70 + 8 tokens.
_GEMMA_4_VIDEO_TOKENS = 32 * 78
# Drafts that vLLM can schedule a step ahead of. Source: vLLM 0.32 config/vllm.py.
_ASYNC_DRAFTS = ("eagle", "eagle3", "mtp", "draft_model", "dspark", "dflash", "ngram_gpu")


@dataclass(frozen=True)
class Deployment:
    """One replica of the engine: the arguments that count, vLLM's defaults included."""

    on_cpu: bool
    tensor_parallel_size: int
    pipeline_parallel_size: int
    data_parallel_size: int
    dtype_bytes: int  # of activations, and of weights that are not quantised
    quantization: str | None  # of weights that are quantised while loading
    kept_in_dtype: tuple[str, ...]  # patterns of names that are not
    text_only: bool
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    in_flight_tokens: int
    gpu_memory_utilization: float
    kv_cache_memory_bytes: int | None
    num_gpu_blocks_override: int | None
    offloads_weights: bool  # to the host's memory, so that more fit
    cuda_graphs: bool
    attention_backend: str | None  # None: vLLM's choice
    kv_cache: KvCache

    @property
    def num_workers(self) -> int:
        """Processes, and so devices, of one replica."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


def deployment_of(
    engine_kwargs: Mapping[str, Any],
    checkpoint: Checkpoint,
    platform: Platform,
    environ: Mapping[str, str] | None = None,
) -> Deployment:
    """
    Fill in what vLLM would.

    Args:
        environ: Of the engine; on CPU it has a say in the KV cache's memory.

    Raises:
        ModelError: Not a Gemma whose layers are known.
        StartupError: A KV cache whose bytes are not known here.
    """
    if engine_kwargs.get("hf_overrides"):
        raise StartupError(
            "engine.hf_overrides changes the model's config.json, and a plan counts what stands in "
            "it; remove the key, or write the values into config.json."
        )
    if checkpoint.generation is None or not checkpoint.num_hidden_layers:
        raise ModelError(
            f"Model {checkpoint.model!r} is not Gemma 1 to 4, and a plan counts the layers of "
            "Gemma alone; name a Gemma checkpoint."
        )
    args = _Arguments(engine_kwargs, checkpoint, platform, environ or {})
    return Deployment(
        on_cpu=args.on_cpu,
        tensor_parallel_size=args.size("tensor_parallel_size"),
        pipeline_parallel_size=args.size("pipeline_parallel_size"),
        data_parallel_size=args.size("data_parallel_size"),
        dtype_bytes=args.dtype_bytes,
        quantization=args.get("quantization"),
        kept_in_dtype=tuple((args.get("quantization_config") or {}).get("ignore", ())),
        text_only=args.text_only,
        max_model_len=args.max_model_len,
        max_num_seqs=args.max_num_seqs,
        max_num_batched_tokens=args.max_num_batched_tokens,
        in_flight_tokens=args.in_flight_tokens,
        gpu_memory_utilization=args.get("gpu_memory_utilization", _GPU_MEMORY_UTILIZATION),
        kv_cache_memory_bytes=args.kv_cache_memory_bytes,
        num_gpu_blocks_override=args.get("num_gpu_blocks_override"),
        offloads_weights=bool(args.get("cpu_offload_gb") or args.get("offload_group_size")),
        cuda_graphs=not (args.on_cpu or args.get("enforce_eager", False)),
        attention_backend=args.attention_backend,
        kv_cache=kv_cache_of(
            args.layers(),
            args.in_flight_tokens,
            pipeline_parallel_size=args.size("pipeline_parallel_size"),
            num_hidden_layers=checkpoint.num_hidden_layers,
        ),
    )


@dataclass(frozen=True)
class _Arguments:
    """The engine's arguments, read as vLLM reads them."""

    kwargs: Mapping[str, Any]
    checkpoint: Checkpoint
    platform: Platform
    environ: Mapping[str, str]

    def get(self, key: str, otherwise: Any = None) -> Any:
        value = self.kwargs.get(key)
        return otherwise if value is None else value

    def size(self, key: str) -> int:
        return int(self.get(key, 1))

    @property
    def on_cpu(self) -> bool:
        return self.platform.kind == "cpu"

    @property
    def dtype_bytes(self) -> int:
        return 4 if self.get("dtype") in ("float32", "float") else 2

    @property
    def text_only(self) -> bool:
        limits = self.get("limit_mm_per_prompt", {})
        none_left = all(limits.get(name) == 0 for name in self.checkpoint.modalities)
        return bool(self.get("language_model_only", False)) or none_left

    @property
    def attention_backend(self) -> str | None:
        config = self.get("attention_config", {})
        backend = config.get("backend") if isinstance(config, Mapping) else None
        return str(backend) if backend else self.get("attention_backend")

    @property
    def kv_cache_memory_bytes(self) -> int | None:
        """Of one worker. Source of the variable: vLLM 0.32 platforms/cpu.py."""
        space = self.environ.get("VLLM_CPU_KVCACHE_SPACE") if self.on_cpu else None
        if space and space.isdigit():
            return int(space) * _GIB
        said = self.get("kv_cache_memory_bytes")
        return int(said) if said else None

    # --- the scheduler

    @property
    def max_model_len(self) -> int:
        """The profile's, or the model's own; -1 asks vLLM for what fits, at most the model's."""
        said = self.get("max_model_len", -1)
        longest = self.checkpoint.max_position_embeddings
        return int(said) if said != -1 or longest is None else longest

    @property
    def _batch_defaults(self) -> tuple[int, int]:
        """Tokens and sequences of a step. Source: get_batch_defaults, vLLM 0.32 arg_utils.py."""
        memory_gib, name = self.platform.memory_gib, self.platform.name.lower()
        if self.on_cpu:
            workers = self.size("tensor_parallel_size") * self.size("pipeline_parallel_size")
            tokens, seqs = 2048 * workers, 128 * workers
        elif memory_gib >= 160:
            tokens, seqs = 16384, 1024
        elif memory_gib >= 70 and "a100" not in name:
            tokens, seqs = 8192, 1024
        else:
            tokens, seqs = 2048, 256
        doubled = 2 if self.get("performance_mode") == "throughput" else 1
        return tokens * doubled, seqs * doubled

    @property
    def max_num_batched_tokens(self) -> int:
        if said := self.get("max_num_batched_tokens"):
            return int(said)
        tokens, seqs = self._batch_defaults
        prefix_lm = self.checkpoint.bidirectional_image_attention and not self.text_only
        if prefix_lm and self.checkpoint.generation == Generation.GEMMA_4:
            tokens = max(tokens, _GEMMA_4_VIDEO_TOKENS)
        return min(tokens, int(self.get("max_num_seqs", seqs)) * self.max_model_len)

    @property
    def max_num_seqs(self) -> int:
        return int(
            self.get("max_num_seqs", min(self._batch_defaults[1], self.max_num_batched_tokens))
        )

    @property
    def in_flight_tokens(self) -> int:
        """Source: max_in_flight_tokens and max_concurrent_batches, vLLM 0.32 config/vllm.py."""
        stages = self.size("pipeline_parallel_size")
        return self.max_num_batched_tokens * (stages + 1 if self._schedules_ahead else stages)

    @property
    def _schedules_ahead(self) -> bool:
        if self.on_cpu:
            return False
        method = self.get("speculative_config", {}).get("method")
        return bool(self.get("async_scheduling", method is None or method in _ASYNC_DRAFTS))

    # --- the layers of the KV cache

    def layers(self) -> list[LayerCache]:
        """The cache of each layer that has one of its own, on one worker."""
        block, padded = self._block_tokens()
        num_own = self.checkpoint.num_kv_cache_layers
        return [self._layer(layer, block, padded) for layer in range(num_own)]

    def _layer(self, layer: int, block: int, padded: int | None) -> LayerCache:
        shape = self.checkpoint.attention_of(layer)
        window = shape.sliding_window if self._is_hybrid else None
        heads = self._heads_of_worker(shape.num_key_value_heads)
        cache = LayerCache(window, block, heads, shape.head_dim, self._element_bytes(layer))
        if padded is None or shape.sliding_window is None:
            return cache
        # As many tokens as fit, by the 16 that the kernels take at a time.
        fitting = max(padded // cache.bytes_per_token // _BLOCK_TOKENS, 1) * _BLOCK_TOKENS
        return LayerCache(
            window, fitting, heads, shape.head_dim, cache.element_bytes, padded_page_bytes=padded
        )

    def _heads_of_worker(self, heads: int) -> int:
        """Of fewer heads than workers each has a whole one."""
        return max(1, heads // self.size("tensor_parallel_size"))

    @property
    def _is_hybrid(self) -> bool:
        return not self.get("disable_hybrid_kv_cache_manager", False)

    @property
    def _skipped(self) -> tuple[str, ...]:
        return tuple(map(str, self.get("kv_cache_dtype_skip_layers", ())))

    def _element_bytes(self, layer: int) -> int:
        sliding = self.checkpoint.attention_of(layer).sliding_window is not None
        skipped = str(layer) in self._skipped or (sliding and _SLIDING in self._skipped)
        return self.dtype_bytes if skipped else self._kv_bytes

    @property
    def _kv_bytes(self) -> int:
        wanted = self.get("kv_cache_dtype", "auto")
        if wanted == "auto":
            return self.dtype_bytes
        if wanted not in _KV_BYTES:
            raise StartupError(
                f"The bytes of kv_cache_dtype {wanted!r} are not known to a plan; use auto, "
                f"{', '.join(_KV_BYTES)}."
            )
        return _KV_BYTES[wanted]

    def _block_tokens(self) -> tuple[int, int | None]:
        """
        Tokens of a block, and the page that sliding layers of another dtype are padded to.

        Source: _align_heterogeneous_kv_block_size, vLLM 0.32 platforms/interface.py; not on CPU.
        """
        block = int(self.get("block_size", _BLOCK_TOKENS_ON_CPU if self.on_cpu else _BLOCK_TOKENS))
        if self.on_cpu or not self._skipped or self._kv_bytes == self.dtype_bytes:
            return block, None
        narrow, wide = self._kv_bytes, self.dtype_bytes
        block *= -(-wide * _BLOCK_TOKENS // (block * narrow))
        heads = max(
            1, (self.checkpoint.num_key_value_heads or 1) // self.size("tensor_parallel_size")
        )
        return block, 2 * block * heads * self.checkpoint.attention_of(0).head_dim * narrow
