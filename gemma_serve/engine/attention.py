"""
Which attention backend vLLM gets, and why.

vLLM removed VLLM_ATTENTION_BACKEND in 0.15 and ignores it since; attention_config does the work.
The variable is still exported for what reads it: older engines, plugins and operators.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gemma_serve.engine.settings import DEFAULT, ENVIRONMENT, Context, Derived, Setting
from gemma_serve.errors import StartupError

VARIABLE = "VLLM_ATTENTION_BACKEND"
FLASHINFER = "FLASHINFER"
AUTO = "AUTO"
_CPU_BACKEND = "CPU_ATTN"


@dataclass(frozen=True)
class Backend:
    """What a backend can do. Source: vLLM 0.32, v1/attention/backends/<name>.py."""

    min_capability: tuple[int, int]
    max_capability: tuple[int, int] | None = None
    head_dims: frozenset[int] | None = None  # None: any
    half_precision_only: bool = True
    image_attention: bool = False  # image tokens that see each other in both directions
    mixed_windows: bool = True  # local and global layers in one KV group


_BACKENDS = {
    FLASHINFER: Backend(
        min_capability=(8, 0),
        max_capability=(12, 1),
        head_dims=frozenset({64, 128, 256, 512}),
        mixed_windows=False,
    ),
    "TRITON_ATTN": Backend((0, 0), half_precision_only=False, image_attention=True),
}


@dataclass(frozen=True)
class AttentionChoice:
    """The backend that is asked for, and how."""

    config: dict[str, Any]  # attention_config; without "backend", vLLM chooses for each layer
    variable: str | None  # what VLLM_ATTENTION_BACKEND says; None: it is not exported
    origin: str
    reason: str
    notes: list[str] = field(default_factory=list)


def choose_attention(context: Context) -> AttentionChoice:
    """
    The attention backend for this model on this platform.

    Raises:
        StartupError: attention_policy is `require` and the backend can't serve the model here.
    """
    profile = context.profile
    wanted, origin = _wanted(context)
    if "attention_backend" in profile.engine or "attention_config" in profile.engine:
        return _said_by_engine(context)
    if wanted == AUTO:
        reason = "vLLM chooses for each layer, as asked"
        return AttentionChoice(_softcap_guard(context, AUTO), None, origin, reason)
    if context.on_cpu:
        return _on_cpu(context, wanted, origin)
    faults = list(_faults(context, wanted))
    if faults and profile.attention_policy == "require":
        raise StartupError(_refusal(context, wanted, faults))
    if faults:
        reason = f"{wanted} is invalid here ({'; '.join(faults)}), so vLLM chooses for each layer"
        note = f"attention_backend {wanted} falls back to auto: {'; '.join(faults)}."
        return AttentionChoice(_softcap_guard(context, AUTO), None, origin, reason, [note])
    config = {"backend": wanted} | _softcap_guard(context, wanted)
    return AttentionChoice(config, wanted, origin, _why(context, wanted, origin))


def attention_args(context: Context, choice: AttentionChoice) -> Derived:
    """The engine argument that applies the choice, in the words of the installed vLLM."""
    yield from choice.notes
    backend = choice.config.get("backend")
    if "attention_config" in context.engine_fields:
        yield Setting("attention_config", choice.config, choice.origin, choice.reason)
    elif "attention_backend" in context.engine_fields:
        yield Setting("attention_backend", backend, choice.origin, choice.reason)
    else:
        yield f"This vLLM has no argument for the attention backend; only {VARIABLE} is set."


def attention_variable(context: Context, choice: AttentionChoice) -> Derived:
    """The variable, unless vLLM was told to refuse variables that it does not know."""
    if not context.engine("fail_on_environ_validation", False):
        if choice.variable:
            effect = "has no effect on CPU" if context.on_cpu else "attention_config applies it"
            reason = f"for plugins and engines before 0.15, which read it; {effect}"
            yield Setting(VARIABLE, choice.variable, choice.origin, reason)
        return
    if VARIABLE in context.environ or VARIABLE in context.profile.env:
        raise StartupError(
            f"{VARIABLE} is set and engine.fail_on_environ_validation is true, so that vLLM would "
            "refuse to start; unset the variable and use attention_backend in the profile."
        )
    yield f"{VARIABLE} is not exported, because engine.fail_on_environ_validation is true."


def _wanted(context: Context) -> tuple[str, str]:
    """The backend that was asked for, and where: the key, the variable, else our default."""
    profile = context.profile
    if profile.attention_backend:
        return profile.attention_backend.upper(), context.origin("attention_backend")
    if VARIABLE in profile.env:
        return profile.env[VARIABLE].upper(), context.origin(f"env.{VARIABLE}")
    if context.environ.get(VARIABLE):
        return context.environ[VARIABLE].upper(), ENVIRONMENT
    return FLASHINFER, DEFAULT


def _said_by_engine(context: Context) -> AttentionChoice:
    key = (
        "attention_config" if "attention_config" in context.profile.engine else "attention_backend"
    )
    said = context.engine(key)
    backend = said.get("backend") if isinstance(said, dict) else said
    variable = str(backend).upper() if backend and str(backend).upper() != AUTO else None
    wins = context.profile.attention_backend is not None
    notes = [f"engine.{key} wins over attention_backend."] if wins else []
    config = said if isinstance(said, dict) else {}
    return AttentionChoice(
        config, variable, context.origin(f"engine.{key}"), "set in engine:", notes
    )


def _on_cpu(context: Context, wanted: str, origin: str) -> AttentionChoice:
    reason = f"on CPU vLLM always uses {_CPU_BACKEND}"
    if wanted == _CPU_BACKEND:
        return AttentionChoice({"backend": wanted}, wanted, origin, reason)
    if origin != DEFAULT and context.profile.attention_policy == "require":
        raise StartupError(
            f"attention_backend {wanted!r} can't run on CPU, where vLLM always uses "
            f"{_CPU_BACKEND}; use attention_policy: prefer or attention_backend: auto."
        )
    note = (
        f"attention_backend {wanted} has no effect on CPU: vLLM always uses {_CPU_BACKEND} there."
    )
    return AttentionChoice({}, wanted, origin, reason, [note])


def _faults(context: Context, wanted: str) -> Iterator[str]:
    """Why the backend can't serve this model on this GPU; nothing where it can."""
    if wanted not in _BACKENDS:
        return  # vLLM knows more backends than we have rules for, and refuses with its own words
    backend, model = _BACKENDS[wanted], context.checkpoint
    capability = context.platform.compute_capability or (0, 0)
    if capability < backend.min_capability or capability > (backend.max_capability or capability):
        yield f"it does not support compute capability {capability[0]}.{capability[1]}"
    if backend.head_dims and (other := sorted(model.head_dims - backend.head_dims)):
        yield f"it does not support head size {', '.join(map(str, other))}"
    if backend.half_precision_only and _dtype(context) in ("fp32", "float32", "float"):
        yield "it does not support fp32"
    if (
        model.bidirectional_image_attention
        and not context.text_only
        and not backend.image_attention
    ):
        yield "image tokens attend in both directions, which it does not support"
    one_group = context.engine("disable_hybrid_kv_cache_manager", False)
    if one_group and model.sliding_window and not backend.mixed_windows:
        yield "local and global layers share a KV group without the hybrid KV cache manager"


