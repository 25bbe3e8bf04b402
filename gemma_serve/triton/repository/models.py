"""
The model directories of a repository: configuration, versions, backend.

Source: https://github.com/triton-inference-server/server (docs/user_guide/model_repository.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gemma_serve.errors import ProfileError
from gemma_serve.triton.repository.files import read_config

# Triton's name first; the other spelling is in the field too.
CONFIG_NAMES = ("config.pbtxt", "config.pbxt")
# A name that starts with 0 is no version for Triton either.
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_REMOTE = re.compile(r"^[a-z0-9]+:/")  # pathlib makes one slash of two
EXPECTED = "a model repository holds MODEL/config.pbtxt and MODEL/1/"


@dataclass(frozen=True)
class ModelDirectory:
    """One model, as its directory and its configuration describe it."""

    name: str  # the directory's, by which Triton's clients know it
    path: Path
    config: Any  # ModelConfig
    config_name: str | None  # None: the configuration is left to Triton to complete
    versions: tuple[int, ...]  # ascending

    @cached_property
    def available(self) -> tuple[int, ...]:
        """The versions that the version policy makes available, ascending."""
        policy = self.config.version_policy
        choice = policy.WhichOneof("policy_choice")
        if choice == "specific":
            return tuple(v for v in self.versions if v in policy.specific.versions)
        if choice == "all":
            return self.versions
        return self.versions[-max(policy.latest.num_versions, 1) :]

    @property
    def version(self) -> int:
        """
        The version that a request gets when it names none.

        Raises:
            ProfileError: none is there.
        """
        if not self.versions:
            raise ProfileError(
                f"The model {self.name!r} has no version directory; Triton keeps one in "
                f"{self.name}/1/."
            )
        if not self.available:
            asked = ", ".join(map(str, self.config.version_policy.specific.versions)) or "none"
            raise ProfileError(
                f"The version policy of {self.name!r} names {asked}, and the versions there are "
                f"{', '.join(map(str, self.versions))}; mend version_policy."
            )
        return self.available[-1]

    def file(self, name: str) -> Path:
        """A file of the served version."""
        return self.path / str(self.version) / name

    def has(self, name: str) -> bool:
        """Whether the served version has a file, or a link of its name."""
        return bool(self.available) and _exists(self.file(name))

    @property
    def backend(self) -> str:
        """Backend or platform; where neither is said, the one that its files are for."""
        said = self.config.backend or self.config.platform
        if not said and self.has("model.json"):
            return "vllm"
        if not said and self.has("model.py"):
            return "python"
        return str(said)


@dataclass(frozen=True)
class Repository:
    """A repository's models by name, and those whose configuration can't be read."""

    name: str
    models: dict[str, ModelDirectory]
    broken: dict[str, ProfileError]

    @property
    def names(self) -> list[str]:
        """All its models, readable or not."""
        return sorted([*self.models, *self.broken])


def read_repository(path: Path) -> Repository:
    """
    Read a model repository, or one model directory as a repository of it alone.

    Raises:
        ProfileError: there is no such directory, or no model in it.
    """
    _check_directory(path)
    # Not resolved: a link's own name is the model's, as for Triton.
    path = path.absolute()
    if path.name in ("", ".."):
        path = path.resolve()
    try:
        directories = [path] if _is_model(path) else list(_children(path))
    except OSError as error:
        raise _unreadable(path, error) from None
    models: dict[str, ModelDirectory] = {}
    broken: dict[str, ProfileError] = {}
    for directory in directories:
        try:
            if _is_model(directory):
                models[directory.name] = read_model(directory)
        except OSError as error:
            broken[directory.name] = _unreadable(directory, error)
        except ProfileError as error:
            broken[directory.name] = error
    if not models and not broken:
        shown = path.name or str(path)
        raise ProfileError(f"There is no Triton model in {shown!r}: {EXPECTED}{_hint(path)}.")
    return Repository(path.name, models, broken)


def _unreadable(path: Path, error: OSError) -> ProfileError:
    return ProfileError(f"{str(path)!r} can't be read: {error.strerror}.")


def read_model(path: Path) -> ModelDirectory:
    """
    Read one model directory.

    Raises:
        ProfileError: its configuration can't be read.
    """
    if not path.name.isprintable():
        raise ProfileError(f"The model directory {path.name!r} has a name that is no text.")
    config_name = _config_name(path)
    config = read_config(path / config_name) if config_name else _empty_config()
    versions = sorted(int(child.name) for child in _children(path) if _is_version(child))
    return ModelDirectory(path.name, path, config, config_name, tuple(versions))


def _check_directory(path: Path) -> None:
    shown = str(path)
    if _REMOTE.match(shown):
        raise ProfileError(
            f"{shown!r} is no local directory; copy the model repository here first."
        )
    try:
        is_directory, exists = path.is_dir(), path.exists()
    except (OSError, ValueError):  # too long, or with a NUL
        is_directory = exists = False
    if exists and not is_directory:
        raise ProfileError(f"{shown!r} is a file; name the directory: {EXPECTED}.")
    if not is_directory:
        raise ProfileError(f"There is no directory {shown!r}; name a Triton model repository.")


def _is_model(path: Path) -> bool:
    if _config_name(path):
        return True
    files = ("model.json", "model.py")
    versions = [child for child in _children(path) if _is_version(child)]
    return any(_exists(version / name) for version in versions for name in files)


def _config_name(path: Path) -> str | None:
    return next((name for name in CONFIG_NAMES if _exists(path / name)), None)


def _is_version(path: Path) -> bool:
    return bool(_VERSION.fullmatch(path.name))


def _children(path: Path) -> Iterator[Path]:
    """Directories, in order; hidden ones are Kubernetes' and Git's."""
    for child in sorted(path.iterdir()):
        if not child.name.startswith(".") and child.is_dir():
            yield child


def _exists(path: Path) -> bool:
    """Also where it is a link that leads nowhere, which is then an error with its name."""
    return path.is_symlink() or path.exists()


def _hint(path: Path) -> str:
    if _is_version(path) and any(_exists(path / name) for name in ("model.json", "model.py")):
        return f"; this is a version of one, name {path.parent.name!r}"
    return ""


def _empty_config() -> Any:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    return ModelConfig()
