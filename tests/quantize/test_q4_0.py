"""The Q4_0 grid of a QAT checkpoint, found again in its bf16 weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationConfig
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_serve.errors import QuantizeError
from gemma_serve.quantize import shards
from gemma_serve.quantize.layers import is_quantised
from gemma_serve.quantize.q4_0 import find_grid
from tests.quantize.checkpoints import change_weights, config_of, copy_of, quantize, tensors_of

BF16 = torch.bfloat16


def dequantise(steps: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Blocks of 32 as llama.cpp gives them back, in bf16: (blocks, 32) and (blocks,)."""
    return (steps.float() * scale.float()[:, None]).to(BF16)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """As integers, so that a zero's sign counts."""
    return tensor.view(torch.int16)


def drawn(blocks: int, lowest: int = -8, scale_dtype: torch.dtype = BF16) -> torch.Tensor:
    """Blocks on Q4_0's grid, as QAT leaves them: signed scales, the largest weight at `lowest`."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randint(lowest, 8, (blocks, 32), generator=generator)
    steps[:, 5] = lowest
    signs = torch.randint(0, 2, (blocks,), generator=generator) * 2 - 1
    scale = (torch.rand(blocks, generator=generator) * 0.01 + 0.001) * signs
    return dequantise(steps, scale.to(scale_dtype))


@given(
    steps=st.lists(st.integers(-8, 7), min_size=32, max_size=32),
    mantissa=st.integers(128, 255),
    exponent=st.integers(-40, 10),
    negative=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_block_on_the_grid(
    steps: list[int], mantissa: int, exponent: int, negative: bool
) -> None:
    """Whatever the steps, and whatever scale of bf16: some scale gives all 32 weights back."""
    scale = torch.tensor([mantissa * 2.0**exponent * (-1 if negative else 1)])
    weights = dequantise(torch.tensor([steps]), scale)

    grid = find_grid(weights)

    assert grid.on_grid.tolist() == [True]
    assert torch.equal(dequantise(grid.steps, grid.scale), weights)


def test_scales_are_signed() -> None:
    """The recovered scales are those that the blocks were made with, sign included."""
    weights = drawn(500)
    grid = find_grid(weights)

    assert torch.equal(grid.scale, weights[:, 5] / -8)
    assert bool((grid.scale < 0).any())
    assert bool((grid.scale > 0).any())


@pytest.mark.parametrize("lowest", [-8, -7, -5, -1])
def test_no_weight_at_the_end(lowest: int) -> None:
    """The grid is found too where no weight of a block took its largest step."""
    weights = drawn(500, lowest)
    grid = find_grid(weights)

    assert bool(grid.on_grid.all())
    assert torch.equal(dequantise(grid.steps, grid.scale), weights)


def test_zeros() -> None:
    """A block of zeros is one, with a scale that nothing divides by zero with."""
    grid = find_grid(torch.zeros(2, 32, dtype=BF16))

    assert grid.on_grid.tolist() == [True, True]
    assert grid.scale.tolist() == [1, 1]
    assert not bool(grid.steps.any())


def test_any_other_block() -> None:
    """Weights that no one rounded are on no grid, and become what llama.cpp makes of them."""
    weights = torch.randn(500, 32, generator=torch.Generator().manual_seed(0)).to(BF16)
    grid = find_grid(weights)

    assert not bool(grid.on_grid.any())
    peak = weights.float().gather(1, weights.float().abs().argmax(1, keepdim=True))
    expected = (weights.float() / (peak / -8) + 8.5).floor().clamp(max=15) - 8
    assert torch.equal(grid.steps.float(), expected)
    assert torch.equal(grid.scale.float(), (peak / -8).squeeze(1))


def test_scales_of_more_bits() -> None:
    """A scale of fp16 that bf16 can't hold: the right steps, and weights off by one bit."""
    weights = drawn(500, scale_dtype=torch.float16)
    grid = find_grid(weights)

    assert bool(grid.on_grid.all())
    assert torch.equal(grid.steps[:, 5], torch.full((500,), -8, dtype=torch.int8))
    restored = dequantise(grid.steps, grid.scale)
    assert bool((restored != weights).any())
    assert int((bits(restored).int() - bits(weights).int()).abs().max()) == 1


