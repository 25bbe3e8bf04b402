"""
Quantisation by vLLM's out-of-tree plugins: what is resolved with them, what is said without them.

The plugins themselves need a GPU; installed here are distributions that have their entry points.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gemma_serve.errors import GemmaServeError
from tests.engine.derive import TWO_CORES, checkpoint_of, derive

SMALL = "google/gemma-3-1b-it"
REPOSITORY = "someone/gemma-3-1b-it-GGUF:Q4_K_M"
# Entry points as in vllm-gguf-plugin 0.0.5 and vllm-bnb-plugin 0.0.3.
ENTRY_POINTS = {
    "vllm-gguf-plugin": "gguf = vllm_gguf_plugin:register",
    "vllm-bnb-plugin": "bitsandbytes = vllm_bnb_plugin:register",
}
Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution with its entry point on the path, as pip does."""
    site = tmp_path / "site"

    def put(name: str) -> None:
        info = site / f"{name.replace('-', '_')}-0.0.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
        (info / "entry_points.txt").write_text(f"[vllm.general_plugins]\n{ENTRY_POINTS[name]}\n")
        monkeypatch.syspath_prepend(site)

    return put


def resolved(directory: Path, platform: Any = "h100", **keys: Any) -> dict[str, Any]:
    return derive(directory, platform, vllm_version="0.32.0", **keys).engine_kwargs()


def refusal(directory: Path, platform: Any = "h100", **keys: Any) -> str:
    with pytest.raises(GemmaServeError) as caught:
        resolved(directory, platform, **keys)
    return caught.value.message


def stored_in_bitsandbytes() -> Any:
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    return checkpoint_of({"model_type": "gemma3_text", "quantization_config": quantization})


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_gguf_repository(tmp_path: Path, install: Install, dtype: str) -> None:
    """A GGUF repository goes to the plugin's config parser and loader, in the profile's dtype."""
    install("vllm-gguf-plugin")
    kwargs = resolved(tmp_path, model=REPOSITORY, tokenizer=SMALL, dtype=dtype)
    assert {key: kwargs[key] for key in ("model", "tokenizer", "dtype")} == {
        "model": REPOSITORY,
        "tokenizer": SMALL,
        "dtype": {"bf16": "bfloat16", "fp32": "float32"}[dtype],
    }
    assert {kwargs[key] for key in ("quantization", "load_format", "config_format")} == {"gguf"}


def test_gguf_file(tmp_path: Path, install: Install) -> None:
    """A GGUF file is handed over by its path."""
    install("vllm-gguf-plugin")
    file = tmp_path / "gemma.gguf"
    file.write_bytes(b"GGUF")
    assert resolved(tmp_path, model=str(file), tokenizer=SMALL)["model"] == str(file)


def test_bitsandbytes_while_loading(tmp_path: Path, install: Install) -> None:
    """engine.quantization bitsandbytes brings the plugin's loader with it."""
    install("vllm-bnb-plugin")
    kwargs = resolved(tmp_path, model=SMALL, engine={"quantization": "bitsandbytes"})
    assert (kwargs["quantization"], kwargs["load_format"]) == ("bitsandbytes", "bitsandbytes")
    assert "config_format" not in kwargs


def test_checkpoint_in_bitsandbytes(tmp_path: Path, install: Install) -> None:
    """A checkpoint that is stored in bitsandbytes needs no word in the profile."""
    install("vllm-bnb-plugin")
    kwargs = resolved(tmp_path, checkpoint=stored_in_bitsandbytes(), model="someone/model")
    assert (kwargs["quantization"], kwargs["load_format"]) == ("bitsandbytes", "bitsandbytes")


def test_missing_plugin_is_named(tmp_path: Path) -> None:
    """GGUF weights, or ones stored in bitsandbytes, name the package that reads them."""
    assert refusal(tmp_path, model=REPOSITORY, tokenizer=SMALL) == (
        f"model '{REPOSITORY}' needs vllm-gguf-plugin, which is not installed; "
        "run 'pip install vllm-gguf-plugin'."
    )
    stored = stored_in_bitsandbytes()
    assert refusal(tmp_path, checkpoint=stored, model="someone/model") == (
        "someone/model, whose weights are stored by bitsandbytes, needs vllm-bnb-plugin, which is "
        "not installed; run 'pip install vllm-bnb-plugin'."
    )


def test_plugin_that_is_switched_off(tmp_path: Path, install: Install) -> None:
    """A plugin that VLLM_PLUGINS leaves out would not be loaded."""
    install("vllm-bnb-plugin")
    keys = {"engine": {"quantization": "bitsandbytes"}, "env": {"VLLM_PLUGINS": "other"}}
    assert refusal(tmp_path, model=SMALL, **keys) == (
        "engine.quantization 'bitsandbytes' needs vllm-bnb-plugin, which VLLM_PLUGINS 'other' "
        "leaves out; add bitsandbytes to it, or unset it."
    )


def test_gguf_on_cpu_is_refused(tmp_path: Path, install: Install) -> None:
    """The plugin's kernels are CUDA's and Triton's."""
    install("vllm-gguf-plugin")
    assert refusal(tmp_path, TWO_CORES, model=REPOSITORY, tokenizer=SMALL) == (
        f"{REPOSITORY} has GGUF weights, and vllm-gguf-plugin has kernels for GPUs alone; "
        "serve a directory of safetensors on CPU."
    )


def test_two_quantisations_are_refused(tmp_path: Path, install: Install) -> None:
    """dtype fp8 beside a plugin's quantisation is not dropped in silence."""
    install("vllm-bnb-plugin")
    keys = {"dtype": "fp8", "engine": {"quantization": "bitsandbytes"}}
    assert refusal(tmp_path, model=SMALL, **keys) == (
        "dtype 'fp8' can't be joined with bitsandbytes weights, which are quantised already; "
        "use dtype: bf16."
    )