def _dtype(context: Context) -> str:
    return str(context.engine("dtype", context.profile.dtype))


def _refusal(context: Context, wanted: str, faults: list[str]) -> str:
    steps = ["attention_policy: prefer", "attention_backend: auto"]
    if any("image" in fault for fault in faults):
        steps.append("text_only: true")
    return (
        f"attention_backend {wanted!r} can't serve {context.checkpoint.model} on "
        f"{context.platform.name} ({'; '.join(faults)}); use {', '.join(steps[:-1])} "
        f"or {steps[-1]}."
    )


def _softcap_guard(context: Context, backend: str) -> dict[str, Any]:
    """
    Keep Gemma 2's soft-cap on attention logits.

    FlashInfer's TRT-LLM and XQA kernels take no soft-cap (vLLM 0.32 flashinfer.py), and vLLM may
    choose FlashInfer by itself on Blackwell.
    """
    at_risk = context.checkpoint.attn_logit_softcapping and not context.on_cpu
    return {"use_trtllm_attention": False} if at_risk and backend in (FLASHINFER, AUTO) else {}


def _why(context: Context, wanted: str, origin: str) -> str:
    if wanted not in _BACKENDS:
        return "as asked; vLLM itself checks whether it fits"
    how = "the default on CUDA" if origin == DEFAULT else "as asked"
    valid = f"{how}; valid for this model and GPU"
    if context.checkpoint.attn_logit_softcapping and wanted == FLASHINFER:
        return f"{valid}; TRT-LLM kernels off, because they would lose the soft-cap"
    return valid
