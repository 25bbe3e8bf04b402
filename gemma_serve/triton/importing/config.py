"""Every field of a model configuration: kept, renamed, changed or dropped, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gemma_serve.triton.contracts import Contract
from gemma_serve.triton.importing.findings import Draft, Setting
from gemma_serve.triton.importing.reasons import (
    DYNAMIC_BATCHING,
    FIELDS,
    INSTANCE_GROUP,
    PARAMETERS,
    QUEUE_POLICY,
    UNKNOWN_FIELD,
    UNKNOWN_PARAMETER,
)
from gemma_serve.triton.importing.tensors import import_tensors
from gemma_serve.triton.repository import ModelDirectory

_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True}
_BOOLEANS |= {"false": False, "0": False, "no": False, "off": False}


@dataclass(frozen=True)
class Configuration:
    """A model's configuration on its way into the draft."""

    draft: Draft
    model: ModelDirectory
    contract: Contract

    @property
    def file(self) -> str:
        """The name of its file, also where there is none."""
        return self.model.config_name or "config.pbtxt"

    def setting(self, name: str, value: Any) -> Setting:
        """A setting of it."""
        return Setting(self.file, name, value)


def import_config(config: Configuration) -> None:
    """Write what a model configuration says into the draft, field by field."""
    if config.model.config_name is None:
        reason = "there is none: Triton completes it by the files, and so is it done here"
        config.draft.keep(config.setting("(the file)", "missing"), reason)
    if not config.model.config.max_batch_size:  # protobuf does not list a zero
        _max_batch_size(config, 0)
    for field, value in config.model.config.ListFields():
        HANDLERS.get(field.name, _dropped(field.name))(config, value)
    _versions(config)


def brief(value: Any) -> Any:
    """A field of protobuf on one line; a scalar as it is."""
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return tuple(sorted(value))
    if hasattr(value, "ListFields"):
        return tuple(field.name for field, _ in value.ListFields()) or "set"
    return f"{len(value)} of them"


def _name(config: Configuration, value: str) -> None:
    if value == config.model.name:
        reason = "the directory's name, by which clients know the model"
        config.draft.keep(config.setting("name", value), reason)
    else:
        reason = f"the directory is {config.model.name!r}, and Triton wants both to be equal"
        config.draft.drop(config.setting("name", value), reason)


def _backend(field: str) -> Callable[[Configuration, str], None]:
    def handler(config: Configuration, value: str) -> None:
        path, name = ("triton", "contract"), config.contract.name
        if "triton" in config.draft.values and "contract" in config.draft.values["triton"]:
            config.draft.drop(config.setting(field, value), "said by the other of the two")
            return
        reason = "its tensors and their meaning; vLLM does the work"
        config.draft.must_put(config.setting(field, value), path, name, reason, "renamed")

    return handler


def _max_batch_size(config: Configuration, value: int) -> None:
    ours, setting = config.contract.max_batch_size, config.setting("max_batch_size", value)
    if bool(value) == bool(ours):
        if value <= ours:
            config.draft.keep(setting, "no batch dimension" if not ours else "the same here")
        else:
            reason = f"a request holds {ours}: send several; vLLM batches them by itself"
            config.draft.change(setting, reason)
    elif value:
        config.draft.change(
            setting,
            f"{config.contract.name} has no batch dimension: clients of /infer and gRPC send "
            "shapes without it, clients of /generate change nothing",
        )
    else:
        config.draft.change(
            setting,
            f"{config.contract.name} has a batch dimension of {ours}: clients of /infer and gRPC "
            "send shapes with it, clients of /generate change nothing",
        )


def _tensors(field: str) -> Callable[[Configuration, Any], None]:
    def handler(config: Configuration, value: Any) -> None:
        import_tensors(config.draft, config.file, field, value, config.contract)

    return handler


def _transactions(config: Configuration, value: Any) -> None:
    setting = config.setting("model_transaction_policy.decoupled", value.decoupled)
    ours = config.contract.decoupled
    if value.decoupled == ours:
        config.draft.keep(setting, "whole answers and streams are served either way")
    else:
        config.draft.change(
            setting,
            f"/config says {str(ours).lower()}, as the contract {config.contract.name} does; whole "
            "answers and streams are served either way",
        )


def _instance_groups(config: Configuration, value: Any) -> None:
    for index, group in enumerate(value):
        name = f"instance_group[{index}]" if len(value) > 1 else "instance_group"
        for field, said in group.ListFields():
            shown = _kind_name(group) if field.name == "kind" else _shown(said)
            reason = INSTANCE_GROUP.get(field.name, UNKNOWN_FIELD)
            config.draft.drop(config.setting(f"{name}.{field.name}", shown), reason)
        if not group.ListFields():
            config.draft.drop(config.setting(name, "empty"), "there is one engine")


