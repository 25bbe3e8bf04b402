"""A mixture of experts: what becomes of tensors that hold all experts of a layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gemma_serve.errors import QuantizeError
from tests.quantize.checkpoints import (
    EXPERTS,
    change_config,
    change_weights,
    config_of,
    copy_of,
    mixture_of_experts,
    quantize,
    tensors_of,
)
from tests.quantize.test_fp8 import assert_close

EXPERTS_OF_0 = "model.layers.0.experts"


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight experts a layer, in two layers."""
    return mixture_of_experts(tmp_path_factory.mktemp("mixture"))


def restored(tensors: dict[str, torch.Tensor], layer: str) -> dict[str, torch.Tensor]:
    """The experts of a layer as they were stored: gates above ups, all experts in one tensor."""

    def weight(expert: int, projection: str) -> torch.Tensor:
        name = f"{layer}.{expert}.{projection}.weight"
        return tensors[name].float() * tensors[f"{name}_scale"]

    pairs = [
        torch.cat([weight(expert, "gate_proj"), weight(expert, "up_proj")])
        for expert in range(EXPERTS)
    ]
    downs = [weight(expert, "down_proj") for expert in range(EXPERTS)]
    return {"gate_up_proj": torch.stack(pairs), "down_proj": torch.stack(downs)}


def test_fp8_dynamic(mixture: Path, tmp_path: Path) -> None:
    """Each expert becomes three FP8 weights with a scale a channel; the router stays bf16."""
    made = quantize(mixture, tmp_path / "out", "fp8-dynamic")
    before, after = tensors_of(mixture), tensors_of(tmp_path / "out")

    # Of the dense part 7 matrices, and in the global layer, whose keys are its values, 6.
    assert len(made.weights) == 7 + 6 + 2 * 3 * EXPERTS
    for layer in ("model.layers.0.experts", "model.layers.1.experts"):
        for stored_as, values in restored(after, layer).items():
            assert f"{layer}.{stored_as}" not in after
            scale = values.abs().amax(-1, keepdim=True) / 448
            assert_close(values, before[f"{layer}.{stored_as}"].float(), scale)
    router = {name for name in before if ".router." in name}
    assert len(router) == 2 * 3
    assert all(torch.equal(after[name], before[name]) for name in router)
    ignored = config_of(tmp_path / "out")["quantization_config"]["ignore"]
    assert {"model.layers.0.router.proj", "model.layers.1.router.proj"} <= set(ignored)
    assert not [name for name in ignored if "experts" in name]


def test_kv_cache(mixture: Path, calibration_text: Path, tmp_path: Path) -> None:
    """Its KV cache is calibrated through the experts, and they stay as they are stored."""
    quantize(mixture, tmp_path / "out", "kv-fp8", calibration_text=calibration_text)
    before, after = tensors_of(mixture), tensors_of(tmp_path / "out")

    assert sorted(after.keys() - before.keys()) == [
        f"model.layers.{layer}.self_attn.{letter}_scale" for layer in (0, 1) for letter in "kv"
    ]
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("scheme", ["fp8-block", "fp8-static", "q4_0"])
def test_other_schemes(scheme: str, mixture: Path, calibration_text: Path, tmp_path: Path) -> None:
    """They take no mixture, and one line says which does."""
    options = {"calibration_text": calibration_text} if scheme == "fp8-static" else {}
    with pytest.raises(QuantizeError) as caught:
        quantize(mixture, tmp_path / "out", scheme, **options)

    assert caught.value.message == (
        f"{str(mixture)!r} is a mixture of experts, which --scheme {scheme} does not take; use "
        "--scheme fp8-dynamic, or serve it with dtype: fp8, which quantises while loading on a GPU."
    )
    assert list(tmp_path.iterdir()) == []


def test_bad_experts(mixture: Path, tmp_path: Path) -> None:
    """Experts of another shape than config.json says, and NaN in one, are found by their tensor."""
    other = change_config(copy_of(mixture, tmp_path / "other"), moe_intermediate_size=48)
    with pytest.raises(
        QuantizeError, match=rf"Tensor '{EXPERTS_OF_0}\..*' of .* is BF16 \[8, .*48"
    ):
        quantize(other, tmp_path / "out", "fp8-dynamic")

    def spoil(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name == f"{EXPERTS_OF_0}.down_proj":
            tensor[-1, -1, -1] = torch.nan
        return tensor

    spoiled = change_weights(copy_of(mixture, tmp_path / "spoiled"), spoil)
    with pytest.raises(QuantizeError, match=rf"Tensor '{EXPERTS_OF_0}.down_proj' in .* holds NaN"):
        quantize(spoiled, tmp_path / "out", "fp8-dynamic")
