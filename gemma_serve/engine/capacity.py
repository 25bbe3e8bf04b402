"""Devices and memory: what the profile asks for against what the machine has."""

from __future__ import annotations

from gemma_serve.engine.settings import DEFAULT, Context, Derived, Setting
from gemma_serve.errors import StartupError

_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
_GIB = 2**30
_GPU_MEMORY_UTILIZATION = 0.92  # vLLM 0.32's default


def parallel_args(context: Context) -> Derived:
    """
    Parallel sizes and who starts the workers.

    Raises:
        StartupError: More workers than devices, an executor that this machine can't run, or a node
            that is none of engine.nnodes.
    """
    executor = context.engine(
        "distributed_executor_backend", context.profile.distributed_executor_backend
    )
    if executor == "ray" and context.on_cpu:
        raise StartupError(
            "distributed_executor_backend 'ray' can't run on CPU; use mp, or leave it out."
        )
    rank = context.engine("node_rank", 0)
    if rank not in range(context.num_nodes):
        raise StartupError(
            f"engine.node_rank {rank} is none of engine.nnodes {context.num_nodes}; "
            "number the nodes from 0 (which answers requests) to nnodes - 1."
        )
    if is_single_node(context):
        _check_devices(context)
    what = {"tensor": "share each layer", "pipeline": "hold a group of layers each"}
    unit = "CPU workers" if context.on_cpu else "GPUs"
    for key in _PARALLEL:
        role = what.get(key.partition("_")[0])
        reason = f"{unit} that {role}" if role else "replicas of the engine"
        yield Setting(key, getattr(context.profile, key), context.origin(key), reason)
    if context.profile.distributed_executor_backend:
        key = "distributed_executor_backend"
        yield Setting(key, executor, context.origin(key), "as the profile asks")


def is_single_node(context: Context) -> bool:
    """Whether all workers run on this host."""
    executor = context.engine(
        "distributed_executor_backend", context.profile.distributed_executor_backend
    )
    elsewhere = ("data_parallel_address", "data_parallel_size_local", "data_parallel_rank")
    return (
        executor != "ray"
        and context.num_nodes == 1
        and not any(context.engine(key) for key in elsewhere)
        and context.engine("data_parallel_backend", "mp") == "mp"
    )


def _check_devices(context: Context) -> None:
    platform = context.platform
    available = len(platform.cores) if context.on_cpu else platform.device_count
    sizes = {key: context.size(key) for key in _PARALLEL}
    wanted = context.num_workers * sizes["data_parallel_size"]
    if platform.simulated or wanted <= available:
        return
    asked = " x ".join(f"{key} {size}" for key, size in sizes.items() if size > 1)
    unit = "CPU core" if context.on_cpu else "GPU"
    raise StartupError(
        f"{asked} needs {wanted} {unit}s and this machine has {available}; "
        f"use at most {available} in all."
    )


def memory_args(context: Context) -> Derived:
    """
    Memory of the KV cache; always explicit on CPU, where vLLM would take 92 % of the machine.

    Raises:
        StartupError: Weights and KV cache do not fit.
    """
    key, asked_gib = "kv_cache_memory_gib", context.profile.kv_cache_memory_gib
    if not context.on_cpu:
        _check_gpu_memory(context)
    if asked_gib is not None:
        reason = "of each worker; replaces vLLM's own measurement"
        value = round(asked_gib * _GIB)
        yield Setting("kv_cache_memory_bytes", value, context.origin(key), reason)
    elif context.on_cpu:
        yield _default_kv_cache(context)
    if context.on_cpu:
        _check_cpu_memory(context, kv_cache_bytes(context))


def kv_cache_bytes(context: Context) -> int:
    """Bytes of KV cache that one CPU worker is given."""
    if said := context.engine("kv_cache_memory_bytes"):
        return int(said)
    if context.profile.kv_cache_memory_gib is not None:
        return round(context.profile.kv_cache_memory_gib * _GIB)
    quarter = min(max(_free_bytes(context) // 4, _GIB), 4 * _GIB)
    return quarter // context.num_local_workers


def _default_kv_cache(context: Context) -> Setting:
    workers = context.num_local_workers
    shared = f", divided among {workers} workers" if workers > 1 else ""
    reason = f"a quarter of the free memory, 1 to 4 GiB{shared}; vLLM would take 92 % of all"
    return Setting("kv_cache_memory_bytes", kv_cache_bytes(context), DEFAULT, reason)


def _free_bytes(context: Context) -> int:
    if context.available_memory_bytes is not None:
        return context.available_memory_bytes
    return round(context.platform.memory_gib * _GIB)


def _check_cpu_memory(context: Context, kv_bytes: int) -> None:
    weights = _weight_bytes(context)
    if weights is None:
        return
    weights = weights * context.size("data_parallel_size") // context.num_nodes
    kv_bytes *= context.num_local_workers
    free = _free_bytes(context)
    if weights + kv_bytes > free:
        state = "in all" if context.available_memory_bytes is None else "free"
        raise StartupError(
            f"{context.checkpoint.model} needs {weights / _GIB:.1f} GiB for its weights and "
            f"{kv_bytes / _GIB:.1f} GiB for the KV cache, and this machine has "
            f"{free / _GIB:.1f} GiB {state}; serve a smaller model, or lower kv_cache_memory_gib."
        )


def _check_gpu_memory(context: Context) -> None:
    """Refuse only what can't fit by its weights alone; vLLM measures the rest itself."""
    weights = _weight_bytes(context)
    if weights is None or context.engine("cpu_offload_gb") or context.engine("offload_group_size"):
        return
    needed_gib = weights / context.num_workers / _GIB
    usable = context.engine("gpu_memory_utilization", _GPU_MEMORY_UTILIZATION)
    allowed_gib = usable * context.platform.memory_gib
    if needed_gib > allowed_gib:
        raise StartupError(
            f"{context.checkpoint.model} needs {needed_gib:.1f} GiB for its weights on each GPU, "
            f"and of the {context.platform.memory_gib:.1f} GiB of {context.platform.name} vLLM may "
            f"take {allowed_gib:.1f}; raise tensor_parallel_size, or serve a smaller or quantised "
            "model."
        )


def _weight_bytes(context: Context) -> int | None:
    """Bytes of one replica's weights as they are served."""
    stored = context.checkpoint.weight_bytes
    if stored is None or context.engine("load_format") == "dummy":
        return None
    if context.checkpoint.quant_method or context.engine("quantization"):
        return stored
    config = context.checkpoint.config
    stored_width = 4 if str(config.get("dtype", config.get("torch_dtype"))) == "float32" else 2
    if context.profile.dtype == "fp32":
        return stored * 4 // stored_width
    bf16 = stored * 2 // stored_width
    return _online_fp8_bytes(context, bf16) if context.profile.dtype == "fp8" else bf16


def _online_fp8_bytes(context: Context, bf16: int) -> int:
    """Half of all but the embeddings, which vLLM does not quantise."""
    embeddings = min(2 * context.checkpoint.num_embedding_parameters, bf16)
    return embeddings + (bf16 - embeddings) // 2
