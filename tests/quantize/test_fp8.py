"""FP8 checkpoints, read back by the libraries that will read them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors.naive_quantized import FloatQuantizationCompressor
from compressed_tensors.quantization import QuantizationConfig, preset_name_to_scheme

from gemma_serve.errors import QuantizeError
from tests.quantize.checkpoints import (
    change_weights,
    config_of,
    copy_of,
    quantize,
    tensors_of,
    with_unused_keys,
)
from tests.sizing.styles import STYLES
from tests.tiny_gemma import make_tiny_gemma
from tests.tiny_gemma4 import make_tiny_gemma4
from tests.tiny_gemma_vision import make_tiny_gemma_vision

# E4M3 has three bits behind the leading one: half a step is a sixteenth of the value. Below 2^-6
# the steps are equal, 2^-9, in units of the scale.
RELATIVE, SMALLEST_HALF_STEP = 1 / 16, 2**-10
UP = "model.layers.0.mlp.up_proj"


def assert_close(restored: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> None:
    """Every weight is within half a step of FP8 of what it was."""
    bound = torch.maximum(weight.abs() * RELATIVE, scale * SMALLEST_HALF_STEP) * 1.001
    assert bool(((restored - weight).abs() <= bound).all())


def blocks_of(scale: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The scale of each weight, where one is for 128 x 128."""
    spread = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)
    return spread[: shape[0], : shape[1]]


def test_block(blocky_model: Path, tmp_path: Path) -> None:
    """Block FP8: weights within half a step, scales that use all its range, the rest untouched."""
    made = quantize(blocky_model, tmp_path / "out", "fp8-block")
    before, after = tensors_of(blocky_model), tensors_of(tmp_path / "out")

    assert len(made.weights) == 14
    for name in before:
        if name not in made.weights:
            assert torch.equal(after[name], before[name])
            continue
        assert after[name].dtype == torch.float8_e4m3fn
        scale = blocks_of(after[f"{name}_scale_inv"], before[name].shape)
        assert_close(after[name].float() * scale, before[name].float(), scale)
    assert float(after[f"{UP}.weight"].float().max()) == 448
    assert config_of(tmp_path / "out")["quantization_config"] == {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
        "modules_to_not_convert": ["lm_head", "model.embed_tokens"],
    }


def test_block_at_the_edge(tmp_path: Path) -> None:
    """The last block of a matrix is smaller where 128 does not divide it, and has a scale too."""
    shape = {"hidden_size": 320, "intermediate_size": 128, "num_key_value_heads": 4}
    source = make_tiny_gemma(tmp_path / "source", **shape)
    quantize(source, tmp_path / "out", "fp8-block")
    before, after = tensors_of(source), tensors_of(tmp_path / "out")

    scale = after[f"{UP}.weight_scale_inv"]
    assert scale.shape == (1, 3)
    spread = blocks_of(scale, torch.Size((128, 320)))
    assert_close(after[f"{UP}.weight"].float() * spread, before[f"{UP}.weight"].float(), spread)


def test_block_refuses_what_vllm_would(tiny_model: Path, tmp_path: Path) -> None:
    """Keys of 64 rows would share a block with the values behind them."""
    with pytest.raises(QuantizeError, match=r"k_proj.weight' has 64 rows, .* fp8-dynamic\.$"):
        quantize(tiny_model, tmp_path / "out", "fp8-block")

    assert list(tmp_path.glob("out")) == []


def test_dynamic(tiny_model: Path, tmp_path: Path) -> None:
    """FP8 by channel: compressed-tensors' own reader gives the weights back within half a step."""
    made = quantize(tiny_model, tmp_path / "out", "fp8-dynamic")
    before, after = tensors_of(tiny_model), tensors_of(tmp_path / "out")
    scheme = preset_name_to_scheme("FP8_DYNAMIC", ["Linear"])

    for name in made.weights:
        scale = after[f"{name}_scale"]
        state = {"weight": after[name], "weight_scale": scale}
        restored = FloatQuantizationCompressor.decompress(state, scheme)["weight"]
        assert_close(restored, before[name].float(), scale)
    config = QuantizationConfig.model_validate(config_of(tmp_path / "out")["quantization_config"])
    assert config.config_groups["group_0"] == scheme
    assert (config.format, config.ignore) == ("float-quantized", ["lm_head", "model.embed_tokens"])


