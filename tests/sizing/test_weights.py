"""Weights by part: counted from headers and from the config, in every precision."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemma_serve.gemma.checkpoint import read_checkpoint
from gemma_serve.sizing.fit import Sizing
from gemma_serve.sizing.tensors import tensors_of
from tests.engine.derive import GIB, TWO_CORES
from tests.sizing.styles import STYLES
from tests.sizing.subjects import subject


def size(model: str, **keys: object) -> Sizing:
    return subject("h100", model=model, **keys).size()


@pytest.mark.parametrize("style", STYLES)
def test_config_and_files_count_the_same(style: str, tmp_path: Path) -> None:
    """Of a language model nothing but norms and small coefficients is left out without files."""
    checkpoint = read_checkpoint(str(STYLES[style](tmp_path)), download=False)
    stored, source = tensors_of(checkpoint, tmp_path)
    derived, other = tensors_of(checkpoint, None)

    assert (source, other) == ("safetensors headers", "config.json")
    matrices = {t.name: t.shape for t in derived if len(t.shape) == 2}
    in_files = {t.name: t.shape for t in stored if t.name in matrices}
    assert in_files == matrices
    assert sum(t.num_elements for t in derived) == pytest.approx(
        sum(t.num_elements for t in stored), rel=0.02
    )


@pytest.mark.parametrize(
    "model",
    [
        *("google/gemma-2-2b-it", "google/gemma-2-9b-it", "google/gemma-2-27b-it"),
        *("google/gemma-3-270m-it", "google/gemma-3-1b-it"),
    ],
)
def test_text_models_weigh_what_is_known_of_them(model: str) -> None:
    """The count from the config is the known size, to the tenth that it is given in."""
    weights = size(model).weights
    known = read_checkpoint(model, download=False).weight_bytes

    assert known is not None
    assert weights.total_bytes / GIB == pytest.approx(known / GIB, abs=0.06)


def test_fp8_halves_the_layers_and_nothing_else() -> None:
    """Embeddings, towers and norms stay; scales come on top of half the matrices."""
    bf16, fp8 = size("google/gemma-3-27b-it"), size("google/gemma-3-27b-it", dtype="fp8")
    before, after = bf16.weights.by_part, fp8.weights.by_part

    assert {part: after[part] for part in after if part != "linear layers"} == {
        part: before[part] for part in before if part != "linear layers"
    }
    assert 0.5 < after["linear layers"] / before["linear layers"] < 0.501
    assert (bf16.weights.fp8_share, round(fp8.weights.fp8_share, 3)) == (0.0, 0.948)


def test_per_layer_embeddings_stay_in_bf16() -> None:
    """FP8 would ruin them; what is multiplied with them stays with them."""
    bf16, fp8 = size("google/gemma-4-E2B-it"), size("google/gemma-4-E2B-it", dtype="fp8")

    assert (
        fp8.weights.by_part["per-layer embeddings"]
        == (bf16.weights.by_part["per-layer embeddings"])
    )
    # 262,144 x 35 layers x 256, in bf16.
    assert bf16.weights.by_part["per-layer embeddings"] == 262_144 * 35 * 256 * 2


def test_quantised_checkpoint_is_counted_as_it_is_stored() -> None:
    """RedHat's FP8 Gemma 2 9B weighs its 9.5 GiB by the config alone."""
    weights = size("RedHatAI/gemma-2-9b-it-FP8").weights

    assert weights.total_bytes / GIB == pytest.approx(9.5, abs=0.15)
    assert weights.fp8_share > 0.8


def test_fp32_doubles() -> None:
    """Four bytes for each of two."""
    bf16 = subject(TWO_CORES, model="embedded/gemma-3-270m").size().weights
    fp32 = subject(TWO_CORES, model="embedded/gemma-3-270m", dtype="fp32").size().weights

    assert fp32.device_bytes == 2 * bf16.device_bytes


def test_text_only_leaves_the_towers_out() -> None:
    """A text-only profile has their memory for its KV cache."""
    assert "towers" in size("google/gemma-3-4b-it").weights.by_part
    assert "towers" not in size("google/gemma-3-4b-it", text_only=True).weights.by_part


def test_gpus_share_the_matrices_but_not_single_kv_heads() -> None:
    """Eight GPUs hold an eighth of each matrix; of four KV heads each holds a whole one."""
    one, eight = (
        size("google/gemma-3-4b-it", tensor_parallel_size=number).weights.by_part
        for number in (1, 8)
    )
    kv = 34 * 2 * (4 * 256) * 2560 * 2  # layers, key and value, heads x head size, hidden, bf16

    assert eight["embeddings"] == one["embeddings"] // 8
    assert eight["linear layers"] == pytest.approx((one["linear layers"] - kv) / 8 + kv / 4, abs=99)


def test_experts_are_read_as_they_are_chosen() -> None:
    """26B-A4B has 25 billion weights, of which a token multiplies with less than four."""
    weights = size("google/gemma-4-26B-A4B-it").weights

    assert 3.0e9 < weights.active_parameters < 4.0e9
    assert weights.expert_bytes > 0.8 * weights.by_part["experts"]
    assert weights.read_bytes < 0.2 * weights.device_bytes
