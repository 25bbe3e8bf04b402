"""
Q4_0 without loss: the grid that a QAT checkpoint was trained on, found again in its bf16 weights.

llama.cpp's Q4_0 has blocks of 32 weights along the input, w = d * q with q in -8..7 and a *signed*
scale d: the weight of largest magnitude is -8 * d. (Source: ggml, quantize_row_q4_0_ref.) A usual
symmetric quantiser takes d = largest magnitude / 7.5 instead, which leaves that grid.

The scale of a block is recovered exactly. Each bf16 weight was rounded from d * q, so it bounds d
from both sides; a block lies on the grid if its 32 bounds leave something. Where a bf16 number is
left, vLLM (which keeps scales in the model's own dtype) gives the weights back bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.config import CompressionFormat
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

from gemma_serve.errors import QuantizeError
from gemma_serve.quantize.scheme import Write, compressed_tensors_config
from gemma_serve.quantize.shards import Part, Stored

BLOCK = 32
LOWEST, HIGHEST = -8, 7
# More than stray blocks of one tensor off the grid: the checkpoint was not trained for Q4_0.
MAX_OFF_GRID = 0.001
_PER_INT32 = 8
# What the weight of largest magnitude can be in steps of the scale; Q4_0's own -8 first.
_LEVELS = (-8, *(sign * level for level in range(7, 0, -1) for sign in (1, -1)))
# A bf16 number is within 2^-8 of what was rounded to it, so that the quotient of two, at most 8
# here, is this near to a whole number where both are whole steps; the bounds decide exactly.
_NEAR = 8 * 2.1 * 2**-8


@dataclass(frozen=True)
class Grid:
    """Blocks of 32 weights as integers and scales."""

    steps: torch.Tensor  # int8, (blocks, 32)
    scale: torch.Tensor  # bf16, (blocks,); may be negative
    on_grid: torch.Tensor  # bool, (blocks,): some real scale gives all 32 weights back

    def restored(self) -> torch.Tensor:
        """The weights in bf16, as vLLM's kernels make them."""
        return self.steps.to(torch.bfloat16) * self.scale[:, None]


