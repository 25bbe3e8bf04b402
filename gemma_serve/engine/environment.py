"""The environment that vLLM is imported in: ours below the operator's, and the profile's above."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from gemma_serve.engine.attention import AttentionChoice, attention_variable
from gemma_serve.engine.capacity import is_single_node
from gemma_serve.engine.settings import DEFAULT, ENVIRONMENT, Context, Derived, Setting, split

MANY = "1000000"
GIB = 2**30


def environment(context: Context, attention: AttentionChoice) -> Derived:
    """Each variable with the value that wins: the profile's, the operator's, then our default."""
    settings, notes = split(_defaults(context, attention))
    for setting in settings:
        yield _winner(context, setting)
    known = {setting.key for setting in settings}
    for key, value in context.profile.env.items():
        if key not in known:
            yield Setting(key, value, context.origin(f"env.{key}"), _from_profile(context, key))
    yield from notes


def _winner(context: Context, default: Setting) -> Setting:
    key = default.key
    if key in context.profile.env:
        origin = context.origin(f"env.{key}")
        return Setting(key, context.profile.env[key], origin, _from_profile(context, key))
    if key in context.environ and default.origin in (DEFAULT, ENVIRONMENT):
        reason = "set by the operator; wins over our default"
        return Setting(key, context.environ[key], ENVIRONMENT, reason)
    return default


def _from_profile(context: Context, key: str) -> str:
    over = "; wins over the operator's environment" if key in context.environ else ""
    return f"set in env:{over}"


def _defaults(context: Context, attention: AttentionChoice) -> Derived:
    yield from attention_variable(context, attention)
    yield Setting(
        "VLLM_WORKER_MULTIPROC_METHOD",
        "spawn",
        DEFAULT,
        "forked workers inherit threads and locks of the server, and may hang",
    )
    for key in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"):
        yield Setting(key, "1", DEFAULT, "a production server sends no usage statistics")
    reason = "limits.max_stop_strings holds instead, and says so; vLLM has 4"
    yield Setting("VLLM_MAX_STOP_STRINGS", MANY, DEFAULT, reason)
    # By xgrammar 0.2.8's own count; 16 held 153 MiB and 64 held 517, of Gemma's 262,144 tokens.
    reason = "compiled grammars take ten times of it; with vLLM's 512 new schemas fill gigabytes"
    yield Setting("VLLM_XGRAMMAR_CACHE_MB", "128", DEFAULT, reason)
    if context.profile.otlp_traces_endpoint:
        reason = "the name under which a trace viewer lists this server"
        yield Setting("OTEL_SERVICE_NAME", "gemma-serve", DEFAULT, reason)
    if is_single_node(context):
        reason = "workers on one host talk over loopback, whatever its network"
        yield Setting("VLLM_HOST_IP", "127.0.0.1", DEFAULT, reason)
        yield Setting("GLOO_SOCKET_IFNAME", "lo", DEFAULT, reason)
    # On CPU, vLLM warns of what is so by design there: no Triton, no CUDA graphs, eager mode.
    level = "ERROR" if context.on_cpu else "WARNING"
    reason = "the launcher prints a timeline of its own; INFO shows vLLM's log"
    yield Setting("VLLM_LOGGING_LEVEL", level, DEFAULT, reason)
    if context.on_cpu:
        yield _thread_binding(context)
        yield _allocator()


def _thread_binding(context: Context) -> Setting:
    workers = context.num_local_workers
    value = "|".join(_ranges(part) for part in _parts(context.platform.cores, workers))
    how = "all allowed cores" if workers == 1 else f"all allowed cores, in {workers} parts"
    # 22.8 instead of 13.6 tokens/s at concurrency 1 on 2 cores (Gemma 3 270M, bf16, eager).
    reason = f"{how}; vLLM would keep one of them for the front end"
    return Setting("VLLM_CPU_OMP_THREADS_BIND", value, DEFAULT, reason)


def _allocator() -> Setting:
    # 32 clients' logits over Gemma's 262,144 tokens are 32 MiB in float32: by default glibc gets
    # them from the kernel anew in each step, which clears 8,192 pages for them.
    # 1.04 times the tokens/s at 32 clients of the 270M, and huge pages 1.02 times that.
    names = ("mmap_threshold", "trim_threshold")
    keep = ":".join(f"glibc.malloc.{name}={GIB}" for name in names)
    reason = "freed memory is kept for the next step's logits, and is in huge pages"
    return Setting("GLIBC_TUNABLES", f"glibc.malloc.hugetlb=1:{keep}", DEFAULT, reason)


def _parts(cores: Sequence[int], count: int) -> list[Sequence[int]]:
    bounds = [len(cores) * number // count for number in range(count + 1)]
    return [cores[start:end] for start, end in pairwise(bounds)]


def _ranges(cores: Sequence[int]) -> str:
    """CPU ids as vLLM reads them: 0-3,8."""
    runs: list[list[int]] = []
    for core in cores:
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
