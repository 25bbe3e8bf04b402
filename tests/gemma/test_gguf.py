"""GGUF weights: how they are named, and where their config.json comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemma_serve.errors import ModelError
from gemma_serve.gemma.checkpoint import check_servable, read_checkpoint
from gemma_serve.gemma.gguf import is_gguf
from gemma_serve.profile.schema import Profile

BASE = "google/gemma-3-1b-it"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with GGUF's first bytes; no weights are read here."""
    file = tmp_path / "gemma-3-1b-it-Q4_K_M.gguf"
    file.write_bytes(b"GGUF" + bytes(96))
    return file


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("/models/gemma.gguf", True),
        ("google/gemma-3-1b-it-qat-q4_0-gguf/gemma-3-1b-it-q4_0.gguf", True),
        ("unsloth/gemma-3-1b-it-GGUF:Q4_K_M", True),
        ("unsloth/gemma-3-1b-it-GGUF:UD-Q4_K_XL", True),
        ("/models/gguf-dir:IQ2_XS", True),
        ("ggml-org/gemma-3-1b-it-GGUF:BF16", True),
        ("unsloth/gemma-3-1b-it-GGUF", False),
        ("google/gemma-3-1b-it", False),
        ("someone/gemma:latest", False),
        (":Q4_0", False),
    ],
)
def test_names_of_gguf(model: str, expected: bool) -> None:
    """The forms that vllm-gguf-plugin takes are GGUF; a repository's name alone is not."""
    assert is_gguf(model) is expected


def test_config_comes_from_the_tokenizers_model(file: Path) -> None:
    """A bare file is the model that `tokenizer` names, with weights of its own size."""
    checkpoint = read_checkpoint(str(file), tokenizer=BASE, download=False)
    base = read_checkpoint(BASE, download=False)
    assert (checkpoint.config, checkpoint.added_tokens) == (base.config, base.added_tokens)
    assert (checkpoint.path, checkpoint.quant_method, checkpoint.weight_bytes) == (
        file,
        "gguf",
        100,
    )
    check_servable(checkpoint, Profile(model=str(file), tokenizer=BASE))


def test_config_beside_the_file(file: Path) -> None:
    """Without `tokenizer`, the config.json beside the file counts."""
    (file.parent / "config.json").write_text('{"model_type": "gemma2", "vocab_size": 99}')
    assert read_checkpoint(str(file), download=False).text["vocab_size"] == 99


def test_config_of_a_repository(file: Path) -> None:
    """A repository's quantisation takes the config of `tokenizer` too."""
    checkpoint = read_checkpoint("someone/gemma-GGUF:Q4_K_M", tokenizer=BASE, download=False)
    assert (checkpoint.path, checkpoint.weight_bytes) == (None, None)
    assert checkpoint.num_attention_heads == 4


def test_file_without_config(file: Path) -> None:
    """A bare file without `tokenizer` is refused with what to write."""
    with pytest.raises(ModelError) as caught:
        read_checkpoint(str(file), download=False)
    assert caught.value.message == (
        f"Model '{file}' has no config.json beside it; name the model that it was made from, "
        "for example tokenizer: google/gemma-3-1b-it."
    )


def test_file_that_is_no_gguf(file: Path) -> None:
    """A download that went wrong (HTML, a Git LFS pointer) is refused by its first bytes."""
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ModelError) as caught:
        read_checkpoint(str(file), tokenizer=BASE, download=False)
    assert caught.value.message == f"Model '{file}' is not a GGUF file; fetch it again."


def test_file_that_is_not_there(tmp_path: Path) -> None:
    """A path without a file is refused with the forms that there are."""
    missing = tmp_path / "missing.gguf"
    with pytest.raises(ModelError) as caught:
        read_checkpoint(str(missing), download=False)
    assert caught.value.message == (
        f"Model '{missing}' does not exist; name a GGUF file, or a repository and a quantisation "
        "such as owner/name:Q4_K_M."
    )
