"""
The vLLM backend's model.json: arguments of AsyncEngineArgs.

What a profile has a key for goes there, the rest stays under `engine:`, and what the installed vLLM
does not know is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from gemma_serve.errors import ProfileError
from gemma_serve.profile.tree import KeyPath
from gemma_serve.triton.importing.findings import Draft, Outcome, Setting, mistake_in
from gemma_serve.triton.importing.precision import import_dtype
from gemma_serve.triton.importing.reasons import REMOVED_ENGINE_ARGS, UNKNOWN_ENGINE_ARG
from gemma_serve.triton.repository import ModelDirectory, read_json

# Argument -> key of a profile, where the value stays as it is.
_KEYS: dict[str, KeyPath] = {
    "tensor_parallel_size": ("tensor_parallel_size",),
    "revision": ("revision",),
    "tokenizer": ("tokenizer",),
    "max_model_len": ("max_model_len",),
    "attention_backend": ("attention_backend",),
    "pipeline_parallel_size": ("pipeline_parallel_size",),
    "data_parallel_size": ("data_parallel_size",),
    "distributed_executor_backend": ("distributed_executor_backend",),
    "language_model_only": ("text_only",),
    "speculative_config": ("speculative",),
    "max_num_queued_reqs": ("limits", "max_queued_requests"),
    "max_num_queued_tokens": ("limits", "max_queued_tokens"),
    "reasoning_parser": ("chat", "reasoning_parser"),
}
_LORA_SIZES = ("max_loras", "max_lora_rank")
_HERE_TOO = "the profile has a key for it"
_ENGINE = "an argument of vLLM, passed on as it is"
_UNCHECKED = "passed on unchecked: no vLLM is installed here"
_AS_TEXT = "vLLM wants the value itself, not a string of it"


def import_engine_args(draft: Draft, model: ModelDirectory, args: Mapping[str, Any]) -> None:
    """Write the arguments of a model.json into the draft, `model` apart."""
    file = f"{model.version}/model.json"
    settings = {name: Setting(file, name, value) for name, value in args.items()}
    if str(args.get("quantization")).lower() == "fp8":
        reason = "dtype: fp8 quantises while loading, and keeps in bf16 what FP8 ruins"
        draft.must_put(settings.pop("quantization"), ("dtype",), "fp8", reason, "renamed")
    _import_lora(draft, model, settings)
    for name, setting in settings.items():
        if name != "model":
            _SPECIAL.get(name, _import_argument)(draft, setting)


def _import_argument(draft: Draft, setting: Setting) -> None:
    if setting.value is None:
        draft.drop(setting, "null is vLLM's word for its default")
        return
    key = _KEYS.get(setting.name)
    known = draft.engine_fields is None or setting.name in draft.engine_fields
    if not key and (not known or _is_removed(draft, setting)):
        draft.drop(setting, REMOVED_ENGINE_ARGS.get(setting.name, UNKNOWN_ENGINE_ARG))
        return
    places = [key] if key else []
    places += [("engine", setting.name)] if known else []
    refusal = ""
    for path in places:
        refusal = _put(draft, setting, path) or ""
        if not refusal:
            return
    draft.drop(setting, refusal)


def _is_removed(draft: Draft, setting: Setting) -> bool:
    return draft.engine_fields is None and setting.name in REMOVED_ENGINE_ARGS


def _put(draft: Draft, setting: Setting, path: KeyPath) -> str | None:
    """
    Write an argument to a place, as it is or as what a string of it says.

    Returns:
        Why it may not stand there.
    """
    outcome: Outcome = "kept" if path[-1] == setting.name else "renamed"
    reason = _HERE_TOO if path[0] != "engine" else _ENGINE
    if path[0] == "engine" and draft.engine_fields is None:
        reason = _UNCHECKED
    mistake = draft.put(setting, path, setting.value, reason, outcome)
    plain = _plain(setting.value)
    if mistake and plain is not None and not draft.put(setting, path, plain, _AS_TEXT, "changed"):
        return None
    return mistake


def _plain(value: Any) -> Any:
    """What a string says in JSON: true for "True", 2 for "2"; None where it says nothing else."""
    if not isinstance(value, str):
        return None
    try:
        return json.loads(value if value[:1] in "{[" else value.lower())
    except (ValueError, RecursionError):
        return None


def _import_trust(draft: Draft, setting: Setting) -> None:
    draft.drop(setting, "no Gemma needs code from its repository, and such code could do anything")


def _import_served_name(draft: Draft, setting: Setting) -> None:
    draft.drop(setting, "clients know the model by its Triton name, which is served_model_name")


def _import_token(draft: Draft, setting: Setting) -> None:
    draft.drop(setting, "a secret has no place in a profile; set HF_TOKEN in the environment")


def _import_stats(draft: Draft, setting: Setting) -> None:
    draft.drop(setting, "statistics are always on: /metrics and Triton's clients read them")


def _import_kv_cache_dtype(draft: Draft, setting: Setting) -> None:
    if setting.value in ("fp8", "fp8_e4m3"):
        outcome: Outcome = "kept" if setting.value == "fp8" else "renamed"
        draft.must_put(setting, ("kv_cache_dtype",), "fp8", "the same format", outcome)
    elif setting.value == "auto":
        draft.must_put(setting, ("kv_cache_dtype",), "auto", _HERE_TOO, "kept")
    else:
        _import_argument(draft, setting)


def _import_image_limit(draft: Draft, setting: Setting) -> None:
    """Of limits per modality a profile has the images; the others are never loaded."""
    value = _plain(setting.value) or setting.value
    images = value.get("image") if isinstance(value, dict) else None
    others = value.keys() - {"image", "audio", "video"} if isinstance(value, dict) else {"?"}
    reason = "of images; other media are not taken"
    if others or draft.put(setting, ("images_per_prompt",), images, reason, "renamed"):
        _import_argument(draft, setting)


_SPECIAL: dict[str, Callable[[Draft, Setting], None]] = {
    "dtype": import_dtype,
    "kv_cache_dtype": _import_kv_cache_dtype,
    "trust_remote_code": _import_trust,
    "served_model_name": _import_served_name,
    "hf_token": _import_token,
    "disable_log_stats": _import_stats,
    "limit_mm_per_prompt": _import_image_limit,
}


def _import_lora(draft: Draft, model: ModelDirectory, settings: dict[str, Setting]) -> None:
    """enable_lora, the sizes and multi_lora.json become `lora:`; they are taken from `settings`."""
    enable = settings.pop("enable_lora", None)
    sizes = [settings.pop(name) for name in _LORA_SIZES if name in settings]
    # As the backend reads it: a boolean, or the word for one.
    enabled = enable is not None and str(enable.value).lower() == "true"
    adapters = _adapters(draft, model, enabled)
    if enable is not None and not adapters:
        why = "multi_lora.json names no adapter" if enabled else "no adapters are loaded"
        draft.drop(enable, why)
    elif enable is not None:
        reason = "the adapters of multi_lora.json; clients choose one by lora_name or by model"
        draft.must_put(enable, ("lora", "adapters"), adapters, reason, "renamed")
    for size in sizes:
        mistake = _put(draft, size, ("lora", size.name)) if adapters else "no adapters are loaded"
        if mistake:
            draft.drop(size, mistake)


def _adapters(draft: Draft, model: ModelDirectory, enabled: bool) -> dict[str, str]:
    if not model.has("multi_lora.json"):
        return {}
    file = f"{model.version}/multi_lora.json"
    if not enabled:
        draft.drop(Setting(file, "(the file)", "..."), "enable_lora is not true in model.json")
        return {}
    adapters = read_json(model.file("multi_lora.json"))
    for name, path in adapters.items():
        if mistake := mistake_in(("lora", name), {"lora": {"adapters": {name: path}}}, None):
            raise ProfileError(
                f"{model.name}/{file} has an adapter that can't be served: {mistake}"
            )
        draft.keep(Setting(file, name, path), "its directory must be there where gemma-serve runs")
    return adapters
