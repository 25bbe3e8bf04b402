"""What the derivation of settings works with, and what it hands over."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gemma_serve.profile.keys import names_secret

if TYPE_CHECKING:
    from gemma_serve.engine.platform import Platform
    from gemma_serve.gemma.checkpoint import Checkpoint
    from gemma_serve.profile.load import LoadedProfile
    from gemma_serve.profile.schema import Profile

DEFAULT = "default"
ENVIRONMENT = "environment"


@dataclass(frozen=True)
class Setting:
    """One value that is handed to vLLM, where it comes from and why it is what it is."""

    key: str
    value: Any
    origin: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """For people and JSON; without the value where the key names a secret."""
        value = "(hidden)" if names_secret(("env", self.key)) else self.value
        return {"key": self.key, "value": value, "origin": self.origin, "reason": self.reason}


# Derivations yield settings; a plain string among them is a note for the operator.
Derived = Iterator[Setting | str]


@dataclass(frozen=True)
class Resolved:
    """All that vLLM is started with."""

    env: tuple[Setting, ...]
    engine_args: tuple[Setting, ...]  # fields of AsyncEngineArgs
    frontend_args: tuple[Setting, ...]  # of vLLM's serving objects
    notes: tuple[str, ...]

    def env_dict(self) -> dict[str, str]:
        """Environment variables, to be set before vLLM is imported."""
        return {setting.key: setting.value for setting in self.env}

    def engine_kwargs(self) -> dict[str, Any]:
        """Arguments of AsyncEngineArgs."""
        return {setting.key: setting.value for setting in self.engine_args}

    def frontend_kwargs(self) -> dict[str, Any]:
        """Arguments of vLLM's serving objects."""
        return {setting.key: setting.value for setting in self.frontend_args}


@dataclass(frozen=True)
class Context:
    """What settings are derived from."""

    loaded: LoadedProfile
    checkpoint: Checkpoint
    platform: Platform
    engine_fields: Collection[str]
    environ: Mapping[str, str]
    available_memory_bytes: int | None = None

    @property
    def profile(self) -> Profile:
        """The profile itself."""
        return self.loaded.profile

    @property
    def on_cpu(self) -> bool:
        """Whether vLLM runs on the CPU."""
        return self.platform.kind == "cpu"

    def origin(self, key: str) -> str:
        """Where the profile's value of a key was written."""
        return str(self.loaded.origin(key))

    def engine(self, key: str, otherwise: Any = None) -> Any:
        """What `engine:` says about an argument, which wins over anything derived."""
        return self.profile.engine.get(key, otherwise)

    def size(self, key: str) -> int:
        """A parallel size, from `engine:` or the profile."""
        return int(self.engine(key, getattr(self.profile, key)))

    @property
    def num_workers(self) -> int:
        """Worker processes of one replica."""
        return self.size("tensor_parallel_size") * self.size("pipeline_parallel_size")

    @property
    def num_nodes(self) -> int:
        """Hosts that share the workers by vLLM's own multi-node start."""
        return int(self.engine("nnodes", 1))

    @property
    def num_local_workers(self) -> int:
        """Worker processes of all replicas on this host; vLLM refuses what does not divide."""
        return max(1, self.num_workers * self.size("data_parallel_size") // self.num_nodes)

    @property
    def text_only(self) -> bool:
        """Whether nothing but text can reach the model."""
        derived = dict.fromkeys(self.checkpoint.modalities, 0) | {"image": self.profile.max_images}
        limits = self.engine("limit_mm_per_prompt", derived)
        none_left = all(limits.get(modality) == 0 for modality in self.checkpoint.modalities)
        return bool(self.engine("language_model_only", self.profile.text_only)) or none_left


def split(derived: Iterable[Setting | str]) -> tuple[list[Setting], list[str]]:
    """Settings and notes apart, each in order."""
    items = list(derived)
    settings = [item for item in items if isinstance(item, Setting)]
    return settings, [item for item in items if isinstance(item, str)]