def test_static(tiny_model: Path, calibration_text: Path, tmp_path: Path) -> None:
    """FP8 by tensor: one scale for the weight, and one for what enters it, from the user's text."""
    made = quantize(tiny_model, tmp_path / "out", "fp8-static", calibration_text=calibration_text)
    before, after = tensors_of(tiny_model), tensors_of(tmp_path / "out")

    for name in made.weights:
        scale = after[f"{name}_scale"]
        assert_close(after[name].float() * scale, before[name].float(), scale)
        assert float(after[name].float().abs().max()) == 448
        assert float(after[f"{name.removesuffix('.weight')}.input_scale"]) > 1e-6
    # What enters q, k and v is one tensor.
    scales = [
        after[f"model.layers.1.self_attn.{letter}_proj.input_scale"] for letter in ("q", "k", "v")
    ]
    assert scales[0] == scales[1] == scales[2]
    config = QuantizationConfig.model_validate(config_of(tmp_path / "out")["quantization_config"])
    assert config.config_groups["group_0"] == preset_name_to_scheme("FP8", ["Linear"])


UNUSED = [
    f"model.layers.{layer}.self_attn.{letter}_proj" for layer in range(10, 15) for letter in "kv"
]


@pytest.mark.parametrize("scheme", ["fp8-static", "fp8-dynamic", "kv-fp8"])
@pytest.mark.parametrize("style", ["gemma3n", "gemma4"])
def test_layers_that_share_a_cache(
    style: str, scheme: str, calibration_text: Path, tmp_path: Path
) -> None:
    """Their keys and values are stored and built by nobody: they stay, and all else is made."""
    source = with_unused_keys(STYLES[style](tmp_path / "source"))
    options = {} if scheme == "fp8-dynamic" else {"calibration_text": calibration_text}
    made = quantize(source, tmp_path / "out", scheme, **options)
    before, after = tensors_of(source), tensors_of(tmp_path / "out")

    # 10 layers with 7 matrices, and 5 with neither keys nor values.
    assert len(made.weights) == 10 * 7 + 5 * 5
    assert set(UNUSED) <= set(made.kept)
    for module in UNUSED:
        assert torch.equal(after[f"{module}.weight"], before[f"{module}.weight"])
        assert [name for name in after if name.startswith(module)] == [f"{module}.weight"]


def test_kv_cache(tiny_model: Path, calibration_text: Path, tmp_path: Path) -> None:
    """Scales of an FP8 KV cache: for keys and values of each layer, beside untouched weights."""
    quantize(tiny_model, tmp_path / "out", "kv-fp8", calibration_text=calibration_text)
    before, after = tensors_of(tiny_model), tensors_of(tmp_path / "out")

    new = {name: after.pop(name) for name in after.keys() - before.keys()}
    assert sorted(new) == [
        f"model.layers.{layer}.self_attn.{letter}_scale" for layer in (0, 1) for letter in "kv"
    ]
    # k_norm makes every key 1 long on average: sqrt(32) is the most that one of 32 numbers can be.
    assert all(1e-6 < float(scale) * 448 <= 32**0.5 * 1.02 for scale in new.values())
    assert all(torch.equal(after[name], before[name]) for name in before)
    config = config_of(tmp_path / "out")["quantization_config"]
    assert config["config_groups"] == {}
    assert config["kv_cache_scheme"]["num_bits"] == 8
    assert config["kv_cache_scheme"]["strategy"] == "tensor"


def test_zeros(blocky_model: Path, tmp_path: Path) -> None:
    """A matrix of zeros stays one."""
    source = change_weights(
        copy_of(blocky_model, tmp_path / "source"),
        lambda name, tensor: torch.zeros_like(tensor) if UP in name else tensor,
    )
    quantize(source, tmp_path / "out", "fp8-block")
    after = tensors_of(tmp_path / "out")

    assert not bool(after[f"{UP}.weight"].float().any())
    assert bool((after[f"{UP}.weight_scale_inv"] > 0).all())


@pytest.mark.parametrize(
    ("make", "kept"),
    [
        (
            make_tiny_gemma_vision,
            {
                "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj",
                "vision_tower.vision_model.encoder.layers.1.mlp.fc1",
                "language_model.model.embed_tokens",
                "lm_head",
            },
        ),
        (
            make_tiny_gemma4,
            {
                "model.embed_tokens",
                "model.embed_tokens_per_layer",
                "model.per_layer_model_projection",
                "model.layers.0.per_layer_input_gate",
                "model.layers.1.per_layer_projection",
                "lm_head",
            },
        ),
    ],
)
def test_what_stays(make: object, kept: set[str], tmp_path: Path) -> None:
    """Towers, projections and embeddings stay as stored, each named to vLLM."""
    assert callable(make)
    source = make(tmp_path / "source")
    made = quantize(source, tmp_path / "out", "fp8-dynamic")
    before, after = tensors_of(source), tensors_of(tmp_path / "out")

    ignored = config_of(tmp_path / "out")["quantization_config"]["ignore"]
    assert kept <= set(ignored) == set(made.kept)
    assert len(made.weights) == 14
    assert all("layers." in name and "tower" not in name for name in made.weights)
    assert all(
        torch.equal(after[name], before[name]) for name in before.keys() - made.weights.keys()
    )
