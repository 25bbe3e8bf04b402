"""What must be installed for a profile: a vLLM that is new enough, its build, and its plugins."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from gemma_serve.errors import ProfileError, StartupError

if TYPE_CHECKING:
    from gemma_serve.profile.schema import Profile

# vLLM moved these out of its core in 0.24 and 0.28; value -> (import name, distribution).
_PLUGINS = {
    "gguf": ("vllm_gguf_plugin", "vllm-gguf-plugin"),
    "bitsandbytes": ("vllm_bnb_plugin", "vllm-bnb-plugin"),
}


def check_requirements(profile: Profile, vllm_version: str) -> None:
    """
    Refuse a profile that the installed software can't serve.

    Raises:
        ProfileError: meta.min_vllm_version is not a version.
        StartupError: vLLM is too old, or a plugin or Ray is missing.
    """
    check_vllm_version(profile, vllm_version)
    for key in ("quantization", "load_format"):
        _check_plugin(key, profile.engine.get(key))
    executor = profile.engine.get(
        "distributed_executor_backend", profile.distributed_executor_backend
    )
    if executor == "ray" and find_spec("ray") is None:
        raise StartupError(
            "distributed_executor_backend 'ray' needs the package ray, which is not installed; "
            "run 'pip install ray', or use mp."
        )


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


def _check_plugin(key: str, value: object) -> None:
    module, distribution = _PLUGINS.get(str(value), (None, None))
    if module and find_spec(module) is None:
        raise StartupError(
            f"engine.{key} {value!r} needs {distribution}, which is not installed; "
            f"run 'pip install {distribution}'."
        )