@pytest.fixture(scope="module")
def qat_model(blocky_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Gemma on the grid of Q4_0, as Google's unquantized QAT checkpoints are."""
    return change_weights(
        copy_of(blocky_model, tmp_path_factory.mktemp("qat") / "tiny-qat-q4_0-unquantized"),
        lambda name, tensor: (
            drawn(tensor.numel() // 32).view(tensor.shape) if is_quantised(name) else tensor
        ),
    )


def test_round_trip(qat_model: Path, tmp_path: Path) -> None:
    """compressed-tensors' own reader gives every weight of a QAT checkpoint back, bit for bit."""
    made = quantize(qat_model, tmp_path / "out", "q4_0")
    before, after = tensors_of(qat_model), tensors_of(tmp_path / "out")
    config = QuantizationConfig.model_validate(config_of(tmp_path / "out")["quantization_config"])
    scheme = config.config_groups["group_0"]

    assert len(made.weights) == 14
    for name in made.weights:
        state = {
            key: after[f"{name.removesuffix('weight')}{key}"]
            for key in ("weight_packed", "weight_scale", "weight_shape")
        }
        restored = PackedQuantizationCompressor.decompress(state, scheme)["weight"]
        assert torch.equal(bits(restored), bits(before[name]))
    assert all(torch.equal(after[name], before[name]) for name in before.keys() & after.keys())
    card = (tmp_path / "out" / "README.md").read_text()
    blocks = sum(before[name].numel() for name in made.weights) // 32
    assert f"All {blocks:,} blocks of 32 weights come back bit for bit." in card


def test_not_qat(blocky_model: Path, tmp_path: Path) -> None:
    """A checkpoint that was not trained for Q4_0 is refused, with the share and the way out."""
    with pytest.raises(QuantizeError) as caught:
        quantize(blocky_model, tmp_path / "out", "q4_0")

    assert str(caught.value) == (
        "Of the first 3,072 blocks of 'model.layers.0.mlp.down_proj.weight', 100.0% are not on a "
        "Q4_0 grid (0.1% of a tensor is allowed), so this is no QAT checkpoint for Q4_0; name one "
        "(...-qat-q4_0-unquantized), or round it with --allow-off-grid."
    )
    assert not (tmp_path / "out").exists()


def test_share_of_what_was_looked_at(
    blocky_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large matrix is refused after its first slice, with the share of that and not of all."""
    monkeypatch.setattr(shards, "CHUNK_ELEMENTS", shards.ROW_MULTIPLE * 384)

    with pytest.raises(QuantizeError, match=r"^Of the first 1,536 blocks of '.*', 100\.0% are not"):
        quantize(blocky_model, tmp_path / "out", "q4_0")


def test_not_qat_but_wanted(blocky_model: Path, tmp_path: Path) -> None:
    """--allow-off-grid rounds it, and the card says how much."""
    made = quantize(blocky_model, tmp_path / "out", "q4_0", allow_off_grid=True)

    assert all(known["off_grid_blocks"] == known["blocks"] for known in made.weights.values())
    assert "(100.00%) are not on a Q4_0 grid" in (tmp_path / "out" / "README.md").read_text()


def test_stray_blocks(qat_model: Path, tmp_path: Path) -> None:
    """A stray block in a large matrix is rounded and told."""

    def stray(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name == "model.layers.1.mlp.up_proj.weight":
            tensor[0, :32] = torch.linspace(-1, 1.3, 32)
        return tensor

    source = change_weights(copy_of(qat_model, tmp_path / "source"), stray)
    made = quantize(source, tmp_path / "out", "q4_0")

    known = made.weights["model.layers.1.mlp.up_proj.weight"]
    assert (known["off_grid_blocks"], known["changed_blocks"]) == (1, 1)