def _kind_name(group: Any) -> str:
    enum = group.DESCRIPTOR.fields_by_name["kind"].enum_type
    return str(enum.values_by_number[group.kind].name)


def _shown(said: Any) -> Any:
    if isinstance(said, str | int | float | Mapping) or hasattr(said, "ListFields"):
        return brief(said)
    return tuple(said) if isinstance(said[0], str | int) else brief(said)


def import_dynamic_batching(config: Configuration, value: Any) -> None:
    """vLLM batches by itself; priorities and the length of the queue have keys here."""
    if not value.ListFields():
        reason = "vLLM batches continuously, token by token"
        config.draft.drop(config.setting("dynamic_batching", "on"), reason)
    for field, said in value.ListFields():
        name = f"dynamic_batching.{field.name}"
        if field.name == "default_priority_level":
            reason = "of requests that name none; lower goes first"
            setting = config.setting(name, said)
            path = ("triton", "default_priority_level")
            config.draft.must_put(setting, path, said, reason, "renamed")
        elif field.name == "default_queue_policy":
            _queue_policy(config, name, said)
        else:
            reason = DYNAMIC_BATCHING.get(field.name, UNKNOWN_FIELD)
            config.draft.drop(config.setting(name, _shown(said)), reason)


def _queue_policy(config: Configuration, prefix: str, policy: Any) -> None:
    for field, said in policy.ListFields():
        setting = config.setting(f"{prefix}.{field.name}", said)
        if field.name == "max_queue_size":
            reason = (
                "more than this is 503; Triton counted the waiting alone, here the running count "
                "too, so raise it by as many as run together"
            )
            path = ("limits", "max_queued_requests")
            config.draft.must_put(setting, path, said, reason, "changed")
        else:
            config.draft.drop(setting, QUEUE_POLICY.get(field.name, UNKNOWN_FIELD))


def _parameters(config: Configuration, value: Any) -> None:
    for key in sorted(value):
        text = value[key].string_value
        name, setting = f"parameters {key}", config.setting(f"parameters {key}", text)
        if key == "enable_inference_trace":
            _trace(config, setting)
        elif not config.draft.says(config.file, name):  # it may have named the checkpoint
            config.draft.drop(setting, PARAMETERS.get(key, UNKNOWN_PARAMETER))


def _trace(config: Configuration, setting: Setting) -> None:
    value = _BOOLEANS.get(setting.value.strip().lower())
    if value is None:
        config.draft.drop(setting, "it is neither true nor false")
        return
    path, reason = ("triton", "inference_trace"), "one line a request: id, tokens, times, no text"
    config.draft.must_put(setting, path, value, reason, "renamed")


def _version_policy(config: Configuration, value: Any) -> None:
    choice = value.WhichOneof("policy_choice") or "latest"
    setting = config.setting("version_policy", choice)
    config.draft.keep(
        setting,
        f"of {_listed(config.model.versions)} it makes version "
        f"{config.model.version} the one that is served",
    )


def _versions(config: Configuration) -> None:
    model = config.model
    for version in _gone(model):
        reason = f"one version is served: a request that names {version} gets 404"
        config.draft.drop(Setting(f"{version}/", "(version)", version), reason)
    setting = Setting(f"{model.version}/", "(version)", model.version)
    path, reason = ("triton", "model_version"), "the one that requests get when they name none"
    if mistake := config.draft.put(setting, path, str(model.version), reason, "renamed"):
        config.draft.drop(setting, f"{mistake} Requests that name a version get 404.")


def _gone(model: ModelDirectory) -> Iterator[int]:
    """Versions that Triton's clients could ask for and that are not served here."""
    return (version for version in model.available if version != model.version)


def _listed(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions))


def _dropped(field: str) -> Callable[[Configuration, Any], None]:
    def handler(config: Configuration, value: Any) -> None:
        config.draft.drop(config.setting(field, brief(value)), FIELDS.get(field, UNKNOWN_FIELD))

    return handler


HANDLERS: dict[str, Callable[[Configuration, Any], None]] = {
    "name": _name,
    "platform": _backend("platform"),
    "backend": _backend("backend"),
    "version_policy": _version_policy,
    "max_batch_size": _max_batch_size,
    "input": _tensors("input"),
    "output": _tensors("output"),
    "dynamic_batching": import_dynamic_batching,
    "instance_group": _instance_groups,
    "parameters": _parameters,
    "model_transaction_policy": _transactions,
    **{field: _dropped(field) for field in FIELDS},
}
