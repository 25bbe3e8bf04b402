"""The models inside TensorRT-LLM's ensemble, whose parameters set up its runtime."""

from __future__ import annotations

from dataclasses import replace

from gemma_serve.triton.importing.choosing import takes_token_ids
from gemma_serve.triton.importing.config import Configuration, import_dynamic_batching
from gemma_serve.triton.importing.findings import Setting
from gemma_serve.triton.importing.reasons import (
    TENSORRT_LLM_PARAMETER,
    TENSORRT_LLM_PARAMETERS,
    UNFILLED,
)
from gemma_serve.triton.repository import ModelDirectory


def import_part(config: Configuration, part: ModelDirectory, reason: str) -> None:
    """
    Write what another model of TensorRT-LLM's repository says into the draft.

    Args:
        reason: Why the fields of its configuration have no place of their own.
    """
    inner = replace(config, model=replace(part, config_name=f"{part.name}/{part.config_name}"))
    others = []
    for field, value in part.config.ListFields():
        if field.name == "parameters":
            for key in sorted(value):
                import_runtime_parameter(inner, key, value[key].string_value)
        # The ensemble's own queue is short: what waits, waits for the engine.
        elif field.name == "dynamic_batching" and takes_token_ids(part):
            import_dynamic_batching(inner, value)
        else:
            others.append(field.name)
    if others:
        config.draft.drop(inner.setting("(the other fields)", tuple(others)), reason)


def import_runtime_parameter(config: Configuration, key: str, text: str) -> None:
    """Write one parameter of TensorRT-LLM's into the draft."""
    setting = config.setting(f"parameters {key}", text)
    if config.draft.says(setting.file, setting.name):
        return
    if text.startswith("${"):
        config.draft.drop(setting, UNFILLED)
    elif key == "exclude_input_in_output" and text.strip().lower() in ("true", "1"):
        _exclude_input(config, setting)
    else:
        reason = TENSORRT_LLM_PARAMETERS.get(key, TENSORRT_LLM_PARAMETER)
        config.draft.drop(setting, reason)


def _exclude_input(config: Configuration, setting: Setting) -> None:
    path = ("triton", "default_inputs", "exclude_input_in_output")
    config.draft.must_put(setting, path, True, "answers lack the prompt", "renamed")
