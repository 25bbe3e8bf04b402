"""
From a profile, a checkpoint and a platform to all that vLLM is started with, each with its reason.

Nothing is started, fetched or imported here; what the machine is comes in as arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gemma_serve.engine.attention import attention_args, choose_attention
from gemma_serve.engine.capacity import memory_args, parallel_args
from gemma_serve.engine.environment import environment
from gemma_serve.engine.generation import generation_args
from gemma_serve.engine.multimodal import multimodal_args
from gemma_serve.engine.precision import precision_args
from gemma_serve.engine.requirements import check_requirements
from gemma_serve.engine.serving import reasoning_args, serving_args
from gemma_serve.engine.settings import DEFAULT, Context, Derived, Resolved, Setting, split
from gemma_serve.errors import ProfileError, StartupError

if TYPE_CHECKING:
    from gemma_serve.engine.platform import Platform
    from gemma_serve.gemma.checkpoint import Checkpoint
    from gemma_serve.profile.load import LoadedProfile

__all__ = ["Resolved", "Setting", "resolve"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
# Source: MaxLoRARanks in vLLM 0.32 config/lora.py.
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def resolve(
    loaded: LoadedProfile,
    checkpoint: Checkpoint,
    platform: Platform,
    engine_fields: Collection[str],
    *,
    environ: Mapping[str, str] | None = None,
    available_memory_bytes: int | None = None,
    vllm_version: str | None = None,
) -> Resolved:
    """
    Derive environment, engine and serving arguments.

    Args:
        loaded: The profile, and where each of its values was written.
        checkpoint: What the model says about itself.
        platform: The machine, real or simulated.
        engine_fields: Names of AsyncEngineArgs fields in the installed vLLM.
        environ: The operator's environment, which wins over our defaults.
        available_memory_bytes: Free memory on CPU; None takes the platform's whole memory.
        vllm_version: Of the installed vLLM; None leaves versions and plugins unchecked.

    Raises:
        ProfileError: A value that vLLM could not take.
        StartupError: The machine, or what is installed on it, can't run what the profile asks for.
    """
    if vllm_version is not None:
        check_requirements(loaded.profile, vllm_version, checkpoint.quant_method)
    context = Context(
        loaded, checkpoint, platform, engine_fields, environ or {}, available_memory_bytes
    )
    attention = choose_attention(context)
    env, env_notes = split(environment(context, attention))
    derived, engine_notes = split(
        item for derive in _ENGINE for item in derive(context) if _is_known(context, item)
    )
    chosen, attention_notes = split(attention_args(context, attention))
    frontend, frontend_notes = split(serving_args(context))
    return Resolved(
        env=tuple(env),
        engine_args=tuple(_with_engine_section(context, derived + chosen)),
        frontend_args=tuple(frontend),
        notes=(*attention_notes, *env_notes, *engine_notes, *frontend_notes),
    )


def _model(context: Context) -> Derived:
    profile, checkpoint = context.profile, context.checkpoint
    path = str(checkpoint.path) if checkpoint.path else None
    if profile.model.startswith("embedded/"):
        reason = "comes with gemma-serve; prepared once in the user's cache"
    elif checkpoint.quant_method == "gguf":
        reason = "GGUF weights; vllm-gguf-plugin reads them"
    else:
        reason = "the checkpoint's directory" if path else "vLLM takes it from the Hub or its cache"
    yield Setting("model", path or profile.model, context.origin("model"), reason)
    names = profile.served_model_name or profile.model
    yield Setting(
        "served_model_name",
        names,
        context.origin("served_model_name"),
        "as the profile asks" if profile.served_model_name else "the name in the profile",
    )
    for key in ("revision", "tokenizer"):
        if value := getattr(profile, key):
            yield Setting(key, value, context.origin(key), "as the profile asks")
    if profile.revision and path:
        yield "revision has no effect: the model is a local directory."
    if path is None and not _COMMIT.fullmatch(profile.revision or ""):
        at = f" at revision {profile.revision!r}" if profile.revision else ""
        here = f" ({checkpoint.commit} is on this machine)" if checkpoint.commit else ""
        yield (
            f"{profile.model}{at} may change on the Hub between two starts; set revision to the "
            f"commit that was tested{here}."
        )
    elif path is None and checkpoint.commit not in (None, profile.revision):
        yield (
            f"{profile.model} is on this machine at commit {checkpoint.commit}, and the profile's "
            f"revision {profile.revision} will be fetched; to serve what is here: "
            f"--set revision={checkpoint.commit}."
        )
    reason = "no Gemma needs code from its repository, and such code could do anything"
    yield Setting("trust_remote_code", False, DEFAULT, reason)


def _context_length(context: Context) -> Derived:
    asked, longest = context.profile.max_model_len, context.checkpoint.max_position_embeddings
    if asked is None:
        return
    if longest and asked > longest and not context.engine("hf_overrides"):
        raise ProfileError(
            f"max_model_len {asked} is longer than the {longest} tokens that "
            f"{context.checkpoint.model} was made for; use at most {longest}."
        )
    yield Setting("max_model_len", asked, context.origin("max_model_len"), "as the profile asks")


def _speculative(context: Context) -> Derived:
    if value := context.profile.speculative:
        reason = "drafts tokens that the model then checks"
        yield Setting("speculative_config", value, context.origin("speculative"), reason)


def _lora(context: Context) -> Derived:
    lora = context.profile.lora
    if lora is None:
        return
    if lora.max_lora_rank not in _LORA_RANKS:
        fitting = next((rank for rank in _LORA_RANKS if rank >= lora.max_lora_rank), 512)
        raise ProfileError(
            f"lora.max_lora_rank {lora.max_lora_rank} is not one that vLLM has kernels for "
            f"({', '.join(map(str, _LORA_RANKS))}); use {fitting}."
        )
    yield Setting("enable_lora", True, context.origin("lora.adapters"), "the profile has adapters")
    for key in ("max_loras", "max_lora_rank"):
        reason = "room that is reserved for adapters"
        yield Setting(key, getattr(lora, key), context.origin(f"lora.{key}"), reason)
    if context.on_cpu:
        yield "LoRA switches torch.compile off on CPU."


def _limits(context: Context) -> Derived:
    # Not max_queued_tokens: vLLM would hold one key's tokens against another's request.
    if (value := context.profile.limits.max_queued_requests) is not None:
        origin = context.origin("limits.max_queued_requests")
        reason = "more than this is 503, with Retry-After"
        yield Setting("max_num_queued_reqs", value, origin, reason)


def _traces(context: Context) -> Derived:
    endpoint = context.profile.observability.otlp_traces_endpoint
    if endpoint is None:
        return
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ProfileError(
            f"observability.otlp_traces_endpoint {endpoint!r} is not the URL of a collector; "
            "write one like http://otel-collector:4317."
        )
    origin = context.origin("observability.otlp_traces_endpoint")
    reason = "spans of a request, with its times and tokens, never its text"
    yield Setting("otlp_traces_endpoint", endpoint, origin, reason)


def _structured_outputs(context: Context) -> Derived:  # noqa: ARG001  # as its siblings are called
    reason = "one backend for all requests; what it compiles is bounded (limits)"
    yield Setting("structured_outputs_config", {"backend": "xgrammar"}, DEFAULT, reason)


def _priorities(context: Context) -> Derived:
    """Whoever has Triton's clients may have Triton's priorities; for equal ones nothing changes."""
    keys = ("triton", "server.grpc_port")
    if any(context.origin(key) != DEFAULT for key in keys):
        reason = "the priority of a Triton client's request decides when it runs"
        yield Setting("scheduling_policy", "priority", DEFAULT, reason)


_ENGINE: tuple[Callable[[Context], Derived], ...] = (
    _model,
    precision_args,
    _context_length,
    parallel_args,
    memory_args,
    multimodal_args,
    _speculative,
    _lora,
    _limits,
    _traces,
    _priorities,
    _structured_outputs,
    generation_args,
    reasoning_args,
)


def _is_known(context: Context, item: Setting | str) -> bool:
    """Whether the installed vLLM takes an argument; one that was asked for must not be dropped."""
    if isinstance(item, str) or item.key in context.engine_fields:
        return True
    if item.origin == DEFAULT:
        return False
    raise StartupError(
        f"The installed vLLM has no engine argument {item.key!r}, which the profile needs "
        f"({item.origin}); install the vLLM that gemma-serve names, or remove the key."
    )


def _with_engine_section(context: Context, derived: list[Setting]) -> Iterator[Setting]:
    """The derived arguments, replaced and followed by what `engine:` says word for word."""
    said = context.profile.engine
    for setting in derived:
        if setting.key not in said:
            # vLLM refuses attention_backend beside attention_config.
            if setting.key != "attention_config" or "attention_backend" not in said:
                yield setting
            continue
        same = said[setting.key] == setting.value
        reason = "set in engine:" + ("" if same else f"; wins over {setting.value!r}")
        yield Setting(
            setting.key, said[setting.key], context.origin(f"engine.{setting.key}"), reason
        )
    known = {setting.key for setting in derived}
    for key, value in said.items():
        if key not in known:
            yield Setting(key, value, context.origin(f"engine.{key}"), "set in engine:")
