"""The installed vLLM's engine arguments: asked once a version, kept in the cache."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gemma_serve.engine.fields import installed_distribution, installed_vllm
from gemma_serve.errors import StartupError


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the answer of the installed vLLM."""
    cache = tmp_path_factory.mktemp("cache")
    installed_vllm(cache)
    return cache


@pytest.fixture
def broken_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that fails as an import of a broken vLLM does."""
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\necho 'Traceback' >&2\necho 'ImportError: no libcudart' >&2\nexit 1\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


def kept_file(cache: Path) -> Path:
    """The one file of such a cache."""
    [file] = cache.iterdir()
    return file


def test_answer_names_version_and_types(kept: Path) -> None:
    """The installed vLLM says its version, and of each argument what YAML may give it."""
    answer = installed_vllm(kept)

    assert answer is not None
    assert answer.version.startswith("0.32.")
    assert {"type": "integer"} in answer.fields["max_model_len"]["anyOf"]
    assert answer.fields["enforce_eager"] == {"type": "boolean"}


def test_file_is_named_by_distribution_and_version(kept: Path) -> None:
    """Another vLLM has another file, so that an upgrade is noticed."""
    distribution = installed_distribution()

    assert distribution is not None
    name = f"engine-fields-{distribution.name}-{distribution.version}.json"
    assert kept_file(kept).name == name


@pytest.mark.usefixtures("broken_python")
def test_kept_answer_starts_no_process(kept: Path) -> None:
    """Once kept, the answer costs no process: not even a vLLM that broke since is noticed."""
    said: list[str] = []

    assert installed_vllm(kept, said.append) is not None
    assert said == []


@pytest.mark.usefixtures("broken_python")
def test_vllm_that_does_not_import(tmp_path: Path) -> None:
    """A vLLM that can't be imported is one sentence with the cause; nothing is kept."""
    with pytest.raises(StartupError) as caught:
        installed_vllm(tmp_path / "cache")

    assert caught.value.message == (
        "The installed vLLM can't be imported (ImportError: no libcudart); "
        "run 'make setup' to repair it."
    )
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "0.32.0"}'])
@pytest.mark.usefixtures("broken_python")
def test_damaged_file_is_asked_again(kept: Path, tmp_path: Path, content: str) -> None:
    """A kept answer that can't be read is not trusted: vLLM is asked again."""
    (tmp_path / kept_file(kept).name).write_text(content)

    with pytest.raises(StartupError, match="can't be imported"):
        installed_vllm(tmp_path)


def test_cache_that_cannot_be_written(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only home costs the seconds again, and nothing else."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncat {kept_file(kept)}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    (tmp_path / "file").write_text("not a directory")

    assert installed_vllm(tmp_path / "file" / "cache") == installed_vllm(kept)
