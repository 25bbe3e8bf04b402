"""Profiles are written to a fresh working directory, so that messages name them by bare names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gemma_serve.errors import ProfileError
from gemma_serve.profile.load import LoadedProfile, load_profile

Write = Callable[..., str]
Mistakes = Callable[..., list[str]]
Load = Callable[..., LoadedProfile]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a profile into the working directory and returns its path."""
    monkeypatch.chdir(tmp_path)

    def to_file(text: str, name: str = "my.yaml") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return to_file


@pytest.fixture
def load(write: Write) -> Load:
    """Loads a profile from its text and --set options."""

    def from_text(text: str, *overrides: str) -> LoadedProfile:
        return load_profile(write(text), overrides)

    return from_text


@pytest.fixture
def mistakes(write: Write) -> Mistakes:
    """The lines that a broken profile prints."""

    def of(text: str, *overrides: str, engine_fields: dict[str, object] | None = None) -> list[str]:
        with pytest.raises(ProfileError) as caught:
            load_profile(write(text), overrides, engine_fields=engine_fields)
        return str(caught.value).splitlines()

    return of
