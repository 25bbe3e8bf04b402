"""A key that a profile can't have, and the right word for it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from functools import cache

from gemma_serve.profile.json_schema import Schema, branches, profile_schema
from gemma_serve.profile.tree import KeyPath, dotted

# What other servers, vLLM's command line and everyday speech call our keys.
ALIASES = {
    "tp": "tensor_parallel_size",
    "tp_size": "tensor_parallel_size",
    "tensor_parallel": "tensor_parallel_size",
    "num_gpus": "tensor_parallel_size",
    "pp": "pipeline_parallel_size",
    "pipeline_parallel": "pipeline_parallel_size",
    "dp": "data_parallel_size",
    "data_parallel": "data_parallel_size",
    "model_id": "model",
    "model_name": "model",
    "model_path": "model",
    "name": "served_model_name",
    "precision": "dtype",
    "torch_dtype": "dtype",
    "context_length": "max_model_len",
    "max_context_length": "max_model_len",
    "max_seq_len": "max_model_len",
    "limit_mm_per_prompt": "images_per_prompt",
    "max_images": "images_per_prompt",
    "language_model_only": "text_only",
    "executor": "distributed_executor_backend",
    "speculative_config": "speculative",
    "lora_adapters": "lora.adapters",
    "lora_modules": "lora.adapters",
    "environment": "env",
    "base": "extends",
    "inherits": "extends",
    "chat_template": "chat.template",
    "max_num_queued_reqs": "limits.max_queued_requests",
    "max_num_queued_tokens": "limits.max_queued_tokens",
}
# Fields of AsyncEngineArgs that people know by heart, for when no vLLM is there to ask.
WELL_KNOWN_ENGINE_FIELDS = (
    "async_scheduling",
    "attention_config",
    "block_size",
    "compilation_config",
    "download_dir",
    "enable_chunked_prefill",
    "enable_prefix_caching",
    "enforce_eager",
    "gpu_memory_utilization",
    "hf_overrides",
    "kv_cache_memory_bytes",
    "load_format",
    "max_num_batched_tokens",
    "max_num_seqs",
    "mm_processor_kwargs",
    "seed",
    "trust_remote_code",
)
_KEY_NAME = re.compile(r"(?:^|_)api_?keys?$")
_SECRET_VARIABLE = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD)$")


def names_secret(path: KeyPath) -> str | None:
    """Why a profile may not have this key: its value would be a secret; None where it may."""
    name = str(path[-1])
    if _KEY_NAME.search(_plain_word(name)):
        return (
            f"{dotted(path)} would hold a secret; secrets come only from the environment variable "
            "GEMMA_SERVE_API_KEYS or from the file that server.api_keys_file names."
        )
    variable = name.upper() if path == ("engine", "hf_token") or path[0] == "env" else ""
    if _SECRET_VARIABLE.search(variable):
        return (
            f"{dotted(path)} would hold a secret; set {variable} in the environment of the "
            "server, not in a profile."
        )
    return None


def unknown_key(path: KeyPath, siblings: Collection[str], engine_fields: Collection[str]) -> str:
    """
    The sentence for a key that is not allowed at `path`.

    Args:
        siblings: The keys that are allowed on that level.
        engine_fields: Field names of vLLM's AsyncEngineArgs.
    """
    name, word = str(path[-1]), _plain_word(str(path[-1]))
    subject = f"Unknown key {dotted(path)[:80]!r}"
    if word == "quantization" and path[0] != "engine":
        return f"{subject}; write dtype: fp8, or engine.quantization for a method of vLLM."
    if word in siblings:
        return f"{subject}; write {dotted((*path[:-1], word))}."
    if word in ALIASES:
        return f"{subject}; write {ALIASES[word]}."
    if "." in name and _is_known(tuple(name.split("."))):
        section, _, key = name.rpartition(".")
        return f"{subject}; write {key} under {section}: (dots are for --set)."
    if word in _elsewhere():
        return f"{subject}; {_belongs(_elsewhere()[word])}."
    if path[0] != "engine" and word in (engine_fields or WELL_KNOWN_ENGINE_FIELDS):
        return f"{subject}; it is an engine field of vLLM: write engine.{word}."
    return f"{subject}; {_closest(path, word, siblings)}."


def _closest(path: KeyPath, word: str, siblings: Collection[str]) -> str:
    close = get_close_matches(word, siblings, n=1)
    if close:
        return f"the closest is {dotted((*path[:-1], close[0]))!r}"
    if path[0] == "engine" and len(path) == 2:
        return "vLLM's AsyncEngineArgs has no such field"
    if len(path) == 1:
        return "see all keys with: gemma-serve schema"
    return f"{dotted(path[:-1])} takes {', '.join(sorted(siblings))}"


def _belongs(target: str) -> str:
    section, _, _ = target.rpartition(".")
    return (
        f"it belongs under {section}: write {target}" if section else f"write {target} at the top"
    )


def _plain_word(name: str) -> str:
    return name[:80].strip().lower().replace("-", "_")


def _is_known(path: KeyPath) -> bool:
    return dotted(path) in all_keys()


@cache
def all_keys() -> tuple[str, ...]:
    return tuple(_keys_of(profile_schema()))


def _keys_of(schema: Schema, path: KeyPath = ()) -> Iterator[str]:
    for branch in branches(schema):
        for key, child in branch.get("properties", {}).items():
            yield dotted((*path, key))
            yield from _keys_of(child, (*path, key))


@cache
def _elsewhere() -> dict[str, str]:
    """Name of a key -> the first place where it is at home."""
    places: dict[str, str] = {}
    for place in sorted(all_keys(), key=lambda place: place.count(".")):
        places.setdefault(place.rpartition(".")[2], place)
    return places
