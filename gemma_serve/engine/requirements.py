"""What must be installed for a profile: a vLLM that is new enough, its build, and its plugins."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from gemma_serve.errors import ProfileError, StartupError
from gemma_serve.gemma.gguf import is_gguf

if TYPE_CHECKING:
    from gemma_serve.profile.schema import Profile

_GROUP = "vllm.general_plugins"
# vLLM moved these out of its core in 0.24 and 0.28; value, which is also the name of the entry
# point that brings it back -> distribution.
_PLUGINS = {"gguf": "vllm-gguf-plugin", "bitsandbytes": "vllm-bnb-plugin"}


def check_requirements(
    profile: Profile, vllm_version: str, quant_method: str | None = None
) -> None:
    """
    Refuse a profile that the installed software can't serve.

    Args:
        quant_method: How the checkpoint is quantised, where that is known.

    Raises:
        ProfileError: meta.min_vllm_version is not a version.
        StartupError: vLLM is too old, or a plugin or Ray is missing.
    """
    check_vllm_version(profile, vllm_version)
    check_plugins(profile, quant_method)
    executor = profile.engine.get(
        "distributed_executor_backend", profile.distributed_executor_backend
    )
    if executor == "ray" and find_spec("ray") is None:
        raise StartupError(
            "distributed_executor_backend 'ray' needs the package ray, which is not installed; "
            "run 'pip install ray', or use mp."
        )


def check_plugins(profile: Profile, quant_method: str | None = None) -> None:
    """
    Refuse a quantisation whose vLLM plugin is missing or switched off.

    Raises:
        StartupError: It names the package to install.
    """
    if is_gguf(profile.model):
        _check_plugin("gguf", f"model {profile.model!r}", profile)
    for key in ("quantization", "load_format"):
        value = str(profile.engine.get(key))
        _check_plugin(value, f"engine.{key} {value!r}", profile)
    if quant_method:
        what = f"{profile.model}, whose weights are stored by {quant_method},"
        _check_plugin(quant_method, what, profile)


def check_vllm_version(profile: Profile, vllm_version: str) -> None:
    """Refuse a vLLM that is older than meta.min_vllm_version."""
    oldest = profile.meta.min_vllm_version
    if oldest is None:
        return
    try:
        too_old = Version(vllm_version) < Version(oldest)
    except InvalidVersion:
        raise ProfileError(
            f"meta.min_vllm_version {oldest!r} is not a version; write it like 0.32.0."
        ) from None
    if too_old:
        raise StartupError(
            f"The profile needs vLLM {oldest} or newer (meta.min_vllm_version) and {vllm_version} "
            f"is installed; run 'pip install \"vllm>={oldest}\"'."
        )


def _check_plugin(name: str, what: str, profile: Profile) -> None:
    distribution = _PLUGINS.get(name)
    if distribution is None:
        return
    if not entry_points(group=_GROUP, name=name):
        raise StartupError(
            f"{what} needs {distribution}, which is not installed; "
            f"run 'pip install {distribution}'."
        )
    allowed = profile.env.get("VLLM_PLUGINS", os.environ.get("VLLM_PLUGINS"))
    if allowed is not None and name not in allowed.split(","):
        raise StartupError(
            f"{what} needs {distribution}, which VLLM_PLUGINS {allowed!r} leaves out; "
            f"add {name} to it, or unset it."
        )