class Q4Zero:
    """
    Q4_0 as compressed-tensors' W4A16 with groups of 32, symmetric, with signed bf16 scales.

    Args:
        allow_off_grid: Quantise blocks that are not on the grid as llama.cpp does, instead of
            refusing a checkpoint with more than `MAX_OFF_GRID` of them in one tensor.
    """

    splits_experts = False

    def __init__(self, *, allow_off_grid: bool) -> None:
        self._allow_off_grid = allow_off_grid
        weights = QuantizationArgs(
            num_bits=4, type="int", strategy="group", group_size=BLOCK, symmetric=True
        )
        self._scheme = QuantizationScheme(targets=["Linear"], weights=weights)

    def parts(self, name: str, weight: Part) -> dict[str, Part]:
        """Eight weights an int32, a bf16 scale for 32, and the shape."""
        rows, columns = weight.shape
        if weight.dtype != "BF16":
            raise QuantizeError(
                f"Weight {name!r} is stored as {weight.dtype}; the grid of Q4_0 is looked for in "
                "bf16 weights, as Google publishes its QAT checkpoints."
            )
        if columns % BLOCK:
            raise QuantizeError(
                f"Weight {name!r} has {columns} inputs, which blocks of {BLOCK} do not divide; "
                "use --scheme fp8-block."
            )
        return {
            f"{name}_packed": Part("I32", (rows, columns // _PER_INT32)),
            f"{name}_scale": Part("BF16", (rows, columns // BLOCK)),
            f"{name}_shape": Part("I64", (2,)),
        }

    def convert(self, weight: Stored, write: Write) -> Mapping[str, Any]:
        """
        Write the weight, and compare what compressed-tensors makes of it with what it was.

        Raises:
            QuantizeError: More blocks are off the grid than the bound allows.
        """
        rows, columns = weight.part.shape
        num_blocks = rows * columns // BLOCK
        looked_at = off_grid = changed = 0
        for row, stored in weight.slices():
            grid = find_grid(stored.view(-1, BLOCK))
            packed = pack_to_int32(grid.steps.view(stored.shape), 4)
            scale = grid.scale.view(len(stored), -1)
            looked_at += len(grid.on_grid)
            off_grid += int((~grid.on_grid).sum())
            changed += self._changed_blocks(stored, packed, scale)
            if off_grid > MAX_OFF_GRID * num_blocks and not self._allow_off_grid:
                raise _no_qat(weight.name, off_grid, looked_at)
            write(f"{weight.name}_packed", row, packed)
            write(f"{weight.name}_scale", row, scale)
        write(f"{weight.name}_shape", 0, torch.tensor([rows, columns]))
        return {"blocks": num_blocks, "off_grid_blocks": off_grid, "changed_blocks": changed}

    def _changed_blocks(
        self, stored: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor
    ) -> int:
        """Blocks that do not come back as they were; the sign of a zero apart."""
        state = {
            "weight_packed": packed,
            "weight_scale": scale,
            "weight_shape": torch.tensor(stored.shape),
        }
        restored = PackedQuantizationCompressor.decompress(state, self._scheme)["weight"]
        return int((restored != stored).view(-1, BLOCK).any(1).sum())

    def quantization_config(self, kept: Sequence[str]) -> dict[str, Any]:
        """compressed-tensors' W4A16, with groups of 32."""
        return compressed_tensors_config(self._scheme, CompressionFormat.pack_quantized, kept)


def _no_qat(name: str, off_grid: int, looked_at: int) -> QuantizeError:
    return QuantizeError(
        f"Of the first {looked_at:,} blocks of {name!r}, {off_grid / looked_at:.1%} are not on a "
        f"Q4_0 grid ({MAX_OFF_GRID:.1%} of a tensor is allowed), so this is no QAT checkpoint for "
        "Q4_0; name one (...-qat-q4_0-unquantized), or round it with --allow-off-grid."
    )


def find_grid(weights: torch.Tensor) -> Grid:
    """
    The Q4_0 grid of each block; where there is none, the nearest as llama.cpp rounds to it.

    Args:
        weights: bf16, (blocks, 32), finite.
    """
    values = weights.float()
    peak = values.gather(1, values.abs().argmax(1, keepdim=True))
    steps, scale = _as_llama_cpp(values, peak)
    exact = peak.squeeze(1) == 0
    on_grid = exact.clone()
    for level in _LEVELS:
        left = (~exact).nonzero().squeeze(1)
        if not len(left):
            break
        found = _fit(values[left], peak[left], level)
        is_exact = found.on_grid & (found.restored() == weights[left]).all(1)
        better = is_exact | (found.on_grid & ~on_grid[left])
        where = left[better]
        steps[where], scale[where], on_grid[where] = found.steps[better], found.scale[better], True
        exact[left[is_exact]] = True
    return Grid(steps, scale, on_grid)


def _as_llama_cpp(values: torch.Tensor, peak: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Q4_0 as ggml rounds to it; a block of zeros gets the scale 1."""
    scale = torch.where(peak == 0, 1.0, peak / LOWEST)
    steps = (values / scale + 0.5).floor().clamp(LOWEST, HIGHEST)
    return steps.to(torch.int8), scale.squeeze(1).to(torch.bfloat16)


def _fit(values: torch.Tensor, peak: torch.Tensor, level: int) -> Grid:
    """The grid on which the weight of largest magnitude is `level` steps, where it is one."""
    quotient = values / (peak / level)
    steps = quotient.round()
    near = ((quotient - steps).abs() <= _NEAR) & (steps >= LOWEST) & (steps <= HIGHEST)
    # Of w = 0 and q = 0 nothing follows for the scale; one of both alone can't be.
    possible = near & ((steps == 0) == (values == 0))
    # Nearly every block of a checkpoint that is no QAT ends here, without its bounds.
    left = possible.all(1).nonzero().squeeze(1)
    low, high = _scale_bounds(values[left], steps[left])
    scale, on_grid = torch.ones(len(values)), torch.zeros(len(values), dtype=torch.bool)
    scale[left], on_grid[left] = (low + high) / 2, low <= high
    return Grid(steps.to(torch.int8), scale.to(torch.bfloat16), on_grid)


def _scale_bounds(values: torch.Tensor, steps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and the largest scale that every weight of a block allows; (blocks,) each."""
    free = steps == 0
    bounds = torch.stack([bound / steps for bound in _rounded_from(values)])
    low = torch.where(free, -torch.inf, bounds.amin(0)).amax(1)
    high = torch.where(free, torch.inf, bounds.amax(0)).amin(1)
    return low, high


def _rounded_from(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The least and the largest float32 magnitude that round to these bf16 values, with their sign.

    bf16 is the upper half of a float32, rounded to nearest and ties to even; so that a value with
    an even last bit takes both ties.
    """
    bits = values.view(torch.int32)
    reach = 0x8000 - ((bits >> 16) & 1)
    return (bits - reach).view(torch.float32), (bits + reach).view(torch.float32)
