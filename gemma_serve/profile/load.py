"""
A profile is read from a packaged name or a path, with all that it extends and every --set.

Precedence: defaults < extends < file < --set. All mistakes are raised together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gemma_serve.errors import Mistake, ProfileError
from gemma_serve.profile.chain import Sources, packaged_names
from gemma_serve.profile.check import build, check, rule_mistakes, settle
from gemma_serve.profile.json_schema import json_schema
from gemma_serve.profile.schema import Profile
from gemma_serve.profile.tree import Node, Origin, dotted

__all__ = [
    "LoadedProfile",
    "Origin",
    "ProfileSummary",
    "json_schema",
    "list_profiles",
    "load_profile",
]


@dataclass(frozen=True)
class LoadedProfile:
    """A profile, and where each of its values was written."""

    profile: Profile
    name: str
    files: tuple[Path, ...]  # base first
    origins: Mapping[str, Origin]  # dotted key of each value that is not a default

    def origin(self, key: str) -> Origin:
        """Where a value comes from; of a map, where the strongest of its values does."""
        if key in self.origins:
            return self.origins[key]
        inside = [origin for leaf, origin in self.origins.items() if leaf.startswith(f"{key}.")]
        rank = ("extends", "file", "--set")
        return max(inside, key=lambda o: rank.index(o.kind), default=Origin("default"))


@dataclass(frozen=True)
class ProfileSummary:
    """One line of the list of packaged profiles."""

    name: str
    model: str
    dtype: str
    tensor_parallel_size: int
    description: str | None
    gpu_memory_gib: float | None
    tested_on: tuple[str, ...]


def load_profile(
    name_or_path: str,
    overrides: Sequence[str] = (),
    *,
    engine_fields: Mapping[str, Mapping[str, Any]] | None = None,
) -> LoadedProfile:
    """
    Read a profile, with what it extends and what `--set` changes.

    Args:
        overrides: "a.b=value" each; the value is YAML.
        engine_fields: Field of vLLM's AsyncEngineArgs -> JSON Schema of its values; None leaves
            the keys under `engine:` unchecked.

    Raises:
        ProfileError: With every mistake that was found, in the order of files and lines.
    """
    sources = Sources()
    sources.read_chain(name_or_path)
    for override in overrides:
        sources.read_override(override)
    tree = sources.merged()
    settled = settle(tree)
    mistakes = [*sources.mistakes, *check(tree, engine_fields)]
    if sources.complete and settled.child("model") is None:
        mistakes.append(_missing_model(tree))
    if mistakes:
        raise ProfileError(sources.in_order(mistakes))
    try:
        profile = build(settled)
    except ValidationError as error:
        raise ProfileError(sources.in_order(list(rule_mistakes(error, settled)))) from None
    origins = {dotted(path): leaf.origin for path, leaf in settled.leaves()}
    return LoadedProfile(profile, sources.files[-1].stem, tuple(sources.files), origins)


def list_profiles() -> list[ProfileSummary]:
    """The packaged profiles, by name."""
    return [_summary(name) for name in packaged_names()]


def _summary(name: str) -> ProfileSummary:
    profile = load_profile(name).profile
    return ProfileSummary(
        name,
        profile.model,
        profile.dtype,
        profile.tensor_parallel_size,
        profile.meta.description,
        profile.meta.gpu_memory_gib,
        tuple(profile.meta.tested_on),
    )


def _missing_model(tree: Node) -> Mistake:
    origin = (tree.child("model") or tree).origin
    return origin.mistake(
        "model is missing; name a Hugging Face id, a local directory or embedded/gemma-3-270m, "
        "for example 'model: google/gemma-3-27b-it'."
    )
