"""
What is worth trying, in which order: few settings, the most promising of the platform first.

Pure: a resolved profile and a load come in. A value that this load can't reach is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gemma_serve.plan import Plan

Keys = Mapping[str, Any]  # dotted key of a profile -> value; None takes the key out

BINDING = "env.VLLM_CPU_OMP_THREADS_BIND"
ONE_CORE_LESS = "auto"
NGRAM = {
    "method": "ngram",
    "num_speculative_tokens": 3,
    "prompt_lookup_min": 2,
    "prompt_lookup_max": 4,
}


@dataclass(frozen=True)
class Change:
    """One setting to try on top of those that were kept."""

    name: str
    keys: Keys
    why: str
    lossy: bool = False  # other numbers on purpose, so other answers

    def joined(self, chosen: Keys) -> dict[str, Any]:
        """The settings kept so far, and this one."""
        return {**chosen, **self.keys}


@dataclass(frozen=True)
class Permitted:
    """What the user gives or allows."""

    fp8_weights: str | None = None  # a checkpoint's directory or id; "online" for CUDA
    lossless: bool = False


@dataclass(frozen=True)
class Demand:
    """The load, as far as it says which values matter."""

    concurrency: int
    prompt_tokens: int | None = None  # None: not known beforehand
    bounds_itl: bool = False  # the SLO has a limit on inter-token latency


@dataclass(frozen=True)
class _Scheduler:
    """What vLLM would batch, from the profile or its defaults."""

    max_num_batched_tokens: int
    max_num_seqs: int


@dataclass(frozen=True)
class _Start:
    """The profile that the search starts from, resolved."""

    plan: Plan
    demand: Demand
    permitted: Permitted
    engine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def on_cpu(self) -> bool:
        return self.plan.platform.kind == "cpu"


def options(keys: Keys) -> list[str]:
    """As KEY=VALUE of --set."""
    return [f"{key}={json.dumps(value)}" for key, value in keys.items()]


def changes_to_try(plan: Plan, demand: Demand, permitted: Permitted) -> list[Change]:
    """
    The settings to try, one at a time, in this order.

    On CPU compute is what is short: threads, compile, narrower weights; then the batch. On CUDA
    memory traffic is: narrower weights, a bigger batch, then the KV cache.
    """
    start = _Start(plan, demand, permitted, plan.resolved.engine_kwargs())
    order = (
        (
            _threads,
            _precision,
            _compile,
            _weights,
            _kv_cache,
            _batched_tokens,
            _seqs,
            _ngram,
            _front_end,
        )
        if start.on_cpu
        else (_weights, _batched_tokens, _seqs, _kv_cache, _compile, _ngram)
    )
    found = [change for kind in order for change in kind(start)]
    return [change for change in found if not (change.lossy and permitted.lossless)]


def vllm_defaults(plan: Plan) -> dict[str, Any]:
    """
    What makes a profile run as vLLM's own defaults would: the base of "so many times vLLM's speed".

    The model, its context and the KV cache's memory stay, so that both do the same work; on CPU
    vLLM's default of 92 % of the memory could not be given to two servers at once.
    """
    tuned = (
        "engine.enforce_eager",
        "engine.max_num_batched_tokens",
        "engine.max_num_seqs",
        "engine.compilation_config",
        "engine.performance_mode",
        "speculative",
    )
    keys = {key: None for key in tuned if _is_set(plan, key)}
    auto = {"kv_cache_dtype": "auto", "attention_backend": "auto"}
    binding = {BINDING: ONE_CORE_LESS} if plan.platform.kind == "cpu" else {}
    return {**keys, **auto, **binding}


def _is_set(plan: Plan, key: str) -> bool:
    return plan.loaded.origin(key).kind != "default"


def _threads(start: _Start) -> Iterator[Change]:
    bound = start.plan.resolved.env_dict().get(BINDING.removeprefix("env."))
    if bound == ONE_CORE_LESS:
        why = "all allowed cores compute; vLLM keeps one for the front end, which seldom fills it"
        yield Change("threads on all cores", {BINDING: None}, why)


def _front_end(start: _Start) -> Iterator[Change]:
    bound = start.plan.resolved.env_dict().get(BINDING.removeprefix("env."))
    if bound != ONE_CORE_LESS and len(start.plan.platform.cores) > 1:
        why = "a core for the front end, which many short answers may need"
        yield Change("one core for the front end", {BINDING: ONE_CORE_LESS}, why)


def _precision(start: _Start) -> Iterator[Change]:
    if start.plan.platform.avx512 is False and start.engine.get("dtype") == "bfloat16":
        why = "this CPU has no instructions for bf16, and computes it the long way"
        yield Change("fp32", {"dtype": "fp32"}, why)


def _compile(start: _Start) -> Iterator[Change]:
    if start.engine.get("enforce_eager"):
        why = "compiled kernels; the start takes longer, once"
        yield Change("compile", {"engine.enforce_eager": False}, why)


def _weights(start: _Start) -> Iterator[Change]:
    given = start.permitted.fp8_weights
    if given is None or start.plan.checkpoint.quant_method or start.engine.get("quantization"):
        return
    why = "weights of half the size: each token reads all of them"
    if given == "online":
        yield Change("FP8 weights, online", {"dtype": "fp8"}, why, lossy=True)
        return
    profile = start.plan.loaded.profile
    names = profile.served_model_name or profile.model
    keys = {"model": given, "served_model_name": names, "revision": None}
    yield Change("FP8 weights", keys, why, lossy=True)


def _kv_cache(start: _Start) -> Iterator[Change]:
    platform = start.plan.platform
    if platform.avx512 is False and platform.amx is False:
        return  # vLLM has no kernel for it
    if start.engine.get("kv_cache_dtype", "auto") == "auto":
        why = "half the bytes a token of context, so more requests fit"
        yield Change("FP8 KV cache", {"kv_cache_dtype": "fp8"}, why, lossy=True)


def _batched_tokens(start: _Start) -> Iterator[Change]:
    now = _scheduler(start).max_num_batched_tokens
    prompt = start.demand.prompt_tokens
    offered = None if prompt is None else prompt * start.demand.concurrency
    if offered is None or offered > now:
        why = "more prompt tokens a step: fewer steps until the first token"
        yield _batch_change(now * 2, why)
    if offered is None or offered > now // 2:
        why = "fewer prompt tokens a step: running answers wait less for new prompts"
        yield _batch_change(now // 2, why)


def _batch_change(tokens: int, why: str) -> Change:
    name = f"max_num_batched_tokens {tokens}"
    return Change(name, {"engine.max_num_batched_tokens": tokens}, why)


def _seqs(start: _Start) -> Iterator[Change]:
    now, concurrency = _scheduler(start).max_num_seqs, start.demand.concurrency
    if concurrency > now:
        enough = 1 << (concurrency - 1).bit_length()
        why = f"all {concurrency} clients in one batch"
        yield Change(f"max_num_seqs {enough}", {"engine.max_num_seqs": enough}, why)
    half = concurrency // 2
    if start.demand.bounds_itl and 0 < half < now:
        why = "a smaller batch answers faster, and the rest waits for its turn"
        yield Change(f"max_num_seqs {half}", {"engine.max_num_seqs": half}, why)


def _ngram(start: _Start) -> Iterator[Change]:
    if not start.engine.get("speculative_config"):
        why = "drafts copied from the prompt: for answers that quote it"
        yield Change("speculative ngram", {"speculative": NGRAM}, why)


def _scheduler(start: _Start) -> _Scheduler:
    """
    What the profile or vLLM's defaults for this platform give.

    Source: vLLM 0.32 engine/arg_utils.py, get_batch_defaults (2895-2981), OPENAI_API_SERVER.
    """
    platform, workers = start.plan.platform, start.engine.get("tensor_parallel_size", 1)
    if platform.kind == "cpu":
        tokens, seqs = 2048 * workers, 128 * workers
    elif platform.memory_gib >= 160:
        tokens, seqs = 16384, 1024
    elif platform.memory_gib >= 70 and "A100" not in platform.name:
        tokens, seqs = 8192, 1024
    else:
        tokens, seqs = 2048, 256
    return _Scheduler(
        start.engine.get("max_num_batched_tokens") or tokens,
        start.engine.get("max_num_seqs") or seqs,
    )
