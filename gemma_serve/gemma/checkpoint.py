"""
A checkpoint is found and its config.json read: local, cached, packaged or fetched.

Nothing here reads weights; whether they are there is `weights.py`'s business.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from gemma_serve.errors import ModelError
from gemma_serve.gemma import gguf
from gemma_serve.gemma.architecture import Checkpoint, ConfigSource, quantization_of
from gemma_serve.gemma.facts import facts_for
from gemma_serve.gemma.family import generation_of
from gemma_serve.gemma.tokens import read_added_tokens
from gemma_serve.gemma.weights import check_is_directory, check_servable, safetensors_bytes

__all__ = ["Checkpoint", "ConfigSource", "check_servable", "looks_like_path", "read_checkpoint"]

HUB_ANSWER_S = 5.0


def read_checkpoint(
    model: str, revision: str | None = None, *, tokenizer: str | None = None, download: bool
) -> Checkpoint:
    """
    Read a checkpoint's config.json from the nearest place that has it.

    A local directory, then the Hugging Face cache, then the packaged facts; the Hub itself only
    when `download` is true.

    Args:
        tokenizer: The profile's; GGUF weights, which have no config.json, take that of its model.

    Raises:
        ModelError: There is no such directory or repository, or its config.json can't be read.
    """
    if gguf.is_gguf(model):
        return _from_gguf(model, revision, tokenizer, download=download)
    directory = Path(model).expanduser()
    if directory.exists() or looks_like_path(model):
        check_is_directory(model, directory)
        return _from_directory(model, directory, "local", path=directory)
    if cached := _cached(model, "config.json", revision):
        found = _from_directory(model, cached.parent, "hub cache")
        return _with_generation_config(found, revision) if download else found
    if facts := facts_for(model):
        other = _cached(model, "config.json", None) if revision else None
        packaged = Checkpoint(
            model=model,
            path=None,
            config=facts.config,
            config_source="packaged facts",
            generation=generation_of(facts.config),
            has_chat_template=facts.has_chat_template,
            quant_method=quantization_of(facts.config).get("quant_method"),
            weight_bytes=facts.weight_bytes,
            added_tokens=facts.added_tokens,
            commit=other.parent.name if other else None,
        )
        return _with_generation_config(packaged, revision) if download else packaged
    if not download:
        raise ModelError(
            f"The config.json of model {model!r} is neither in the Hugging Face cache nor packaged "
            "with gemma-serve; fetch the checkpoint first, or name a local directory."
        )
    fetched = _from_directory(model, _download(model, revision).parent, "hub")
    return _with_generation_config(fetched, revision)


def _from_gguf(
    model: str, revision: str | None, tokenizer: str | None, *, download: bool
) -> Checkpoint:
    file = gguf.local_file(model)
    if file and not tokenizer and not (file.parent / "config.json").exists():
        raise ModelError(
            f"Model {model!r} has no config.json beside it; name the model that it was made from, "
            "for example tokenizer: google/gemma-3-1b-it."
        )
    # A tokenizer of another repository has revisions of its own.
    made_from = tokenizer or gguf.config_source(model)
    base = read_checkpoint(made_from, None if tokenizer else revision, download=download)
    return replace(
        base,
        model=model,
        path=file,
        quant_method="gguf",
        weight_bytes=file.stat().st_size if file else None,
    )


def looks_like_path(model: str) -> bool:
    """Whether the name can only be a path: a Hub id is `name` or `owner/name`."""
    return model.startswith((".", "~", os.sep)) or model.count("/") > 1 or model.endswith(".gguf")


def _from_directory(
    model: str, directory: Path, source: ConfigSource, path: Path | None = None
) -> Checkpoint:
    config = _read_json(model, directory / "config.json")
    modelopt = directory / "hf_quant_config.json"
    if not quantization_of(config) and modelopt.exists():
        details = _read_json(model, modelopt).get("quantization") or {}
        config = config | {"quantization_config": {"quant_method": "modelopt"} | dict(details)}
    facts = facts_for(model)
    return Checkpoint(
        model=model,
        path=path,
        config=config,
        config_source=source,
        generation=generation_of(config),
        has_chat_template=_has_chat_template(model, directory),
        quant_method=quantization_of(config).get("quant_method"),
        weight_bytes=safetensors_bytes(directory) or (facts.weight_bytes if facts else None),
        generation_config=_generation_config(model, directory, source),
        added_tokens=_added_tokens(model, directory) or (facts.added_tokens if facts else {}),
        commit=None if source == "local" else directory.name,  # .../snapshots/COMMIT
    )


def _generation_config(
    model: str, directory: Path, source: ConfigSource
) -> Mapping[str, Any] | None:
    file = directory / "generation_config.json"
    if file.exists():
        return _read_json(model, file)
    return {} if source == "local" else None


def _with_generation_config(checkpoint: Checkpoint, revision: str | None) -> Checkpoint:
    """Fetch the generation_config.json of a model on the Hub, if it is not here and can be had."""
    if checkpoint.generation_config is not None:
        return checkpoint
    from huggingface_hub import errors as hub
    from huggingface_hub import hf_hub_download

    model = checkpoint.model
    try:
        _check_hub_answers(model)
        file = Path(hf_hub_download(model, "generation_config.json", revision=revision))
        found: Mapping[str, Any] | None = _read_json(model, file)
    except hub.RemoteEntryNotFoundError:
        found = {}
    except hub.GatedRepoError:
        if checkpoint.config_source == "packaged facts":  # then its weights are not here either
            raise ModelError(_gated(model)) from None
        found = None
    except Exception:  # vLLM says why the model can't be fetched; without it, nothing is assumed
        found = None
    return replace(checkpoint, generation_config=found)


def _has_chat_template(model: str, directory: Path) -> bool | None:
    if any((directory / name).exists() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    tokenizer = directory / "tokenizer_config.json"
    if not tokenizer.exists():
        return None
    return bool(_read_json(model, tokenizer).get("chat_template"))


def _added_tokens(model: str, directory: Path) -> dict[str, int]:
    file = directory / "tokenizer.json"
    if not file.exists():
        return {}
    try:
        return read_added_tokens(file)
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise ModelError(
            f"The tokenizer.json of model {model!r} can't be read ({error}); fetch it again."
        ) from None


def _read_json(model: str, file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"Model {model!r} has no {file.name}; name a directory that holds a Hugging Face "
            "checkpoint (config.json, tokenizer.json, *.safetensors)."
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The {file.name} of model {model!r} can't be read ({error}); fetch it again."
        ) from None
    if not isinstance(content, dict):
        raise ModelError(
            f"The {file.name} of model {model!r} is not a JSON object; fetch it again."
        )
    return content


def _cached(model: str, name: str, revision: str | None) -> Path | None:
    # Late: a local model needs none of it, and it reads its environment when it is imported.
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, name, revision=revision)
    except HFValidationError:
        raise ModelError(_not_found(model)) from None
    return Path(found) if isinstance(found, str) else None


def _download(model: str, revision: str | None) -> Path:
    from huggingface_hub import errors as hub
    from huggingface_hub import hf_hub_download

    at = f" at revision {revision!r}" if revision else ""
    _check_hub_answers(model)
    try:
        return Path(hf_hub_download(model, "config.json", revision=revision))
    except hub.GatedRepoError:
        raise ModelError(_gated(model)) from None
    except hub.RepositoryNotFoundError:
        raise ModelError(_not_found(model)) from None
    except (hub.RevisionNotFoundError, hub.RemoteEntryNotFoundError):
        raise ModelError(
            f"Model {model!r} has no config.json{at} on the Hugging Face Hub; "
            "check the name and the revision."
        ) from None
    except Exception as error:  # the network may fail in any way; the user gets one line
        raise ModelError(
            f"The config.json of model {model!r} can't be fetched from the Hugging Face Hub "
            f"({type(error).__name__}); check the network, or name a local directory."
        ) from error


def _check_hub_answers(model: str) -> None:
    # huggingface_hub would try five times, for half a minute, before it said so.
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise ModelError(
            f"The config.json of model {model!r} is not in the Hugging Face cache and "
            "HF_HUB_OFFLINE is set; unset it, or name a local directory."
        )
    try:
        httpx.head(constants.ENDPOINT, timeout=HUB_ANSWER_S)
    except httpx.HTTPError as error:
        raise ModelError(
            f"The config.json of model {model!r} can't be fetched from the Hugging Face Hub "
            f"({type(error).__name__}); check the network, or name a local directory."
        ) from error


def _gated(model: str) -> str:
    return f"Model {model!r} is gated; accept its terms on huggingface.co and set HF_TOKEN."


def _not_found(model: str) -> str:
    return (
        f"Model {model!r} is neither a local directory nor a repository on the Hugging Face Hub "
        "that this machine may read; check the spelling, or set HF_TOKEN if it is private."
    )
